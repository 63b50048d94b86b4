"""Find the esbuild executable: only the pinned version, and never a program that came with the functions."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kapso_sync.dataclass import dataclass

VERSION = "0.28.2"
"""The only version that is used, since another version may build other bytes from the same code; as in `package.json`."""

_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class ToolMissing(Exception):
    """No esbuild can be used; ``message`` and ``hint`` can be shown to the user."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ToolPlaces:
    """The places to search for esbuild: the path that the user named, our own copies, then the folders of PATH.

    A program below a folder in ``foreign`` is never run. Otherwise, a person who may push functions could run programs with
    access to the API key. Our own copies are trusted like kapso-sync itself.
    """

    named: Path | None
    own: Sequence[Path]
    path: Sequence[str]
    foreign: Sequence[Path] = ()

    def candidates(self) -> Iterator[Path]:
        """Yield the candidates in order of preference; raises `ToolMissing` if the named one must not be run."""
        if self.named is not None:
            if self._is_foreign(self.named) or not self.named.is_absolute():
                hint = "name one that did not come with the functions, by its full path"
                raise ToolMissing(
                    f"KAPSO_SYNC_ESBUILD {self.named} is not run: it lies in the source, or is not a full path", hint
                )
            yield self.named
            return
        yield from (path for path in self.own if path.is_file())
        for folder in self.path:
            found = Path(folder, "esbuild")
            if found.is_absolute() and found.is_file() and not self._is_foreign(found):
                yield found

    def _is_foreign(self, path: Path) -> bool:
        real, named = Path(os.path.realpath(path)), Path(os.path.abspath(path))  # noqa: PTH100 - the path as named, links and all
        return any(real.is_relative_to(root) or named.is_relative_to(root) for root in self.foreign)


def own_copies(package: Path, prefix: Path) -> tuple[Path, ...]:
    """Return the paths of our own copy, in a checkout, in a wheel for one platform, and beside an installation.

    ``package`` is the folder of the package `kapso_sync`; ``prefix`` is the installation prefix, as `sys.prefix`.
    """
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    binary = Path("@esbuild", f"{sys.platform}-{machine}", "bin", "esbuild")
    installed = prefix / "lib" / "node_modules"
    return (
        package.parent / "node_modules" / binary,
        package / "bin" / "esbuild",
        installed / binary,
        installed / "esbuild" / "node_modules" / binary,
    )
