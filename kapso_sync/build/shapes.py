"""Caches what was found in files by their content, in memory and in the state folder: an unchanged file is parsed once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from kapso_sync import __version__
from kapso_sync.aio import SLICE
from kapso_sync.build.contract import Shape, inspect, moved
from kapso_sync.build.inspection import inspect_apart
from kapso_sync.build.parser import TARGETS, EsbuildParser
from kapso_sync.build.syntax import Grammar, Place
from kapso_sync.model.builds import BuildStore, NoBuilds
from kapso_sync.tools import VERSION, ToolMissing

_LARGE = 64 * 1024
"""A file with more bytes than this is inspected in a process of its own: it may take seconds and hundreds of MB."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the state folder keeps of the files that the last pass read; each key is made of a file's kind and its digest.

    ``shapes`` are those of files without a syntax error. ``sound`` are files in which esbuild found none.
    """

    rules: str
    shapes: dict[str, Shape] = field(default_factory=dict)
    sound: frozenset[str] = frozenset()


class Shapes:
    """Cache of file shapes, and of esbuild's word on their syntax; what a pass does not ask for is dropped after it."""

    def __init__(self, parser: EsbuildParser | None = None, store: BuildStore | None = None) -> None:
        """Create the cache; ``parser`` decides about code that our own parser takes for a syntax error.

        ``store`` has the findings of earlier processes; they are read with the first file.
        """
        self._parser = parser
        self._store = store or NoBuilds()
        self._stored: Findings | None = None
        self._texts: dict[str, bytes] = {}
        self._known: dict[str, Shape] = {}
        self._seen: dict[str, Shape] = {}
        self._errors: dict[str, Place | None] = {}
        self._sound: frozenset[str] = frozenset()
        self._digests: dict[str, tuple[bytes, str]] = {}
        self._since = 0.0

    async def read(self, path: str, content: bytes) -> Shape:
        """Return the shape of a file."""
        grammar = Grammar.of(path)
        key = f"{grammar.name}:{self.digest(path, content)}"
        shape = self._seen.get(key) or self._known.get(key) or self._recalled().shapes.get(key)
        if shape is None:
            shape = await self._inspect(content, grammar)
            if shape.error is not None and self._parser is not None:
                try:
                    shape = await self._second_opinion(path, content, shape)
                except ToolMissing:
                    return shape
        self._seen[key] = shape
        return shape

    def keep(self, path: str, digest: str, shape: Shape) -> None:
        """Keep the shape of a file of this digest as if it had been read."""
        self._seen[f"{Grammar.of(path).name}:{digest}"] = shape

    async def errors(self, files: Mapping[str, bytes]) -> dict[str, Place]:
        """Return the first syntax error of each file that has one, as esbuild sees it; without esbuild, what is known of them.

        What is known of other files is dropped.
        """
        keys = {path: f".{path.rpartition('.')[2]}:{self.digest(path, content)}" for path, content in files.items()}
        known = dict.fromkeys(self._recalled().sound) | self._errors
        unknown = {path: content for path, content in files.items() if keys[path] not in known}
        if unknown and self._parser is not None:
            with contextlib.suppress(ToolMissing):
                found = await self._parser.errors(unknown)
                known |= {keys[path]: found.get(path) for path in unknown}
                self._sound |= {keys[path] for path, error in found.items() if error is None}
        wanted = frozenset(keys.values())
        self._errors = {key: error for key, error in known.items() if key in wanted}
        self._sound = (self._sound | self._recalled().sound) & wanted
        return {path: error for path, key in keys.items() if (error := known.get(key)) is not None}

    async def _inspect(self, code: bytes, grammar: Grammar) -> Shape:
        if len(code) > _LARGE:
            return await inspect_apart(code, grammar)
        await self.rest()
        return inspect(code, grammar)

    async def _second_opinion(self, path: str, content: bytes, shape: Shape) -> Shape:
        """Return the shape of code that our parser does not understand, by the code that esbuild prints of it.

        Even where our parser does not understand that either, the code has no syntax error: then the best that it finds counts.
        """
        found = shape
        for target in TARGETS:
            printed = await self._parser.print(path, content, target) if self._parser is not None else None
            if isinstance(printed, Place):
                return replace(shape, error=printed, confirmed=True)
            if printed is None:
                return shape
            again = await self._inspect(printed.code, Grammar.JAVASCRIPT)
            found = moved(replace(again, error=None), printed.places.original, shape)
            if again.error is None and target == TARGETS[0]:
                return found
        return replace(found, modern=found.modern or shape.error)

    def digest(self, path: str, content: bytes) -> str:
        """Return the digest of a file's content, computed once in a pass: several rules ask for it."""
        known = self._digests.get(path)
        if known is None or known[0] is not content:
            self._digests[path] = known = content, hashlib.sha256(content).hexdigest()
        return known[1]

    async def rest(self) -> None:
        """Let the event loop run other tasks, if it did not for a while."""
        now = asyncio.get_running_loop().time()
        if now - self._since > SLICE:
            await asyncio.sleep(0)
            self._since = asyncio.get_running_loop().time()

    def turn(self) -> None:
        """Drop the shapes that were not read since the previous call, and store the others for the next process.

        What is wrong with a file is not stored: a newer parser may see it otherwise, and it is reported at each start anyway.
        """
        self._known, self._seen, self._digests = self._seen, {}, {}
        good = {key: shape for key, shape in self._known.items() if shape.error is None and shape.limit is None}
        stored = self._recalled()
        if stored.shapes.keys() != good.keys() or stored.sound != self._sound:
            self._stored = Findings(rules(), good, self._sound)
            self._texts = {key: self._texts.get(key) or _encoded(shape) for key, shape in good.items()}
            self._store.put_findings(self._text())

    def _text(self) -> bytes:
        """Return the findings as JSON; of a thousand shapes, those that are new are encoded."""
        shapes = b",".join(json.dumps(key).encode() + b":" + text for key, text in self._texts.items())
        head, tail = json.dumps({"rules": rules()})[:-1].encode(), json.dumps(sorted(self._sound)).encode()
        return head + b', "shapes": {' + shapes + b'}, "sound": ' + tail + b"}"

    def _recalled(self) -> Findings:
        """Return what the state folder keeps; nothing if it cannot be read, or was found by other rules."""
        if self._stored is None:
            try:
                found = _adapter().validate_json(self._store.findings(), strict=True)
            except ValueError:
                found = Findings(rules())
            self._stored = found if found.rules == rules() else Findings(rules())
        return self._stored


@functools.cache
def _adapter() -> TypeAdapter[Findings]:
    return TypeAdapter(Findings)


def _encoded(shape: Shape) -> bytes:
    return _shape_adapter().dump_json(shape, exclude_defaults=True)


@functools.cache
def _shape_adapter() -> TypeAdapter[Shape]:
    return TypeAdapter(Shape)


@functools.cache
def rules() -> str:
    """Return what decides which shape a file has: our own version and code, and esbuild's version.

    The code counts because one version has many states while it is developed. Findings by other rules are not used.
    """
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
    return f"{__version__} {VERSION} {code.hexdigest()}"
