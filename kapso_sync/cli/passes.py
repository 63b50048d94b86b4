"""``sync`` and ``plan``: one pass, shown to people or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from kapso_sync.cli.documents import plan_document, report_document
from kapso_sync.cli.markdown import plan_markdown
from kapso_sync.cli.progress import Progress
from kapso_sync.cli.render import print_plan, print_report
from kapso_sync.cli.runner import run_to_end
from kapso_sync.errors import ExitCode
from kapso_sync.model.plan import Origin, Plan
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.settings import Settings, load_settings
from kapso_sync.wiring import PassOverrides, make_event_bus, open_session


@dataclass(frozen=True, slots=True)
class PassArgs:
    """What the command line asks of a pass."""

    overrides: Mapping[str, object]
    env_file: Path | None
    exceptions: PassOverrides
    only: tuple[str, ...]
    retry: tuple[str, ...]
    expect: str | None
    json_output: bool

    def settings(self) -> Settings:
        """Return the settings; raises `ConfigError`."""
        return load_settings(self.overrides, env_file=self.env_file)


def sync(ask: PassArgs) -> int:
    """Make Kapso what the source says, and print what came of it."""
    settings = ask.settings()
    console = _console()

    async def work() -> int:
        with Progress(Console(stderr=True)) as progress:
            # Where people watch, the bar and the report tell the story; elsewhere the log does.
            logging = make_event_bus(settings, sys.stderr, progress.listen, level="warning" if progress.visible else "info")
            async with open_session(settings, ask.exceptions, logging, writes=True) as session:
                report = await session.sync(PassRequest("sync", ask.only, ask.retry, ask.expect))
        if ask.json_output:
            print(json.dumps(report_document(report), indent=2))
        else:
            print_report(console, report)
        return int(report.exit_code)

    return run_to_end(work)


def show_plan(ask: PassArgs, *, detailed: bool = False, markdown: bool = False) -> int:
    """Print what a sync would do; write nothing at all."""
    settings = ask.settings()
    console = _console()

    async def work() -> int:
        async with open_session(
            settings, ask.exceptions, make_event_bus(settings, sys.stderr, level="error"), writes=False
        ) as session:
            plan = await session.plan(PassRequest("plan", ask.only, ask.retry, ask.expect))
        if ask.json_output:
            print(json.dumps(plan_document(plan), indent=2))
        elif markdown:
            print(plan_markdown(plan), end="")
        else:
            print_plan(console, plan)
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


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
