"""The log: one JSON object per line, common fields, and redaction as the last step."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest

from kapso_sync.model import events
from kapso_sync.telemetry.logs import LogListener, LogSettings, reconcile_context
from kapso_sync.telemetry.redact import Redactor
from tests.clock import VirtualClock


def logged(*told: events.Event, form: str = "json", level: str = "info", secret: str | None = None) -> str:
    stream, redactor = io.StringIO(), Redactor()
    redactor.add(secret)
    listener = LogListener(LogSettings(level, form), stream, VirtualClock(), redactor)  # type: ignore[arg-type]
    with reconcile_context("abc123"):
        for event in told:
            listener(event)
    return stream.getvalue()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


CHANGED = events.SourceChanged(revision="c0ffee", subject="Add greeting")
CREATED = events.FunctionCreated(slug="greet", function_id="id-1")


def test_a_log_line_has_time_level_event_and_its_fields() -> None:
    """None is omitted; the pass's id is on each line, the revision once it is known."""
    first, second = lines(logged(CHANGED, CREATED))
    assert list(first)[:3] == ["timestamp", "level", "event"]
    assert first["timestamp"] == "2026-01-01T00:00:00.000Z"
    assert "author" not in first
    assert second == {
        "timestamp": "2026-01-01T00:00:00.000Z",
        "level": "info",
        "event": "function.created",
        "slug": "greet",
        "function_id": "id-1",
        "reconcile_id": "abc123",
        "revision": "c0ffee",
    }


def test_log_lines_of_failures_name_the_commits_author() -> None:
    """Lines of successes do not."""
    changed = events.SourceChanged(revision="c0ffee", author="Ada")
    _, failed, created = lines(logged(changed, events.DeployFailed(slug="greet", error="no"), CREATED))
    assert (failed["author"], failed["revision"]) == ("Ada", "c0ffee")
    assert "author" not in created


def test_the_log_context_ends_with_the_pass() -> None:
    """The next pass has another id."""
    logged(CHANGED)
    (line,) = lines(logged(CREATED))
    assert "revision" not in line


def test_a_revision_read_outside_of_a_pass_is_on_no_later_line() -> None:
    """Such as that of a webhook, or of a listener that a test made. Within a pass it would be."""
    stream = io.StringIO()
    listener = LogListener(LogSettings(), stream, VirtualClock(), Redactor())
    listener(CHANGED)
    listener(CREATED)
    with reconcile_context("abc123"):
        listener(CHANGED)
        listener(CREATED)
    _, outside, _, inside = lines(stream.getvalue())
    assert ("revision" in outside, inside["revision"]) == (False, "c0ffee")


def test_the_log_level_is_respected() -> None:
    """Debug lines are shown at level debug only."""
    assert logged(events.SourceUnchanged(revision="c0ffee")) == ""
    assert lines(logged(events.SourceUnchanged(revision="c0ffee"), level="debug"))[0]["level"] == "debug"
    assert logged(CREATED, level="warning") == ""
    failed = events.FunctionFailed(slug="greet", error="no", error_type="ApiRejected")
    assert lines(logged(failed, level="error"))[0]["level"] == "error"
    assert logged(failed, level="off") == ""


def test_secrets_are_redacted_in_every_log_field() -> None:
    """The redactor is the last processor, so no other one can add a secret after it."""
    failed = events.FunctionFailed(slug="greet", error="said topsecret-1", error_type="ApiRejected", hint="topsecret-1?")
    assert "topsecret-1" in logged(failed)
    assert "topsecret-1" not in logged(failed, secret="topsecret-1")


def test_the_console_log_format_is_plain_text() -> None:
    """A name and its fields, no JSON; and no value can forge a line of its own."""
    text = logged(events.FunctionFailed(slug="greet", error="one\ntwo \x1b[31m", error_type="X"), form="console")
    assert "function.failed" in text
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_a_terminal_gets_the_console_and_a_pipe_gets_json() -> None:
    """``auto`` looks at the stream."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, json_expected in ((Terminal(), False), (io.StringIO(), True)):
        LogListener(LogSettings(), stream, VirtualClock(), Redactor())(CREATED)
        assert stream.getvalue().startswith("{") is json_expected


def test_a_closed_log_stream_does_not_stop_the_program() -> None:
    """The reader of the log may have exited."""
    stream = io.StringIO()
    listener = LogListener(LogSettings(), stream, VirtualClock(), Redactor())
    stream.close()
    listener(CREATED)


def _event_types() -> list[type[events.Event]]:
    found = [value for value in vars(events).values() if isinstance(value, type) and issubclass(value, events.Event)]
    return [value for value in found if isinstance(getattr(value, "name", None), str)]


@pytest.mark.parametrize("event", _event_types(), ids=lambda event: str(event.name))
def test_no_event_field_collides_with_standard_log_fields(event: type[events.Event]) -> None:
    """``event``, ``level`` and ``timestamp`` belong to the line itself."""
    assert not {field.name for field in events.declared_fields(event)} & {"event", "level", "timestamp", "reconcile_id"}


def test_a_secrets_name_is_logged_and_not_redacted() -> None:
    """The field is called `name`, and the redactor does not take it for a secret."""
    stream = io.StringIO()
    LogListener(LogSettings(), stream, VirtualClock(), Redactor())(events.SecretSet(slug="a", secret="STRIPE_KEY"))
    line = json.loads(stream.getvalue())
    assert (line["event"], line["slug"], line["name"]) == ("secret.set", "a", "STRIPE_KEY")


LOGS_ONE_LINE = """
import io, sys
from kapso_sync.clock import SystemClock
from kapso_sync.model import events
from kapso_sync.telemetry.logs import LogListener, LogSettings
from kapso_sync.telemetry.redact import Redactor
log = LogListener(LogSettings("info", sys.argv[1]), io.StringIO(), SystemClock(), Redactor())
log(events.FunctionCreated(slug="a", function_id="b"))
print("structlog" in sys.modules, "rich" in sys.modules, "greenlet" in sys.modules)
import rich.console
import greenlet
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_line_loads_structlog_without_its_extras(form: str) -> None:
    """They take 4 MB of a daemon that prints nothing for people. The control: they are there for who asks for them."""
    ran = subprocess.run([sys.executable, "-c", LOGS_ONE_LINE, form], capture_output=True, text=True, check=True)
    assert ran.stdout == "True False False\n"
