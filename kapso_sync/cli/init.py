"""``init``: proposes a manifest for a folder that has code and none."""

from __future__ import annotations

from pathlib import Path

from kapso_sync.advice import Advise
from kapso_sync.cli.console import Console, whole
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.render import print_diff
from kapso_sync.cli.runner import run_to_end
from kapso_sync.errors import ExitCode
from kapso_sync.model.json_values import Json
from kapso_sync.plurals import counted
from kapso_sync.reconcile.plan.comparison import file_diff
from kapso_sync.reconcile.pull.proposal import Proposal
from kapso_sync.wiring.pull import plan_an_init, with_schema, write_files


def init(context: CommandContext, *, write: bool, json_output: bool) -> int:
    """Print a manifest for the folder's code, and ``write`` it; a file that exists is never overwritten."""
    settings = context.load_settings()

    async def work() -> int:
        target, proposal = await plan_an_init(settings, context.event_bus(settings))
        if write and proposal.change is not None:
            write_files(target.home, with_schema(target.home, [proposal.change]))
        if json_output:
            context.stdout().document(_document(proposal, written=write))
        else:
            _print(context.stdout(), proposal, target.home, context.advise, written=write)
        return int(ExitCode.OK)

    return run_to_end(work)


def _print(console: Console, proposal: Proposal, home: Path, advise: Advise, *, written: bool) -> None:
    for function in proposal.functions:
        console.line((f"+ {function.slug}", "green"), "  ", whole(function.file))
        for remark in function.remarks:
            console.line(remark, indent=4)
    for path, reason in proposal.left_out.items():
        console.line(("- ", "dim"), whole(path, "dim"), f"  left out: {reason}")
    if proposal.elsewhere:
        names = console.names(proposal.elsewhere)
        console.line(advise(f"On Kapso and not here: {names}. Afterwards `kapso-sync pull` brings them."))
    if proposal.change is None:
        console.line("Nothing to write: no file here needs a manifest.", style="bold")
        return
    number = counted(len(proposal.functions), "function")
    if written:
        console.line(f"{number} in ", whole(str(home / proposal.change.path)), ".", style="bold")
        console.line(("next: ", "bold"), advise("`kapso-sync plan` shows what a sync would do"))
    else:
        print_diff(console, file_diff(proposal.change.path, None, proposal.change.new.decode()))
        console.line(f"{number}. Nothing is written yet.", style="bold")
        console.line(("next: ", "bold"), advise(f"`kapso-sync init --write` writes {proposal.change.path}"))


def _document(proposal: Proposal, *, written: bool) -> dict[str, Json]:
    change = proposal.change
    return {
        "file": None if change is None else change.path,
        "written": written and change is not None,
        "manifest": None if change is None else change.new.decode(),
        "functions": [
            {"slug": function.slug, "file": function.file, "remarks": list(function.remarks)} for function in proposal.functions
        ],
        "left_out": dict(proposal.left_out),
        "only_on_kapso": None if proposal.elsewhere is None else list(proposal.elsewhere),
    }
