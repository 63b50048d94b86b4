"""Caches builds, each with its source map, what was found in files, and the last result; limited in number, age and size."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, Notice
from kapso_sync.files import read_small
from kapso_sync.model.builds import Built, Resolution
from kapso_sync.model.desired import BundledPackage
from kapso_sync.permissions import make_private

FOLDER = "builds"
MAP = ".map"
"""Suffix of a build's source map, which lives as long as the build."""

MAX_BUILDS = 4000
"""Maximum number of builds; the least recently used ones are dropped first."""

MAX_BYTES = 32 * 1024 * 1024
"""Most bytes of a build: 1 MiB of code, and a line for each file of its packages."""

MAX_AGE = timedelta(days=60)
"""How long an unused build is kept."""

FINDINGS, RESULT = "findings.json", "result.json"
MAX_WHOLE = 16 * 1024 * 1024
"""Most bytes of either, as stored: ten thousand files of people take a few megabytes, hostile ones more."""


class BuildFolder:
    """Reads builds below a state folder, and with ``writes`` stores new ones. An unreadable file counts as missing."""

    def __init__(self, state: Path, now: datetime, *, writes: bool) -> None:
        self._folder = state / FOLDER
        self._writes = writes
        if writes:
            self._drop_old(now)

    def get(self, key: str) -> Built | None:
        """Return the build of a key, or None."""
        path = f"{self._folder}/{key}.json"  # a restart reads hundreds of them
        try:
            built = _decoded(msgspec.json.decode(read_small(path, MAX_BYTES)))
        except (OSError, msgspec.DecodeError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if self._writes:
            self._touch(path)
        return built

    def put(self, key: str, built: Built) -> None:
        """Store the build of a key, if this folder may be written."""
        if not self._writes:
            return
        if built.source_map is not None:
            self._put(f"{key}{MAP}", built.source_map.encode())
        self._put(f"{key}.json", json.dumps(_encoded(built), ensure_ascii=True).encode())

    def use(self, keys: Iterable[str]) -> bool:
        """Note that these builds are in use, and return whether all are there; who only reads needs none of them."""
        return not self._writes or all(self._touch(f"{self._folder}/{key}.json") for key in keys)

    def findings(self) -> bytes:
        """Return the stored findings, empty without any, and for a file that is damaged."""
        return self._whole(FINDINGS)

    def put_findings(self, findings: bytes) -> None:
        """Replace the stored findings, if this folder may be written."""
        self._put_whole(FINDINGS, findings)

    def result(self) -> bytes:
        """Return the stored result of a whole build, empty without any, and for a file that is damaged."""
        return self._whole(RESULT)

    def put_result(self, result: bytes) -> None:
        """Replace the stored result, if this folder may be written."""
        self._put_whole(RESULT, result)

    def _whole(self, name: str) -> bytes:
        try:
            digest, _, content = read_small(f"{self._folder}/{name}", MAX_WHOLE).partition(b"\n")
        except OSError:
            return b""
        return content if digest == _digest(content) else b""

    def _put_whole(self, name: str, content: bytes) -> None:
        whole = _digest(content) + b"\n" + content
        if self._writes and len(whole) <= MAX_WHOLE:
            self._put(name, whole)

    @staticmethod
    def _touch(path: str) -> bool:
        try:
            os.utime(path)
        except OSError:
            return False
        return True

    def _put(self, name: str, content: bytes) -> None:
        part = self._folder / f"{name}.{os.getpid()}.part"
        try:
            make_private(self._folder)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            part.replace(self._folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()

    def _drop_old(self, now: datetime) -> None:
        with contextlib.suppress(OSError):
            for part in self._folder.glob("*.part"):
                part.unlink()
            builds = [path for path in self._folder.iterdir() if path.suffix != MAP and path.name not in (FINDINGS, RESULT)]
            found = sorted(((path.stat().st_mtime, path) for path in builds), reverse=True)
            for number, (used, path) in enumerate(found):
                if number >= MAX_BUILDS or used < (now - MAX_AGE).timestamp():
                    path.unlink()
            for path in self._folder.glob(f"*{MAP}"):
                if not path.with_suffix(".json").exists():
                    path.unlink()


@dataclass(frozen=True, slots=True)
class StoredBuild:
    """Code that was built here, and its source map; None: the build was cached without one."""

    code: str = field(repr=False)
    source_map: str | None = field(repr=False)


def find_build(state: Path, hashes: Collection[str]) -> StoredBuild | None:
    """Return the build below a state folder whose code has one of these sha256 (hex), or None; nothing is written.

    Several sources may give the same code, such as two versions of a file that differ in types and comments alone. Their lines
    differ, so the build that was used last counts: it is the one that git has now.
    """
    wanted, found = set(map(_beginning, hashes)), list[tuple[float, Path]]()
    with contextlib.suppress(OSError):
        for path in (state / FOLDER).glob("*.json"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if file.read(_BEGINNING) in wanted:
                    found.append((path.stat().st_mtime, path))
    for _, path in sorted(found, reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            built = _decoded(json.loads(path.read_text(encoding="utf-8")))
            with contextlib.suppress(OSError):
                return StoredBuild(built.code, path.with_suffix(MAP).read_text(encoding="utf-8"))
            return StoredBuild(built.code, None)
    return None


def _beginning(code_sha256: str) -> bytes:
    """Return how the file of a build begins, so that thousands of them need not be read to their ends."""
    return json.dumps({"sha256": code_sha256})[:-1].encode()


_BEGINNING = len(_beginning("0" * 64))


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _encoded(built: Built) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(built.code.encode()).hexdigest(),
        "code": built.code,
        "inputs": [list(pair) for pair in built.inputs],
        "outlines": [list(pair) for pair in built.resolution.outlines],
        "lookups": [list(lookup) for lookup in built.resolution.lookups],
        "packages": [list(dataclasses.astuple(package)) for package in built.packages],
        "notices": [
            [notice.code, notice.message, *((where.file, where.line, where.column) if (where := notice.location) else ())]
            for notice in built.notices
        ],
    }


def _decoded(data: Any) -> Built:
    """Return a build; raises ValueError if it is incomplete."""
    code = str(data["code"])
    if hashlib.sha256(code.encode()).hexdigest() != data["sha256"]:
        raise ValueError("the file is damaged")
    notices = tuple(Notice(kind, text, Location(*where) if where else None) for kind, text, *where in data["notices"])
    packages = tuple(BundledPackage(*package) for package in data["packages"])
    inputs = tuple((str(path), str(digest)) for path, digest in data["inputs"])
    outlines = tuple((str(location), str(digest)) for location, digest in data["outlines"])
    lookups = tuple((str(folder), str(name), None if place is None else str(place)) for folder, name, place in data["lookups"])
    return Built(code, inputs, notices, packages, resolution=Resolution(outlines, lookups))
