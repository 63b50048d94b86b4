"""Running kapso-sync as people do: in this process for its words, in another to be killed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from kapso_sync.cli.app import run_command_line

GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run of the program did: exit code, and both its streams."""

    code: int
    out: str
    err: str
    screen: str = ""
    """Both streams in the order of time, as a terminal shows them."""

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log, which must be one JSON object a line."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def event(self, name: str) -> dict[str, Any]:
        """The only log line of this name."""
        (found,) = [event for event in self.events if event["event"] == name]
        return found


class Terminal(io.StringIO):
    """A stream that a person watches, on a screen that may show another stream as well."""

    def __init__(self, screen: io.StringIO | None = None) -> None:
        super().__init__()
        self._screen = screen

    def write(self, text: str) -> int:
        if self._screen is not None:
            self._screen.write(text)
        return super().write(text)

    def isatty(self) -> bool:
        return True


OF_TERMINALS = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "CI")
"""Variables that decide how the output looks."""


def kapso_sync(
    *arguments: str, environment: Mapping[str, str] | None = None, terminal: bool = False, width: int | None = None
) -> Ran:
    """Run a command line in this process, with nothing of ours in the environment but what is given.

    ``terminal``: both streams look like a terminal, of ``width`` columns.
    """
    screen = io.StringIO()
    out, err = (Terminal(screen), Terminal(screen)) if terminal else (io.StringIO(), io.StringIO())
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAPSO_") and name not in OF_TERMINALS}
    columns = {} if width is None else {"COLUMNS": str(width)}
    with (
        mock.patch.dict(os.environ, {**clean, **columns, **(environment or {})}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run_command_line(arguments)
    return Ran(code, out.getvalue(), err.getvalue(), screen.getvalue())


@contextlib.contextmanager
def started(
    *arguments: str, environment: Mapping[str, str], enter: Callable[[], None] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start the program as a process of its own; it is dead when the block ends. ``enter`` is called in it before it starts."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "kapso_sync", *arguments],
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=enter,  # noqa: PLW1509 - it writes files at most
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def git(folder: Path, *arguments: str) -> str:
    """Run git with a fixed identity, time and no configuration of the machine's."""
    answer = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **GIT_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return answer.stdout


def write_functions(folder: Path, functions: Mapping[str, str], extra: str = "") -> None:
    """Fill a functions folder: code by slug, and a manifest that lists it; what was there before goes."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.js"):
        old.unlink()
    entries = "".join(f"  {slug}:\n    file: {slug}.js\n{extra}" for slug in functions)
    (folder / "manifest.yaml").write_text(f"version: 1\nfunctions:\n{entries}", encoding="utf-8")
    for slug, code in functions.items():
        (folder / f"{slug}.js").write_text(code, encoding="utf-8")


def answering(text: str) -> str:
    """Sound code that answers with a text."""
    return f"async function handler(request, env) {{\n  return new Response('{text}');\n}}\n"
