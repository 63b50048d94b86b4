"""An invocation that failed is put into a few lines: bounded, without secrets or bodies, and safe to show."""

from __future__ import annotations

from datetime import UTC, datetime

from kapso_sync.invocations.evidence import MAX_LINE, MAX_LINES, error_text, evidence_lines
from kapso_sync.invocations.places import PlacedInvocation, Places
from kapso_sync.model.functions import ConsoleLine, InvocationRecord

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRET = "canary-2f7c"
TRACE = "TypeError: no price\n    at total (lib/total.ts:6:23)\n    at order (order.ts:3:1)"


def redact(text: str) -> str:
    return text.replace(SECRET, "[redacted]")


def invocation(*console: ConsoleLine, error: str | None = "TypeError: no price", status: int | None = 500) -> InvocationRecord:
    return InvocationRecord("i1", status, 12.4, error, NOON, console, {"body": SECRET}, {"body": SECRET})


def test_the_error_has_its_place_in_the_source() -> None:
    """Of the first frame; where the places are those of the built code, that is said."""
    record = invocation(ConsoleLine("log", "hello"), ConsoleLine("error", TRACE))
    assert error_text(PlacedInvocation(record, Places.SOURCE), redact) == "TypeError: no price (lib/total.ts:6:23)"
    uploaded = error_text(PlacedInvocation(record, Places.UPLOADED, "it ran within 60 s of a deployment"), redact)
    assert uploaded == "TypeError: no price (lib/total.ts:6:23 of the uploaded code)"


def test_an_invocation_without_a_trace_says_what_there_is() -> None:
    """The error, else an error on the console, else the status."""
    assert error_text(PlacedInvocation(invocation()), redact) == "TypeError: no price"
    assert error_text(PlacedInvocation(invocation(ConsoleLine("error", "gave up"), error=None)), redact) == "gave up"
    assert error_text(PlacedInvocation(invocation(error=None, status=503)), redact) == "status 503"


def test_console_lines_and_stack_are_shown_and_bodies_are_not() -> None:
    """Each text once; secrets are redacted before a line is cut."""
    console = (ConsoleLine("log", f"token {SECRET}"), ConsoleLine("error", "TypeError: no price", NOON, TRACE))
    lines = evidence_lines(PlacedInvocation(invocation(*console), Places.SOURCE), redact)
    assert lines == (
        "2026-01-01 12:00:00 UTC: status 500, 12 ms",
        "log: token [redacted]",
        "error: TypeError: no price",
        "    at total (lib/total.ts:6:23)",
        "    at order (order.ts:3:1)",
    )
    long = evidence_lines(PlacedInvocation(invocation(ConsoleLine("log", "x" * (MAX_LINE - 8) + SECRET))), redact)
    assert "canary" not in "".join(long)


def test_evidence_is_bounded_and_no_line_can_be_forged() -> None:
    """However much a function writes, and whatever."""
    noisy = invocation(*(ConsoleLine("log", "y" * 100_000 + f"\n\x1b[2J::error::{number}") for number in range(500)))
    lines = evidence_lines(PlacedInvocation(noisy), redact)
    assert len(lines) == MAX_LINES
    assert lines[-1].startswith("… and ")
    assert max(map(len, lines)) <= MAX_LINE
    assert all(line.isprintable() for line in lines)
    said = error_text(PlacedInvocation(invocation(error="\x1b[31m" + "z" * 100_000)), redact)
    assert len(said) <= MAX_LINE
    assert said.isprintable()
