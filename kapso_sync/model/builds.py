"""Holds a build's result, and the store of what is found and built, so that unchanged code is not parsed or built twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import Protocol

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Notice
from kapso_sync.model.desired import BundledPackage


@dataclass(frozen=True, slots=True)
class Resolution:
    """What decided which files of packages a build read: while it is the same, a new build would read the same files.

    ``outlines`` has the folder of each package that was looked at, with a digest of the names in it and of each package.json.
    ``lookups`` has a folder, the package that a file in it imports, and the folder where that was found; None: nowhere. All
    paths are below the source's root.
    """

    outlines: tuple[tuple[str, str], ...] = ()
    lookups: tuple[tuple[str, str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """The result of a build.

    ``inputs`` are files outside the snapshot, below the source's root, with their sha256; ``resolution`` is why it is those.
    ``notices`` are the bundler's own warnings. ``packages`` are the npm packages in the code. ``source_map`` leads places in
    the code back to the source files (ECMA-426, in JSON, without their contents); a store keeps it beside the build, and does
    not return it with the build.
    """

    code: str = field(repr=False)
    inputs: Sequence[tuple[str, str]] = ()
    notices: tuple[Notice, ...] = ()
    packages: tuple[BundledPackage, ...] = ()
    source_map: str | None = field(default=None, repr=False)
    resolution: Resolution = field(default=Resolution(), repr=False)


class BuildStore(Protocol):
    """A cache of builds, findings and results that survives a restart. Losing it costs time only, so no method ever raises."""

    def get(self, key: str) -> Built | None:
        """Return the build of a key, or None."""
        ...

    def put(self, key: str, built: Built) -> None:
        """Store the build of a key."""
        ...

    def findings(self) -> bytes:
        """Return the stored findings, empty without any."""
        ...

    def put_findings(self, findings: bytes) -> None:
        """Replace the stored findings."""
        ...

    def result(self) -> bytes:
        """Return the stored result of the last build of a whole folder, empty without any."""
        ...

    def put_result(self, result: bytes) -> None:
        """Replace the stored result."""
        ...

    def use(self, keys: Iterable[str]) -> bool:
        """Note that these builds are in use, though nobody asks for them; return whether none of them must be made again."""
        ...


class NoBuilds:
    """Keeps nothing."""

    def get(self, key: str) -> Built | None:  # noqa: ARG002 - there is nothing to look for
        """Return nothing."""
        return None

    def put(self, key: str, built: Built) -> None:
        """Keep nothing."""

    def findings(self) -> bytes:
        """Return nothing."""
        return b""

    def put_findings(self, findings: bytes) -> None:
        """Keep nothing."""

    def result(self) -> bytes:
        """Return nothing."""
        return b""

    def put_result(self, result: bytes) -> None:
        """Keep nothing."""

    def use(self, keys: Iterable[str]) -> bool:  # noqa: ARG002 - as above
        """Return that they have to be made again."""
        return False
