"""``logs``: shows the invocations of a function, with console lines, and errors with their places in the source."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kapso_sync.aio import run_loop
from kapso_sync.cli.console import Console
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.invoke import find_function
from kapso_sync.cli.runner import run_to_end, until_stopped
from kapso_sync.cli.state_folders import state_folders
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ExitCode, KapsoSyncError, UsageError
from kapso_sync.invocations.follow import FAILED, MAX_LISTED, Look, oldest_first
from kapso_sync.invocations.places import PlacedInvocation, place_all
from kapso_sync.model.functions import ConsoleLine, DeploymentStatus, InvocationRecord, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.settings import Settings
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.visible import visible_lines
from kapso_sync.wiring.folder import find_state_folder
from kapso_sync.wiring.invocations import InvocationReader, open_invocations

MAX_ERROR = 512
"""Characters at which Kapso cuts an error. Source: Kapso's documentation."""

MAX_SHOWN_LINES = 200
"""Most lines of one text that are printed for people; JSON has all of them."""

_LEVELS = {"error": "red", "warn": "yellow", "debug": "dim", "trace": "dim"}


@dataclass(frozen=True, slots=True)
class LogsArgs:
    """The options of the command."""

    slug: str
    failed: bool = False
    limit: int = 10
    bodies: bool = False
    json_output: bool = False

    @property
    def status(self) -> str | None:
        """The status to ask Kapso for."""
        return FAILED if self.failed else None


def logs(args: LogsArgs, context: CommandContext) -> int:
    """Print the newest invocations, in the order of time. Raises `UsageError` for an unknown slug, and `ApiError`."""
    _check(args)
    settings = context.load_settings()
    bus = context.event_bus(settings, level="warning")
    console, bodies = context.stdout(), context.redactor if args.bodies else None

    async def work() -> int:
        async with open_invocations(settings, bus, _folders(settings)) as reader:
            function = find_function(args.slug, await reader.api.list_functions())
            listed = await reader.api.list_invocations(function.id, limit=args.limit, status=args.status)
            placed = await _placed(reader, function, oldest_first(listed))
        if args.json_output:
            shown: list[Json] = [invocation_document(args.slug, each, bodies) for each in placed]
            console.document({"slug": args.slug, "id": function.id, "invocations": shown})
        elif placed:
            _Printer(console, context.redactor, bodies=args.bodies).print(placed)
        else:
            console.line(_nothing(function, args))
        return int(ExitCode.OK)

    return run_to_end(work)


def follow(args: LogsArgs, context: CommandContext) -> int:
    """Print the newest invocations and those that come, until a signal. Raises like `logs`."""
    _check(args)
    settings = context.load_settings()
    bus = context.event_bus(settings)
    console, errors, bodies = context.stdout(), context.stderr(), context.redactor if args.bodies else None
    printer = _Printer(console, context.redactor, bodies=args.bodies)

    async def work() -> None:
        async with open_invocations(settings, bus, _folders(settings)) as reader:
            function = find_function(args.slug, await reader.api.list_functions())
            async for look in reader.follow(function.id, status=args.status, first=args.limit):
                _print_trouble(look, errors)
                placed = await _placed(reader, function, look.new)
                if args.json_output:
                    for each in placed:
                        console.json_line(invocation_document(args.slug, each, bodies))
                else:
                    printer.print(placed)
                    console.flush()

    run_loop(until_stopped(work()))
    return int(ExitCode.OK)


def _check(args: LogsArgs) -> None:
    if args.limit < 1:
        raise UsageError(f"--limit {args.limit} shows nothing", hint=f"give a number from 1 to {MAX_LISTED}")
    if args.limit > MAX_LISTED:
        raise UsageError(
            f"--limit {args.limit} is too many: Kapso lists the newest {MAX_LISTED} invocations of a function alone",
            hint="`--failed` lists as many failed ones; `--follow` keeps showing those that come",
        )


def _folders(settings: Settings) -> Sequence[Path]:
    """Return the state folders of this user, that of the settings' source first; none where there is no place for any."""
    try:
        own = find_state_folder(settings)
        return (own, *(folder for folder in state_folders(settings) if folder != own))
    except KapsoSyncError:
        if settings.source is not None:
            raise
        return ()


async def _placed(
    reader: InvocationReader, function: RemoteFunction, records: Sequence[InvocationRecord]
) -> Sequence[PlacedInvocation]:
    return await place_all(reader.api, (function.id, function.slug), records, reader.placer)


