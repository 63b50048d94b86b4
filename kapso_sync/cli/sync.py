"""``sync`` and ``plan``: run one pass, and print it for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from kapso_sync.cli.console import Progress, stderr_console, stdout_console
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.json_documents import plan_document, report_document
from kapso_sync.cli.markdown import plan_markdown
from kapso_sync.cli.render import print_plan, print_report
from kapso_sync.cli.runner import run_to_end
from kapso_sync.errors import ExitCode
from kapso_sync.model.plan import Origin, Plan
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.wiring import PassOverrides, open_session


@dataclass(frozen=True, slots=True)
class PassArgs:
    """The options of the command for one pass."""

    context: CommandContext
    overrides: PassOverrides
    only: tuple[str, ...]
    retry: tuple[str, ...]
    expect: str | None
    json_output: bool

    def command(self, name: str, *options: str) -> str:
        """Return a command line for the same source and functions; that of ``sync`` has the same options for one pass."""
        given = self.overrides
        words: list[str] = []
        if name in ("plan", "sync"):
            words += _repeated("--only", self.only) + _repeated("--delete", sorted(given.delete))
        if name == "sync":
            words += _repeated("--overwrite", sorted(given.overwrite)) + _repeated("--take-from", sorted(given.take_from))
            words += ["--allow-recreate"] if given.allow_recreate else []
            words += ["--reset-secrets"] if given.reset_secrets else []
        return self.context.command(name, *words, *options)


def _repeated(flag: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def sync(args: PassArgs) -> int:
    """Make Kapso match the source, and print the report."""
    settings = args.context.load_settings()

    async def work() -> int:
        errors = stderr_console()
        with Progress(errors) as progress:
            bus = args.context.event_bus(settings, progress.listen, level="info", console=errors)
            async with open_session(settings, args.overrides, bus, writes=True) as session:
                report = await session.sync(PassRequest("sync", args.only, args.retry, args.expect))
        if args.json_output:
            print(json.dumps(report_document(report), indent=2))
        else:
            print_report(stdout_console(), report, args.command)
        return int(report.exit_code)

    return run_to_end(work)


def show_plan(args: PassArgs, *, detailed: bool = False, markdown: bool = False) -> int:
    """Print what a sync would do; write nothing."""
    settings = args.context.load_settings()

    async def work() -> int:
        bus = args.context.event_bus(settings)
        async with open_session(settings, args.overrides, bus, writes=False) as session:
            plan = await session.plan(PassRequest("plan", args.only, args.retry, args.expect))
        if args.json_output:
            print(json.dumps(plan_document(plan), indent=2))
        elif markdown:
            print(plan_markdown(plan), end="")
        else:
            print_plan(stdout_console(), plan, args.command)
        return int(plan_exit_code(plan, detailed=detailed))

    return run_to_end(work)


def plan_exit_code(plan: Plan, *, detailed: bool) -> ExitCode:
    """Return 1 when something is blocked or invalid; with ``detailed`` 2 when git is ahead, 3 when Kapso has only drifted."""
    if plan.broken:
        return ExitCode.FUNCTION_FAILED
    if not detailed or not plan.changes:
        return ExitCode.OK
    only_drifted = all(step.origin is Origin.DRIFT for step in plan.changes)
    return ExitCode.DRIFTED if only_drifted else ExitCode.GIT_AHEAD
