"""npm packages: found only below the source's own root, in the ``node_modules`` of a folder or of its parents there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

MODULES = "node_modules"

_NODE = """
assert async_hooks buffer child_process cluster console constants crypto dgram diagnostics_channel dns domain events fs http
http2 https inspector module net os path perf_hooks process punycode querystring readline repl stream string_decoder sys
timers tls trace_events tty url util v8 vm wasi worker_threads zlib assert/strict dns/promises fs/promises path/posix
path/win32 readline/promises stream/consumers stream/promises stream/web timers/promises util/types
"""
NODE_BUILT_INS = frozenset(_NODE.split())
"""Node's own modules, by the names that also work without ``node:``; source: `require("module").builtinModules`."""

RUNTIME_MODULES = ("node:", "cloudflare:")


@dataclass(frozen=True, slots=True)
class Packages:
    """Where a folder's packages are: ``home`` is the functions folder, ``root`` the highest folder looked into, both real.

    Nothing that leads out of the root is found, whatever links there are.
    """

    home: Path
    root: Path
    _found: dict[tuple[str, str], str | None] = field(default_factory=dict, repr=False)

    def find(self, folder: str, specifier: str) -> str | None:
        """Return where a package lies that a file in ``folder`` imports, relative to the root, or None."""
        name = package_name(specifier)
        if (folder, name) not in self._found:
            places = (level / MODULES / name for level in self.levels(folder))
            found = next((place for place in places if place.is_dir() and self.holds(place)), None)
            self._found[folder, name] = None if found is None else found.relative_to(self.root).as_posix()
        return self._found[folder, name]

    def levels(self, folder: str) -> Iterator[Path]:
        """Yield the folders whose ``node_modules`` a file in ``folder`` sees, the nearest first; none leads out of the root."""
        below = Path(self.home, folder)
        for level in (below, *below.parents):
            if (level / MODULES).is_dir() and self.holds(level / MODULES):
                yield level
            if level == self.root:
                return

    def holds(self, path: Path) -> bool:
        """Tell whether a path really lies below the root."""
        return Path(os.path.realpath(path)).is_relative_to(self.root)

    @property
    def inside(self) -> str:
        """The functions folder as seen from the root."""
        return self.home.relative_to(self.root).as_posix()


def package_name(specifier: str) -> str:
    """Return the package of a bare import: ``@scope/name`` of ``@scope/name/part``."""
    parts = PurePosixPath(specifier).parts
    return "/".join(parts[: 2 if specifier.startswith("@") else 1])


def is_built_in(specifier: str) -> bool:
    """Tell whether the runtime, and no file, is what a bare import names."""
    return specifier.startswith(RUNTIME_MODULES) or specifier in NODE_BUILT_INS
