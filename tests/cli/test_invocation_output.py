"""How ``dev`` prints the result of an invocation, held by snapshots."""

from __future__ import annotations

import io
from collections.abc import Callable

from inline_snapshot import snapshot

from kapso_sync.cli.console import Console
from kapso_sync.cli.dev import DidNotStart, InvocationResult, show_answer, show_failure, show_problem
from kapso_sync.errors import Location, Problem

CODE = "const rate = undefined;\n\nasync function handler(request) {\n  rate.of(request);\n}\n"


def shown(show: Callable[[Console], None]) -> str:
    stream = io.StringIO()
    show(Console(stream, {}))
    return stream.getvalue()


def answer(status: int, content_type: str, body: bytes, *lines: tuple[str, str]) -> str:
    answered = InvocationResult("greet", status, content_type, body, 0.0124, lines, CODE)
    return shown(lambda console: show_answer(console, answered))


def test_an_invocation_shows_status_duration_console_and_body() -> None:
    """JSON is indented, text is unchanged, and the console's lines come first, by level."""
    assert answer(
        200, "application/json", '{"text":"ñ","n":[1]}'.encode(), ("log", "in {}"), ("warn", "two\nlines")
    ) == snapshot(
        """\

greet  200  application/json  12 ms
  log   in {}
  warn  two
        lines
  {
    "text": "ñ",
    "n": [
      1
    ]
  }
"""
    )
    assert answer(404, "text/plain;charset=UTF-8", b"no such order") == snapshot(
        """\

greet  404  text/plain  12 ms
  no such order
"""
    )


def test_an_exception_shows_the_place_in_the_code() -> None:
    """The first stack frame in the function's own file, with the lines before it."""
    stack = "TypeError: Cannot read properties of undefined (reading 'of')\n    at handler (greet.js:4:8)"
    assert answer(500, "application/json", b'{"error":"TypeError: \xe2\x80\xa6"}', ("error", stack)) == snapshot(
        """\

greet  500  application/json  12 ms
  error TypeError: Cannot read properties of undefined (reading 'of')
            at handler (greet.js:4:8)
     2 |
     3 | async function handler(request) {
     4 |   rate.of(request);
                ^
  {
    "error": "TypeError: …"
  }
"""
    )


def test_binary_invalid_and_long_bodies_are_printed_safely() -> None:
    """An empty body, bytes, invalid JSON, control characters, and a body that is too long to read."""
    assert answer(204, "", b"") == snapshot(
        """\

greet  204  12 ms
  (empty)
"""
    )
    assert answer(200, "image/png", b"\x89PNG") == snapshot(
        """\

greet  200  image/png  12 ms
  (4 bytes of image/png)
"""
    )
    assert answer(200, "application/json", b"{oops \x1b[2J") == snapshot(
        """\

greet  200  application/json  12 ms
  {oops \\x1b[2J
"""
    )
    assert answer(200, "text/plain", b"x" * 5000).endswith("x\n  … and 1000 characters more\n")


def test_code_that_does_not_start_shows_the_error_and_its_line() -> None:
    """The runtime's own message and the line; a place outside of the code shows no line."""
    failed = DidNotStart("greet", "Uncaught SyntaxError: Unexpected token ';'\n  at greet.js:4:11", CODE)
    assert shown(lambda console: show_failure(console, failed)) == snapshot(
        """\

greet  does not start
  Uncaught SyntaxError: Unexpected token ';'
    at greet.js:4:11
     2 |
     3 | async function handler(request) {
     4 |   rate.of(request);
                   ^
"""
    )
    elsewhere = DidNotStart("greet", "The code did not start within 5 s\n at greet.js:99:1", CODE)
    assert "|" not in shown(lambda console: show_failure(console, elsewhere))


def test_a_code_problem_is_printed_as_by_validate() -> None:
    """File, line and column, the line itself, and what to do."""
    problem = Problem("syntax", "syntax error", Location("greet.js", 2, 3), "mend it", "   2 |   oops(\n         ^")
    assert shown(lambda console: show_problem(console, problem)) == snapshot(
        """\

error: greet.js:2:3: syntax error
     2 |   oops(
           ^
hint: mend it
"""
    )
