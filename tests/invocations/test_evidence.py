"""The evidence of a failure: bounded, without secrets, and with places in the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from kapso_sync.invocations.evidence import LocalEvidenceCollector, evidence_of, place_in
from kapso_sync.invocations.places import Code, LocalBuilds
from kapso_sync.model.evidence import MAX_LINE, MAX_LINES, MAX_REDACTED, Evidence
from kapso_sync.model.functions import ConsoleLine, InvocationRecord
from kapso_sync.telemetry.redact import Redactor
from tests.clock import VirtualClock
from tests.world import WorldApi, new_world

KEY = "hush-hush-hush-hush-hush"
SCRIPT = "async function handler() {\n  throw new Error('no');\n}\n"


def evidence(*console: ConsoleLine, error: str | None = None, redact: Redactor | None = None) -> Evidence:
    record = InvocationRecord("i1", 500, error=error, console=console)
    return evidence_of(place_in(record, "greet", Code(SCRIPT, None)), "greet", "src/code.js", (redact or Redactor()).text)


def test_a_trace_names_the_file_of_the_source() -> None:
    """The runtime names a script by its slug; message and stack are shown once."""
    trace = "Error: no\n    at handler (greet.js:2:9)"
    for line in (ConsoleLine("error", trace), ConsoleLine("error", "Error: no", stack=trace)):
        shown = evidence(line, error="Error: no")
        assert shown == Evidence(("error Error: no", "          at handler (src/code.js:2:9)"), "src/code.js:2:9")


def test_evidence_is_bounded_and_keeps_the_end() -> None:
    """However much a function writes, on however many lines."""
    shown = evidence(*(ConsoleLine("log", f"line {number} {'x' * 1000}") for number in range(1000)))
    assert len(shown.console) == MAX_LINES
    assert all(len(line) <= MAX_LINE for line in shown.console)
    assert shown.console[-1].startswith("log   line 999 ")
    assert len(evidence(ConsoleLine("log", "\n" * 10_000)).console) == MAX_LINES


def test_only_what_is_shown_is_redacted_and_the_rest_is_counted() -> None:
    """A function may write traces for minutes of work; an entry with many lines counts with each of them."""
    looked_at: list[str] = []

    def redact(text: str) -> str:
        looked_at.append(text)
        return text

    trace = "Error: no" + "\n    at handler (greet.js:2:9)" * 900
    record = InvocationRecord("i1", 500, console=(ConsoleLine("error", trace),) * 40)
    shown = evidence_of(place_in(record, "greet", Code(SCRIPT, None)), "greet", "src/code.js", redact)
    assert len(looked_at) == 1
    assert shown.console[0] == f"… {40 * 901 - MAX_LINES + 1} lines before these"
    assert shown.console[1:] == ("          at handler (src/code.js:2:9)",) * (MAX_LINES - 1)
    assert shown.place == "src/code.js:2:9"


@pytest.mark.parametrize("before", [0, MAX_REDACTED - len(KEY) // 2, MAX_REDACTED - 5])
def test_evidence_holds_no_secret_wherever_it_stands(before: int) -> None:
    """Nor a piece of one that the cut goes through. A control: without a redactor that knows it, it is there."""
    redactor = Redactor()
    redactor.add(KEY)
    text = "\n".join("y" * 99 for _ in range(before // 100)) + "y" * (before % 100) + KEY + "\nend"
    shown = "".join(evidence(ConsoleLine("log", text), redact=redactor).console)
    assert KEY[:5] not in shown
    assert before or KEY in "".join(evidence(ConsoleLine("log", text)).console)


def test_evidence_forges_no_line() -> None:
    """Control characters are spelled out, in a level as well."""
    shown = evidence(ConsoleLine("lo\ng", "a\x1b[31m\u202eb"))
    assert shown.console == ("lo\\ng a\\x1b[31m\\u202eb",)


async def test_a_watched_invocation_shows_the_evidence_of_a_checked_one(tmp_path: Path) -> None:
    """A watch may be older than the process, which then has read no secret; a check's pass has read its own."""
    world, redactor = new_world(VirtualClock()), Redactor()
    function = world.create({"name": "Greet", "code": SCRIPT})
    api = WorldApi(world)
    collector = LocalEvidenceCollector(api, LocalBuilds([tmp_path]), 60.0, redactor.text, lambda: redactor.add(KEY))
    record = InvocationRecord("i1", 500, error=f"Error: {KEY}", console=(ConsoleLine("log", f"have {KEY}"),))
    error, watched = await collector.of_watched(function.id, function.slug, record)
    (now,) = await api.list_functions()
    assert watched == await collector.of_invocation(now, "greet.js", record)
    assert (error, watched.console) == ("Error: [redacted]", ("log   have [redacted]", "error Error: [redacted]"))
