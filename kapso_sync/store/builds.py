"""Caches builds in the state folder, one file per build, and what was found in files; limited in number, age and size."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kapso_sync.errors import Location
from kapso_sync.files import read_small
from kapso_sync.model.builds import Built
from kapso_sync.model.desired import BundledPackage, Notice
from kapso_sync.permissions import make_private

FOLDER = "builds"
MAX_BUILDS = 4000
"""Maximum number of builds; the least recently used ones are dropped first."""

MAX_AGE = timedelta(days=60)
"""How long an unused build is kept."""

FINDINGS = "findings.json"
MAX_FINDINGS = 16 * 1024 * 1024
"""Most bytes of findings that are stored: ten thousand files of people take a few megabytes, hostile ones more."""


class BuildFolder:
    """Reads builds below a state folder, and with ``writes`` stores new ones. An unreadable file counts as missing."""

    def __init__(self, state: Path, now: datetime, *, writes: bool) -> None:
        self._folder = state / FOLDER
        self._writes = writes
        if writes:
            self._drop_old(now)

    def get(self, key: str) -> Built | None:
        """Return the build of a key, or None."""
        path = self._folder / f"{key}.json"
        try:
            built = _decoded(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if self._writes:
            with contextlib.suppress(OSError):
                os.utime(path)
        return built

    def put(self, key: str, built: Built) -> None:
        """Store the build of a key, if this folder may be written."""
        if self._writes:
            self._put(f"{key}.json", json.dumps(_encoded(built), ensure_ascii=True).encode())

    def findings(self) -> bytes:
        """Return the stored findings, empty without any, and for a file that is damaged."""
        try:
            digest, _, findings = read_small(self._folder / FINDINGS, MAX_FINDINGS).partition(b"\n")
        except OSError:
            return b""
        return findings if digest == _digest(findings) else b""

    def put_findings(self, findings: bytes) -> None:
        """Replace the stored findings, if this folder may be written."""
        content = _digest(findings) + b"\n" + findings
        if self._writes and len(content) <= MAX_FINDINGS:
            self._put(FINDINGS, content)

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
            found = sorted(((path.stat().st_mtime, path) for path in self._folder.iterdir()), reverse=True)
            for number, (used, path) in enumerate(found):
                if number >= MAX_BUILDS or used < (now - MAX_AGE).timestamp():
                    path.unlink()


def _digest(findings: bytes) -> bytes:
    return hashlib.sha256(findings).hexdigest().encode()


def _encoded(built: Built) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(built.code.encode()).hexdigest(),
        "code": built.code,
        "inputs": [list(pair) for pair in built.inputs],
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
    return Built(code, tuple((str(path), str(digest)) for path, digest in data["inputs"]), notices, packages)