def _nothing(function: RemoteFunction, args: LogsArgs) -> str:
    if function.status is DeploymentStatus.DRAFT or function.last_deployed_at is None:
        return f"{args.slug} was never deployed, so nothing has invoked it."
    return f"Kapso knows no {'failed ' if args.failed else ''}invocation of {args.slug}."


def _print_trouble(look: Look, errors: Console) -> None:
    if look.outage is not None:
        errors.warning(f"{look.outage.message}; it is asked again, less and less often")
    if look.recovered:
        errors.line("Kapso answers again")
    if look.missed:
        errors.warning(f"more than {MAX_LISTED} invocations may have come since the last look, so some may be missing here")


def invocation_document(slug: str, placed: PlacedInvocation, bodies: Redactor | None) -> dict[str, Json]:
    """Return an invocation as the JSON document that ``logs --json`` prints; the console redacts it.

    ``bodies`` redacts request and answer, which also have fields that are named like secrets; None: they are left out.
    """
    record = placed.record
    console: list[Json] = [
        {"level": line.level, "message": line.message, "at": _iso(line.logged_at), "stack": line.stack}
        for line in record.console
    ]
    document: dict[str, Json] = {
        "id": record.id,
        "at": _iso(record.created_at),
        "slug": slug,
        "status_code": record.status_code,
        "duration_ms": record.duration_ms,
        "error": record.error,
        "console": console,
        "places": placed.places,
        "places_reason": placed.reason,
    }
    if bodies is not None:
        document |= {"request": bodies.value(record.request_body), "response": bodies.value(record.response_body)}
    return document


class _Printer:
    """Prints invocations for people; why places are not in the source is printed when it is another reason than before."""

    def __init__(self, console: Console, redactor: Redactor, *, bodies: bool) -> None:
        self._console = console
        self._redactor = redactor
        self._bodies = bodies
        self._reason: str | None = None
        self._begun = False

    def print(self, invocations: Sequence[PlacedInvocation]) -> None:
        """Print invocations, with an empty line between two."""
        for placed in invocations:
            if self._begun:
                self._console.blank()
            self._begun = True
            self._print(placed)

    def _print(self, placed: PlacedInvocation) -> None:
        record, console = placed.record, self._console
        good = record.status_code is not None and 200 <= record.status_code < 300
        status = "?" if record.status_code is None else str(record.status_code)
        duration = "" if record.duration_ms is None else f"  {record.duration_ms:.0f} ms"
        console.line((_time(record.created_at), "bold"), "  ", (status, "green" if good else "bold red"), (duration, "dim"))
        for line in record.console:
            self._print_line(line)
        if record.error and not any((line.stack or line.message).startswith(record.error) for line in record.console):
            cut = len(record.error) >= MAX_ERROR
            self._print_text("", record.error + (f"… (Kapso keeps {MAX_ERROR} characters)" if cut else ""), "red")
        if placed.reason is not None and placed.reason != self._reason:
            console.line((f"places are those of the uploaded code: {placed.reason}", "dim"), indent=2)
        self._reason = placed.reason
        if self._bodies:
            self._print_text("request", _body(self._redactor.value(record.request_body)), "")
            self._print_text("answer", _body(self._redactor.value(record.response_body)), "")

    def _print_line(self, line: ConsoleLine) -> None:
        style = _LEVELS.get(line.level, "")
        self._print_text(line.level, line.message, style)
        if line.stack and line.stack != line.message:
            # V8 begins a trace with the error's text, which the message often is.
            self._print_text("", line.stack.removeprefix(f"{line.message}\n"), style)

    def _print_text(self, label: str, text: str, style: str) -> None:
        # As a whole, since a secret may have several lines.
        lines = visible_lines(self._redactor.text(text))
        for number, line in enumerate(lines[:MAX_SHOWN_LINES]):
            self._console.verbatim(f"{label if number == 0 else '':<7} {line}", style, indent=2)
        if len(lines) > MAX_SHOWN_LINES:
            self._console.verbatim(f"{'':<7} … and {len(lines) - MAX_SHOWN_LINES} lines more", "dim", indent=2)


def _body(value: Json) -> str:
    if isinstance(value, str):
        return value or "(empty)"
    with contextlib.suppress(RecursionError):
        return "(none)" if value is None else json.dumps(value, indent=2, ensure_ascii=False)
    return "(nested too deep)"


def _time(moment: datetime | None) -> str:
    return "at an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
