"""Prints problems and warnings as GitHub workflow commands, which appear beside the lines of a pull request."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from kapso_sync.errors import Location, Problem
from kapso_sync.model.desired import Notice
from kapso_sync.wiring import SourceReport


def annotate(reading: SourceReport) -> Iterator[str]:
    """Yield one line for each problem and warning; paths are relative to the repository's root, as GitHub wants them."""
    for problem in reading.problems:
        yield _command("error", problem, problem.hint, reading.inside)
    for notice in reading.notices:
        yield _command("warning", notice, None, reading.inside)


def _command(level: str, said: Problem | Notice, hint: str | None, inside: str) -> str:
    properties = {**_place(said.location, inside), "title": said.code}
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {listed}::{_data(said.message + (f'{chr(10)}hint: {hint}' if hint else ''))}"


def _place(location: Location | None, inside: str) -> dict[str, str]:
    if location is None or not location.file:
        return {}
    numbers = {"line": location.line, "col": location.column}
    file = posixpath.normpath(posixpath.join(inside, location.file))
    return {"file": file, **{name: str(number) for name, number in numbers.items() if number}}


def _data(text: str) -> str:
    """Escape a message. Source: the toolkit of GitHub's actions, `packages/core/src/command.ts`."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
