"""Ask esbuild about syntax: it knows the languages better than our own parser, and its word counts where the two differ."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from kapso_sync.build.diagnostics import TRIED_AGAIN, Message, read_messages
from kapso_sync.build.esbuild_run import explain_silence, has_crashed, no_space, os_errors_as_missing, run_esbuild
from kapso_sync.build.sourcemap import SourceMap
from kapso_sync.build.syntax import Place
from kapso_sync.dataclass import dataclass
from kapso_sync.tools import ToolMissing

LANGUAGE = "es2024"
"""The newest version of the language that Workers run as it is; esbuild converts newer syntax, such as decorators."""

TARGETS = ("esnext", LANGUAGE)
"""How a file is printed: as it is, and where our parser does not know its newest syntax, without that."""

FLAGS = (
    "--charset=utf8",
    "--jsx=preserve",
    "--loader:.js=jsx",
    "--tsconfig-raw={}",
    "--log-level=warning",
    "--color=false",
    "--outbase=.",
    "--outdir=out",
)
PRINTING = ("--sourcemap=external", "--supported:template-literal=false")
"""Without templates, since our parser does not know the escapes that a tagged one may hold, such as those of `String.raw`."""

MAX_FILES = 200
"""Maximum number of files of one run, so that its command line stays short."""


class FindsEsbuild(Protocol):
    """Finds esbuild."""

    async def find(self) -> Path:
        """Return its path; raises `ToolMissing`."""
        ...


@dataclass(frozen=True, slots=True)
class Printed:
    """A file as esbuild printed it, without types and comments, and the map back to the file."""

    code: bytes
    places: SourceMap


class EsbuildParser:
    """Runs esbuild on single files, without bundling; ``deadline`` is the timeout of one run, in seconds."""

    def __init__(self, esbuild: FindsEsbuild, deadline: float) -> None:
        self._esbuild = esbuild
        self._deadline = deadline

    async def errors(self, files: Mapping[str, bytes]) -> dict[str, Place | None]:
        """Return the first syntax error of each file, with its message as text, or None for a file without one.

        Files on which esbuild crashes, or does not end in time, are left out: nothing is known of them. Raises `ToolMissing`,
        also where esbuild was killed, or the disk is full.
        """
        listed = list(files.items())
        found: dict[str, Place | None] = {}
        for start in range(0, len(listed), MAX_FILES):
            found |= await self._errors(listed[start : start + MAX_FILES])
        return found

    async def _errors(self, files: Sequence[tuple[str, bytes]]) -> dict[str, Place | None]:
        async with _folder() as folder:
            names = await asyncio.to_thread(_write, folder, files)
            try:
                messages = await self._run(folder, names)
            except TimeoutError:
                return {}
            except _Crashed:
                middle = len(files) // 2
                return {**await self._errors(files[:middle]), **await self._errors(files[middle:])} if middle else {}
        contents = dict(zip(names, files, strict=True))
        errors: dict[str, Place] = {}
        for message in messages:
            if message.error and message.file in contents:
                path, content = contents[message.file]
                errors.setdefault(path, _place(message, content))
        return {path: errors.get(path) for path, _ in files}

    async def print(self, path: str, content: bytes, target: str) -> Printed | Place | None:
        """Return a file as esbuild prints it for a version of the language, or the file's first syntax error.

        None if esbuild crashed, or did not end in time. Raises `ToolMissing` as `errors` does.
        """
        async with _folder() as folder:
            (name,) = await asyncio.to_thread(_write, folder, [(path, content)])
            try:
                messages = await self._run(folder, [name], *PRINTING, f"--target={target}")
            except (TimeoutError, _Crashed):
                return None
            error = next((message for message in messages if message.error), None)
            if error is not None:
                return _place(error, content)
            made = (folder / "out" / name).with_suffix(".js")
            code, mapped = await asyncio.to_thread(lambda: (made.read_bytes(), Path(f"{made}.map").read_bytes()))
        return Printed(code, SourceMap(mapped, code.decode("utf-8", "replace"), content.decode("utf-8", "replace")))

    async def _run(self, folder: Path, names: Sequence[str], *flags: str) -> list[Message]:
        """Run esbuild and return its messages; raises `TimeoutError`, `_Crashed` and `ToolMissing`."""
        ended = await run_esbuild(await self._esbuild.find(), [*FLAGS, *flags, *names], cwd=folder, deadline=self._deadline)
        messages = read_messages(ended.errors.decode("utf-8", "replace"))
        unwritten = next((message.text for message in messages if message.of_run), None)
        if unwritten is not None:
            raise no_space(unwritten)
        if ended.status and not any(message.error for message in messages):
            raise _Crashed if has_crashed(ended) else ToolMissing(explain_silence(ended), TRIED_AGAIN)
        return messages


class _Crashed(Exception):
    """Esbuild crashed, which is due to the code of one file."""


@contextlib.asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    """Yield a temporary folder; with a thousand files in it, its removal takes too long for the event loop.

    Raises `ToolMissing` if the folder, or what is done with it, ends in an OSError.
    """
    with os_errors_as_missing():
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="kapso-sync-build-")
        try:
            yield Path(folder)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


def _place(message: Message, content: bytes) -> Place:
    there = message.located(content)
    return Place(max(there.line, 1), there.column + 1, message.text)


def _write(folder: Path, files: Sequence[tuple[str, bytes]]) -> list[str]:
    """Write the files under names that esbuild cannot misread, and return the names."""
    names = [f"f{number}{PurePosixPath(path).suffix}" for number, (path, _) in enumerate(files)]
    for name, (_, content) in zip(names, files, strict=True):
        (folder / name).write_bytes(content)
    return names
