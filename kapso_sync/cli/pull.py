"""``pull``: writes Kapso's functions into the functions folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kapso_sync.cli.console import Console, whole
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.grouping import group_by
from kapso_sync.cli.render import print_diff
from kapso_sync.cli.runner import run_to_end
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ExitCode
from kapso_sync.manifest.layout import SCHEMA_FILE
from kapso_sync.model.json_values import Json
from kapso_sync.model.pull import Pulled, PullPlan, Taken
from kapso_sync.plurals import counted
from kapso_sync.reconcile.plan.comparison import file_diff
from kapso_sync.reconcile.pull.planner import PullOptions
from kapso_sync.wiring.pull import FolderTarget, plan_a_pull, write_files
from kapso_sync.wiring.remote_map import write_remote_map

_LOOKS = {
    Taken.NEW: ("+", "green"),
    Taken.CHANGED: ("~", "yellow"),
    Taken.SAME: (" ", "dim"),
    Taken.LEFT: ("-", "dim"),
    Taken.SKIPPED: ("!", "magenta"),
}

_WORDS = {
    Taken.NEW: "new",
    Taken.CHANGED: "changed",
    Taken.SAME: "unchanged",
    Taken.LEFT: "left out",
    Taken.SKIPPED: "skipped",
}


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How files are written and shown: ``dry`` writes none, ``diff`` shows differences, ``force`` overwrites local changes.

    ``remote_map``: the map of the Kapso CLI is written as well.
    """

    dry: bool = False
    diff: bool = False
    force: bool = False
    json_output: bool = False
    remote_map: bool = False


def pull(context: CommandContext, options: PullOptions, output: OutputOptions) -> int:
    """Write remote functions into the folder, and print the result; return 1 if something could not be written."""
    settings = context.load_settings()

    async def work() -> int:
        target, plan = await plan_a_pull(settings, options, context.event_bus(settings))
        return finish(target, plan, output, context)

    return run_to_end(work)


def finish(target: FolderTarget, plan: PullPlan, output: OutputOptions, context: CommandContext) -> int:
    """Write the files and report them; return the exit code."""
    if not output.dry:
        write_files(target.home, plan.changes)
    if output.json_output:
        context.stdout().document(_document(plan))
    else:
        _print(context.stdout(), plan, output)
    if output.remote_map and not output.dry:
        written = write_remote_map(Path(target.spec.location), target.snapshot.path, plan.mapped, ())
        if written is not None and not output.json_output:
            context.stdout().line("Written: ", whole(str(written)))
    return int(ExitCode.FUNCTION_FAILED if plan.incomplete else ExitCode.OK)


def _print(console: Console, plan: PullPlan, output: OutputOptions) -> None:
    shown = [pulled for pulled in plan.functions if pulled.taken is not Taken.SAME or pulled.remarks]
    for group in group_by(shown, _same):
        _print_functions(console, group)
    if output.diff:
        for change in plan.changes:
            if change.path == SCHEMA_FILE:
                console.line((f"+ {SCHEMA_FILE}", "dim"), "  the manifest's schema, for editors")
                continue
            print_diff(console, file_diff(change.path, _text(change.old), change.new.decode("utf-8", "replace")))
    console.line(_summary(plan, dry=output.dry), style="bold")
    for notice in plan.notices:
        console.warning(notice.message)


def _same(pulled: Pulled) -> object:
    """Return what functions must have in common to be printed together; one with files or alone in its result stands alone."""
    return (pulled.taken, pulled.remarks) if pulled.remarks and not pulled.files else pulled.slug


def _print_functions(console: Console, group: Sequence[Pulled]) -> None:
    pulled = group[0]
    symbol, style = _LOOKS[pulled.taken]
    if len(group) == 1:
        files = [part for name in pulled.files for part in (", ", whole(name))][1:]
        console.line((f"{symbol} {pulled.slug}", style), *(["  ", *files] if files else []))
    else:
        names = console.names([each.slug for each in group])
        console.line((f"{symbol} {len(group)} {_WORDS[pulled.taken]}", style), f": {names}", hang=4)
    for remark in pulled.remarks:
        console.line(remark if len(group) == 1 else remark.removeprefix("skipped: ").removeprefix("left out: "), indent=4)


def _summary(plan: PullPlan, *, dry: bool) -> str:
    counts = {taken: sum(1 for pulled in plan.functions if pulled.taken is taken) for taken in Taken}
    verb = "to write" if dry else "written"
    told = ", ".join(f"{count} {_WORDS[taken]}" for taken, count in counts.items() if count) or "nothing on Kapso"
    return f"{told}. {counted(len(plan.changes), 'file')} {verb}."


def _document(plan: PullPlan) -> dict[str, Json]:
    return {
        "files": [change.path for change in plan.changes],
        "functions": [
            {
                "slug": pulled.slug,
                "id": pulled.function_id,
                "result": str(pulled.taken),
                "files": list(pulled.files),
                "remarks": list(pulled.remarks),
                "incomplete": pulled.incomplete,
            }
            for pulled in plan.functions
        ],
        "warnings": [{"code": notice.code, "message": notice.message} for notice in plan.notices],
    }


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "replace")
