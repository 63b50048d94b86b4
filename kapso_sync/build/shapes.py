"""Caches what was found in files by their content, in memory and in the state folder: an unchanged file is parsed once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass, replace
from pathlib import Path

import msgspec

from kapso_sync import __version__
from kapso_sync.aio import SLICE
from kapso_sync.build.contract import Shape, inspect, moved
from kapso_sync.build.inspection import inspect_apart
from kapso_sync.build.parser import TARGETS, EsbuildParser
from kapso_sync.build.syntax import Grammar, Place
from kapso_sync.dataclass import dataclass
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
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    sound: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _StoredFindings:
    """`Findings` whose shapes are still JSON, in which a thousand plain files have the same text."""

    rules: str
    shapes: dict[str, msgspec.Raw]
    sound: frozenset[str]


class Shapes:
    """Cache of file shapes, and of esbuild's word on their syntax; what a pass does not ask for is dropped after it."""

    def __init__(self, parser: EsbuildParser | None = None, store: BuildStore | None = None) -> None:
        """Create the cache; ``parser`` decides about code that our own parser takes for a syntax error.

        ``store`` has the findings of earlier processes; they are read with the first file.
        """
        self._parser = parser
        self._store = store or NoBuilds()
        self._stored: Findings | None = None
        self._by_text: dict[bytes, Shape] = {}
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
            shape = self._shared(shape)
        self._seen[key] = shape
        return shape

    def keep(self, path: str, digest: str, shape: Shape) -> None:
        """Keep the shape of a file of this digest as if it had been read."""
        self._seen[f"{Grammar.of(path).name}:{digest}"] = shape

    async def errors(self, files: Mapping[str, bytes]) -> dict[str, Place]:
        """Return the first syntax error of each file that has one, as esbuild sees it; without esbuild, what is known of them.

        What is known of other files is dropped.
        """
        keys = {path: self._syntax_key(path, content) for path, content in files.items()}
        known = dict.fromkeys(self._recalled().sound | self._sound) | self._errors
        unknown = {path: content for path, content in files.items() if keys[path] not in known}
        if unknown and self._parser is not None:
            with contextlib.suppress(ToolMissing):
                found = await self._parser.errors(unknown)
                known |= {keys[path]: found.get(path) for path in unknown}
                self._sound |= {keys[path] for path, error in found.items() if error is None}
        wanted = frozenset(keys.values())
        self._sound = (self._sound | self._recalled().sound) & wanted
        self._errors = {key: error for key, error in known.items() if key in wanted and key not in self._sound}
        return {path: error for path, key in keys.items() if (error := known.get(key)) is not None}

    def are_sound(self, files: Mapping[str, bytes]) -> bool:
        """Return whether esbuild has found no syntax error in any of these files, about which `errors` was asked."""
        return all(self._syntax_key(path, content) in self._sound for path, content in files.items())

    def _syntax_key(self, path: str, content: bytes) -> str:
        return f".{path.rpartition('.')[2]}:{self.digest(path, content)}"

    def _shared(self, shape: Shape) -> Shape:
        """Return the one object that all equal shapes are: a thousand plain files have equal ones."""
        return self._by_text.setdefault(_encoded(shape), shape) if _is_stored(shape) else shape

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

    def forget_contents(self) -> None:
        """Forget the digests of files, and with them the contents that they are known by."""
        self._digests = {}

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
        good = {key: shape for key, shape in self._seen.items() if _is_stored(shape)}
        self._known = {key: shape for key, shape in self._seen.items() if not _is_stored(shape) and not shape.passing}
        self._seen = {}
        self.forget_contents()
        stored = self._recalled()
        if stored.shapes.keys() != good.keys() or stored.sound != self._sound:
            self._stored = Findings(rules(), good, self._sound)
            self._store.put_findings(self._text(good))
        else:
            self._sound = stored.sound  # one object for what is equal

    def _text(self, shapes: Mapping[str, Shape]) -> bytes:
        """Return the findings as JSON; each shape was encoded when it was read, and texts of other shapes are dropped."""
        known = {id(shape): text for text, shape in self._by_text.items()}
        texts = {key: known.get(id(shape)) or _encoded(shape) for key, shape in shapes.items()}
        self._by_text = {text: shapes[key] for key, text in texts.items()}
        body = b",".join(json.dumps(key).encode() + b":" + text for key, text in texts.items())
        head, tail = json.dumps({"rules": rules()})[:-1].encode(), json.dumps(sorted(self._sound)).encode()
        return head + b', "shapes": {' + body + b'}, "sound": ' + tail + b"}"

    def _recalled(self) -> Findings:
        """Return what the state folder keeps; nothing if it cannot be read, or was found by other rules."""
        if self._stored is None:
            try:
                self._stored = self._decoded(self._store.findings())
            except (msgspec.DecodeError, ValueError, RecursionError):
                self._stored = Findings(rules())
        return self._stored

    def _decoded(self, text: bytes) -> Findings:
        found = msgspec.json.decode(text, type=_StoredFindings)
        if found.rules != rules():
            return Findings(rules())
        return Findings(found.rules, {key: self._shape(bytes(text)) for key, text in found.shapes.items()}, found.sound)

    def _shape(self, text: bytes) -> Shape:
        """Return the shape with this JSON, the same object each time."""
        if text not in self._by_text:
            self._by_text[text] = msgspec.json.decode(text, type=Shape)
        return self._by_text[text]


def _is_stored(shape: Shape) -> bool:
    return shape.error is None and shape.limit is None


def _encoded(shape: Shape) -> bytes:
    """Return the shape as JSON; equal shapes have the same text."""
    return msgspec.json.encode(_without_defaults(shape), order="deterministic")


def _without_defaults(value: object) -> object:
    """Return what JSON has for a value, without the fields that have their defaults; that of a mapping is an empty one."""
    if is_dataclass(value):
        given = {each.name: item for each in fields(value) if (item := getattr(value, each.name)) not in (each.default, {})}
        return {name: _without_defaults(item) for name, item in given.items()}
    if isinstance(value, Mapping):
        return {key: _without_defaults(item) for key, item in value.items()}
    return [_without_defaults(item) for item in value] if isinstance(value, tuple) else value


@functools.cache
def rules() -> str:
    """Return what decides which shape a file has: our own version and code, and esbuild's version.

    The code counts because one version has many states while it is developed. Findings by other rules are not used.
    """
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
    return f"{__version__} {VERSION} {code.hexdigest()}"
