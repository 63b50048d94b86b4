"""``sync`` and ``plan``: run one pass, and print it for people or as JSON."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from kapso_sync.cli.console import Progress, whole
from kapso_sync.cli.json_documents import plan_document, report_document
from kapso_sync.cli.pass_args import PassArgs
from kapso_sync.cli.render import print_plan, print_report
from kapso_sync.cli.runner import run_to_end
from kapso_sync.cli.workerd import start_locally
from kapso_sync.errors import ExitCode, KapsoSyncError, StateLocked, UsageError
from kapso_sync.model.plan import Origin, Plan
from kapso_sync.model.pull import MappedFunction
from kapso_sync.model.report import Report, Result
from kapso_sync.model.source import REMOTE_MAP, Snapshot
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.session import Session
from kapso_sync.wiring.earlier import earlier_list
from kapso_sync.wiring.engine import open_session
from kapso_sync.wiring.remote_map import write_remote_map
from kapso_sync.wiring.unchanged import DuePass


def sync(args: PassArgs, due: DuePass) -> int:
    """Make Kapso match the source, and print the report; write the map of the Kapso CLI afterwards if it is wanted."""
    settings = args.settings
    snapshots: list[Snapshot] = []

    async def work() -> int:
        errors = args.context.stderr()
        with Progress(errors) as progress:
            bus = args.context.event_bus(settings, progress.listen, level="info", console=errors)
            opened = open_session(settings, bus, writes=True, start_locally=start_locally, not_before=due.not_before)
            async with _session_or_daemon(args, opened) as session:
                if args.remote_map and not session.is_folder:
                    raise UsageError(
                        f"--remote-map writes into a folder, and {session.location} is only read",
                        hint="name the folder of a work tree, without --branch and --ref",
                    )
                request = PassRequest(
                    "sync",
                    args.only,
                    args.expect,
                    args.overrides,
                    on_read=snapshots.append if args.remote_map else lambda _: None,
                    earlier=earlier_list(due, session),
                    recognisable=True,
                )
                report, mapped = await session.sync(request), None
                if args.remote_map:
                    before = session.api.calls
                    mapped = await _read_mapped(session, report, snapshots[-1])
                    report = replace(report, api_calls=report.api_calls + session.api.calls - before)
        report = report.advised(args.context.advise)
        if args.json_output:
            args.context.stdout().document(report_document(report))
        else:
            print_report(args.context.stdout(), report, args.advise_again)
        if mapped is not None:
            _write_map(args, report, snapshots[-1], mapped)
        return int(report.exit_code)

    return run_to_end(work, journaled=True)


async def _read_mapped(session: Session, report: Report, snapshot: Snapshot) -> tuple[MappedFunction, ...] | KapsoSyncError:
    """Return the functions for the map of the Kapso CLI, or why they are not known; the report comes first."""
    if report.halted is not None:
        return KapsoSyncError(f"{REMOTE_MAP} is left as it is, as the pass was halted", hint="the next sync can write it")
    try:
        return await session.mapped(report, snapshot)
    except KapsoSyncError as error:
        return error


def _write_map(args: PassArgs, report: Report, snapshot: Snapshot, mapped: tuple[MappedFunction, ...] | KapsoSyncError) -> None:
    """Write the map of the Kapso CLI, and name it if it changed. Raises `KapsoSyncError`."""
    if isinstance(mapped, KapsoSyncError):
        raise mapped
    gone = [outcome.step.function_id or "" for outcome in report.results(Result.DONE) if not outcome.step.in_git]
    written = write_remote_map(Path(snapshot.source), snapshot.path, mapped, gone)
    if written is not None and not args.json_output:
        args.context.stdout().line("Written: ", whole(str(written)))


@contextlib.asynccontextmanager
async def _session_or_daemon(args: PassArgs, opening: AbstractAsyncContextManager[Session]) -> AsyncIterator[Session]:
    """Open the session; if another process holds the state folder, say how a daemon does what was asked."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            session = await stack.enter_async_context(opening)
        except StateLocked as error:
            error.hint = (
                f"if it is a daemon, `kapso-sync reconcile --wait{args.overrides.options}` has it do this now; "
                "if not, wait until it has ended"
            )
            raise
        yield session


def show_plan(
    args: PassArgs,
    due: DuePass,
    *,
    detailed: bool = False,
    markdown: bool = False,
    markdown_file: Path | None = None,
) -> int:
    """Print what a sync would do, and write it as Markdown into a file if one is given; write nothing else."""
    settings = args.settings

    async def work() -> int:
        bus = args.context.event_bus(settings)
        async with open_session(settings, bus, writes=False, not_before=due.not_before) as session:
            earlier = earlier_list(due, session)
            plan = await session.plan(PassRequest("plan", args.only, args.expect, args.overrides, earlier=earlier))
        plan = plan.advised(args.context.advise)
        if markdown_file is not None:
            _write_markdown(markdown_file, args.context.stdout().safe_markdown(_markdown(plan, args)))
        if args.json_output:
            args.context.stdout().document(plan_document(plan))
        elif markdown:
            args.context.stdout().markdown(_markdown(plan, args))
        else:
            print_plan(args.context.stdout(), plan, args.advise_exactly)
        return int(plan_exit_code(plan, detailed=detailed))

    return run_to_end(work)


def _markdown(plan: Plan, args: PassArgs) -> str:
    from kapso_sync.cli.markdown import plan_markdown

    return plan_markdown(plan, args.advise_exactly)


def _write_markdown(path: Path, text: str) -> None:
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="--markdown names a file to write") from error


def plan_exit_code(plan: Plan, *, detailed: bool) -> ExitCode:
    """Return 1 when something is blocked or invalid; with ``detailed`` 2 when git is ahead, 3 when Kapso has only drifted."""
    if plan.broken:
        return ExitCode.FUNCTION_FAILED
    if not detailed or not plan.changes:
        return ExitCode.OK
    only_drifted = all(step.origin is Origin.DRIFT for step in plan.changes)
    return ExitCode.DRIFTED if only_drifted else ExitCode.GIT_AHEAD
