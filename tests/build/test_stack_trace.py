"""Which lines of an invocation's texts are places in the uploaded code, and whether they can be."""

from __future__ import annotations

import time

import pytest

from kapso_sync.build.stack_trace import MAX_FRAME, MAX_FRAMES, CodeIndex, Frame, frames_in, own_frames, with_places
from kapso_sync.errors import Location

CODE = (
    "// é😀\nclass Order { static total(o) { return '😀é'.length + o.items.map((i) => i.price); } }\nthrow new Error('no');\n"
)


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        ("    at handler (greet.js:4:8)", Frame("handler", "greet.js", 4, 8)),
        ("  at bad.js:1:6", Frame("", "bad.js", 1, 6)),
        ("    at async Object.fetch [as x] (worker.mjs:10:2)", Frame("async Object.fetch [as x]", "worker.mjs", 10, 2)),
        ("    at new Order (file:///src/index.ts:3:1)", Frame("new Order", "file:///src/index.ts", 3, 1)),
        ("    at Array.map (<anonymous>)", None),
        ("    at node:internal/process:1:2", None),
        ("    at eval (eval at handler (greet.js:1:2), <anonymous>:1:1)", None),
        ("he looked at greet.js:4:8", None),
        (f"    at {'x' * MAX_FRAME} (greet.js:4:8)", None),
        ("    at handler (greet.js:99999999999999999999:8)", None),
    ],
)
def test_frames_are_found_as_v8_writes_them(line: str, frame: Frame | None) -> None:
    """Native frames, text about files, evaluated code and endless lines are no places in the function's code."""
    assert frames_in([f"Error: no\n{line}\n"]) == (() if frame is None else (frame,))


def test_a_function_is_one_file_whatever_the_runtime_calls_it() -> None:
    """The file named like the slug, or the only one; of two others nobody knows which it is."""
    greet, worker, entry = Frame("a", "greet.js", 1, 1), Frame("b", "worker.js", 1, 1), Frame("c", "entry.js", 1, 1)
    assert own_frames([worker, greet], "greet") == (greet,)
    assert own_frames([worker, worker], "greet") == (worker, worker)
    assert own_frames([worker, entry], "greet") == ()


@pytest.mark.parametrize(
    ("frame", "fitting"),
    [
        (Frame("Order.total", "a.js", 2, CODE.split("\n")[1].index("map") + 2), True),  # one emoji: two units
        (Frame("Order.total", "a.js", 2, CODE.split("\n")[1].index("map") + 3), False),  # in the middle of a word
        (Frame("Order.total", "a.js", 3, 7), True),
        (Frame("Order.total", "a.js", 1, 1), False),  # no such function above
        (Frame("absent", "a.js", 3, 7), False),
        (Frame("", "a.js", 3, 6), False),  # a space
        (Frame("", "a.js", 4, 1), False),  # an empty line
        (Frame("", "a.js", 9, 1), False),
        (Frame("", "a.js", 0, 1), False),
    ],
)
def test_a_place_fits_code_that_has_a_word_and_the_functions_name_there(frame: Frame, fitting: bool) -> None:
    """Code behind lines that somebody else put before it does not pass for the code itself."""
    assert CodeIndex(CODE).fits([frame]) is fitting


def test_a_column_within_a_wide_character_is_the_place_behind_it() -> None:
    """V8 counts UTF-16 units, of which an emoji has two; other characters beyond ASCII have one."""
    index = CodeIndex("😀é 😀b c")
    fitting = [column for column in range(12) if index.fits([Frame("", "a.js", 1, column)])]
    assert fitting == [1, 2, 3, 5, 6, 7, 9]


def test_a_function_cannot_make_its_traces_costly() -> None:
    """A hostile author writes the code too: a name that almost matches on many lines, or all the code in one line."""
    started = time.process_time()
    many = "/*" + "ab" * 20 + "xhandlerx*/\n"
    for code, line, column in (
        (f"// handler\n{many * 17_000}q", 17_002, 1),
        (f"{many * 17_000}q", 17_001, 1),
        ("/*" + "é" * 450_000 + "*/ handler", 1, 450_006),
        ("/*" + "😀" * 200_000 + "*/ handler", 1, 400_006),
    ):
        index = CodeIndex(code)
        for number in range(MAX_FRAMES):
            index.fits([Frame(f"handler{number}" if number % 2 else "handler", "a.js", line, column)])
    assert time.process_time() - started < 2


def test_only_places_in_the_file_are_replaced() -> None:
    """Every other text stays as it is, and so does a place that no source has."""
    text = "Error: greet.js:1:2\n    at total (greet.js:1:2)\n    at greet.js:7:7\n    at other.js:1:2"
    placed = with_places(text, "greet.js", lambda line, column: Location("src/a.ts", 40, column) if line == 1 else None)
    assert placed == "Error: greet.js:1:2\n    at total (src/a.ts:40:2)\n    at greet.js:7:7\n    at other.js:1:2"
