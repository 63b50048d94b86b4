"""``doctor``: checks the local set-up and, with a key, asks the API what its documentation leaves open."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from kapso_sync.cli.console import Console, stderr_console
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.runner import run_to_end
from kapso_sync.cli.workerd import HOW_TO_GET_IT, find_workerd
from kapso_sync.doctor.api_questions import SLUG_PREFIX, DoctorReport, Finding
from kapso_sync.doctor.setup import Level, SetupCheck, check_setup
from kapso_sync.errors import ExitCode
from kapso_sync.settings import Settings
from kapso_sync.wiring.building import tool_places
from kapso_sync.wiring.doctor import DoctorSession, open_doctor
from kapso_sync.wiring.folder import state_root
from kapso_sync.wiring.git_source import make_verifier

WHAT_IT_DOES = (
    f"It creates one function named {SLUG_PREFIX}…, deploys it a few times, sets a random secret on it, and deletes it. "
    "Nothing else is touched; it takes some minutes."
)


def doctor(context: CommandContext, *, yes: bool, json_output: bool) -> int:
    """Print the findings. Raises `ConfigError`, and `ApiError` if the API cannot be asked at all."""
    settings = context.load_settings()
    checks = _local(settings)
    ask = has_key(settings) and _may_ask(yes=yes, json_output=json_output)
    report = _ask_api(context, settings) if ask else None
    if json_output:
        document = {
            "setup": [dataclasses.asdict(check) for check in checks],
            "api": None if report is None else _document(report),
        }
        context.stdout().document(document)
    else:
        _print(context.stdout(), checks, report, asked=ask, key=has_key(settings))
    return int(ExitCode.CONFIG if any(check.level is Level.ERROR for check in checks) else ExitCode.OK)


def has_key(settings: Settings) -> bool:
    """Return whether there is an API key. Raises `ConfigError` for one that no header can hold."""
    if settings.api_key is None and settings.api_key_file is None:
        return False
    settings.key()
    return True


def _local(settings: Settings) -> tuple[SetupCheck, ...]:
    root = state_root(settings)
    verifier = make_verifier(settings, root)
    return tuple(check_setup(root, tool_places(settings.esbuild, Path.cwd()), _workerd(), settings.network_variables, verifier))


def _workerd() -> SetupCheck:
    """Return the check of the runtime; it is found in the command line's layer, since nothing below needs it."""
    workerd = find_workerd("auto")
    if workerd is not None:
        return SetupCheck("workerd", Level.OK, f"{workerd.version} ({workerd.path})")
    hint = f"`dev`, `test` and invocations of the emulator need it: `{HOW_TO_GET_IT}`"
    return SetupCheck("workerd", Level.WARNING, "not found: functions do not run here", hint)


def _may_ask(*, yes: bool, json_output: bool) -> bool:
    if yes:
        return True
    if json_output or not sys.stdin.isatty():
        return False
    stderr_console().line(WHAT_IT_DOES)
    return click.confirm("Ask this project's API?", err=True)


def _ask_api(context: CommandContext, settings: Settings) -> DoctorReport:
    bus = context.event_bus(settings, level="info")
    found: list[DoctorReport] = []

    async def work() -> int:
        async with open_doctor(settings, bus) as session:
            found.append(await _asked(session))
        return 0

    code = run_to_end(work)
    if not found:
        raise SystemExit(code)
    return found[0]


async def _asked(session: DoctorSession) -> DoctorReport:
    await session.doctor.delete_leftovers()
    report = await session.doctor.ask_all(session.facts.read())
    session.facts.write(report.facts)
    return report


def _document(report: DoctorReport) -> dict[str, object]:
    return {
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "facts": dataclasses.asdict(report.facts),
    }


def _print(console: Console, checks: tuple[SetupCheck, ...], report: DoctorReport | None, *, asked: bool, key: bool) -> None:
    symbols = {Level.OK: ("✓ ", "green"), Level.WARNING: ("! ", "yellow"), Level.ERROR: ("✗ ", "red")}
    for check in checks:
        console.line(symbols[check.level], f"{check.name}: {check.found}")
        if check.hint is not None:
            console.hint(check.hint, indent=4)
    console.blank()
    if report is not None:
        for finding in report.findings:
            _print_finding(console, finding)
        console.blank()
        console.line("The answers are kept for this API base, and are used from now on.")
    elif key and not asked:
        console.line("The API was not asked: `kapso-sync doctor --yes` asks it.")
        console.line(WHAT_IT_DOES)
    elif not key:
        console.line("There is no API key, so the API was not asked. Set KAPSO_API_KEY, or KAPSO_API_KEY_FILE.")


def _print_finding(console: Console, finding: Finding) -> None:
    answer = "no answer" if finding.answer is None else finding.answer
    console.line(f"{finding.question}: {answer}")
    console.line(finding.evidence + (f"; {finding.consequence}" if finding.consequence else ""), indent=4)
