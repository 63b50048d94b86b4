"""Texts of outsiders in every event, through everything that prints one: logs, history, status page and screens."""

from __future__ import annotations

import io
import json
import typing
from collections.abc import Iterator

from kapso_sync.cli.dev import DidNotStart, InvocationResult, show_answer, show_failure
from kapso_sync.cli.status import print_status
from kapso_sync.model.events import Event, declared_fields
from kapso_sync.model.source import Revision
from kapso_sync.model.status import status_document
from kapso_sync.status.event_text import event_text
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.store.history import History, read_history
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.telemetry.logs import LogSettings
from kapso_sync.telemetry.redact import Redactor
from tests.clock import VirtualClock
from tests.fuzz.grammar import Draw
from tests.fuzz.kit import printed, workspace
from tests.fuzz.promises import BrokenPromise, check_printed
from tests.fuzz.target import Target


def run(data: bytes) -> None:
    """Emit one event of every kind, filled with the input's lines in turn, and show all of them."""
    texts = [_text(piece) for piece in data.split(b"\n---\n")] or [""]
    clock = VirtualClock()
    logs = {form: io.StringIO() for form in ("json", "console")}
    buses = [EventBus(LogSettings("debug", form), stream, clock, Redactor()) for form, stream in logs.items()]  # type: ignore[arg-type]
    tracker = StatusTracker(clock, "1", texts[0], texts[-1])
    count = 0
    with workspace() as root:
        with History(root, clock.now) as history:
            history.at(Revision("c0ffee", subject=texts[0], author=texts[-1]))
            for event in _events(texts):
                count += 1
                for bus in buses:
                    bus.emit(event)
                tracker(event)
                history.listen(event)
                printed(lambda console, e=event: console.line(event_text(e)), lines=1)  # type: ignore[misc]
        _check_log(logs["json"].getvalue(), count, of_json=True)
        _check_log(logs["console"].getvalue(), count, of_json=False)
        for slug in dict.fromkeys(texts):
            for entry in read_history(root, slug):
                json.dumps(entry)
    document = json.loads(json.dumps(status_document(tracker.status())))
    printed(lambda console: print_status(console, document))
    code = "async function handler() {\n  fail();\n}\n"
    for text in texts:
        lines = tuple((level, text) for level in ("log", "error", text))
        result = InvocationResult("greet", 500, text, text.encode("utf-8", "surrogatepass"), 0.01, lines, code)
        printed(lambda console, r=result: show_answer(console, r))  # type: ignore[misc]
        printed(lambda console, t=text: show_failure(console, DidNotStart("greet", t, code)))  # type: ignore[misc]


def _check_log(text: str, count: int, *, of_json: bool) -> None:
    check_printed(text)
    lines = text.split("\n")[:-1]
    if len(lines) != count:
        raise BrokenPromise(f"logs {len(lines)} lines for {count} events")
    for line in lines if of_json else ():
        if not isinstance(json.loads(line), dict):
            raise BrokenPromise("a log line that is no object")


def _text(piece: bytes) -> str:
    try:
        return piece.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return piece.decode("latin-1")


def _kinds(kind: type[Event]) -> Iterator[type[Event]]:
    for below in kind.__subclasses__():
        if hasattr(below, "name"):
            yield below
        yield from _kinds(below)


def _events(texts: list[str]) -> Iterator[Event]:
    number = 0
    for kind in sorted(_kinds(Event), key=lambda each: each.name):
        hints = typing.get_type_hints(kind)
        values: dict[str, object] = {}
        for item in declared_fields(kind):
            number += 1
            values[item.name] = _value(str(hints[item.name]), texts[number % len(texts)])
        yield kind(**values)


def _value(hint: str, text: str) -> object:
    """Return a value of an annotated type; everything that can hold text holds it."""
    if "Mapping" in hint or "dict" in hint:
        return ({text: text, "n": 1},) if hint.startswith("tuple") or "Sequence" in hint else {text: 1}
    if "tuple" in hint or "Sequence" in hint or "frozenset" in hint:
        return (text, "b")
    if "str" in hint or "object" in hint or "Json" in hint:
        return text
    return True if "bool" in hint else 1.5 if "float" in hint else 1


def make(draw: Draw) -> bytes:
    """A few hostile texts."""
    return b"\n---\n".join(draw.text().encode("utf-8", "surrogatepass") for _ in range(draw.random.randint(1, 4)))


TOKENS = (
    b"\n---\n",
    b"greet.js:2:3",
    b"greet.js:99999999999999999999:1",
    b"\x1b[2J",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
    b"\r",
    b"`kapso-sync sync`",
)
TARGETS = (Target("events", run, make, TOKENS, cpu=10.0, share=0.5),)
