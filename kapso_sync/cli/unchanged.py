"""``sync`` and ``plan`` where nothing has changed: they say so without loading what makes a pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.pass_args import PassArgs
from kapso_sync.cli.runner import run_to_end
from kapso_sync.cli.summary import cost, in_sync_summary, print_plan_heading
from kapso_sync.errors import ExitCode
from kapso_sync.settings import Settings
from kapso_sync.wiring.unchanged import DuePass, UnchangedPass, find_unchanged

_SILENT = ("off", "error")
"""Levels at which nothing is logged of a pass that finds nothing to do."""


def sync_unchanged(args: PassArgs) -> int | DuePass:
    """Print the report of a pass that need not be made, and return the exit code; or return the pass that is due."""
    if not args.is_whole or args.json_output or args.remote_map:
        return DuePass()

    def print_found(found: UnchangedPass, settings: Settings) -> None:
        _log(args.context, settings, found, "info")
        args.context.stdout().line(f"{found.functions} in sync. {cost(found.api_calls, found.seconds)}", style="bold")

    return _run(args, print_found, writes=True, trigger="sync")


def plan_unchanged(args: PassArgs) -> int | DuePass:
    """Print the plan of a pass that need not be made, and return the exit code; or return the pass that is due."""
    if not args.is_whole or args.json_output:
        return DuePass()

    def print_found(found: UnchangedPass, settings: Settings) -> None:
        _log(args.context, settings, found, "error")
        console = args.context.stdout()
        print_plan_heading(console, found.source, found.revision, found.owner)
        console.blank()
        console.line(in_sync_summary(found.functions), style="bold")

    return _run(args, print_found, writes=False, trigger="plan")


def _run(
    args: PassArgs, print_found: Callable[[UnchangedPass, Settings], None], *, writes: bool, trigger: str
) -> int | DuePass:
    settings = args.settings
    due: list[DuePass] = []

    async def work() -> int:
        found = await find_unchanged(settings, args.context.redactor, writes=writes, trigger=trigger)
        if isinstance(found, DuePass):
            due.append(found)
        else:
            print_found(found, settings)
        return int(ExitCode.OK)

    # If a pass is due, its modules are loaded next.
    code = run_to_end(work, last=False)
    return due[0] if due and code == ExitCode.OK else code


def _log(context: CommandContext, settings: Settings, found: UnchangedPass, level: str) -> None:
    """Log what a pass that was made would have logged; ``level`` is the default level."""
    errors = context.stderr()
    if (settings.log_level or ("off" if errors.terminal else level)) in _SILENT:
        return
    from kapso_sync.telemetry.logs import reconcile_context

    bus = context.event_bus(settings, level=level, console=errors)
    with reconcile_context(found.id) if found.id is not None else contextlib.nullcontext():
        for event in found.events:
            bus.emit(event)
