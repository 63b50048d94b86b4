"""Resolve ``#name`` imports by the field ``imports`` of the nearest ``package.json`` in the functions folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from kapso_sync.model.source import SourceFile

PACKAGE = "package.json"
CONDITIONS = frozenset({"workerd", "worker", "browser", "import", "module", "default"})
"""Conditions that hold in a build; of an object's keys the first that holds counts, as Node's documentation has it."""


@dataclass(frozen=True, slots=True)
class Subpath:
    """What an import names: a ``target`` relative to the functions folder, or the reason why there is none."""

    target: str | None = None
    problem: str = ""


@dataclass(slots=True)
class Subpaths:
    """The ``imports`` of all package.json files of a snapshot; each file is read once."""

    files: Mapping[str, SourceFile]
    _read: dict[str, Mapping[str, object]] = field(default_factory=dict)

    def find(self, path: str, specifier: str) -> Subpath:
        """Return what a ``#name`` import of a file means."""
        package = self._nearest(path)
        if package is None:
            return Subpath(problem=f"no {PACKAGE} of the functions folder defines `{specifier}`")
        imports = self._imports(package)
        value, star = imports.get(specifier) if "*" not in specifier else None, ""
        if value is None:
            value, star = _pattern(specifier, imports)
        target = _chosen(value)
        if target is None:
            return Subpath(problem=f"{package} does not define `{specifier}`")
        target = target.replace("*", star)
        if not target.startswith("./") or ".." in target.split("/"):
            return Subpath(problem=f"{package} makes `{specifier}` mean `{target}`: only files beside it are followed")
        return Subpath(package.removesuffix(PACKAGE) + target.removeprefix("./"))

    def _nearest(self, path: str) -> str | None:
        folder = path.rpartition("/")[0]
        while True:
            name = f"{folder}/{PACKAGE}" if folder else PACKAGE
            if name in self.files:
                return name
            if not folder:
                return None
            folder = folder.rpartition("/")[0]

    def _imports(self, package: str) -> Mapping[str, object]:
        if package not in self._read:
            try:
                document = json.loads(self.files[package].content or b"{}")
            except (ValueError, RecursionError):
                document = {}
            found = document.get("imports") if isinstance(document, dict) else None
            self._read[package] = found if isinstance(found, dict) else {}
        return self._read[package]


def _pattern(specifier: str, imports: Mapping[str, object]) -> tuple[object, str]:
    """Return the value of the most specific pattern that a specifier matches, and what its star stands for."""
    best, value, star = "", None, ""
    for pattern, given in imports.items():
        before, found, after = pattern.partition("*")
        long_enough = len(specifier) > len(before) + len(after)
        if found and long_enough and specifier.startswith(before) and specifier.endswith(after) and len(before) >= len(best):
            best, value, star = before, given, specifier[len(before) : len(specifier) - len(after)]
    return value, star


def _chosen(value: object) -> str | None:
    """Return the target that the conditions choose, after at most 10 conditions inside each other."""
    for _ in range(10):
        if isinstance(value, list):
            value = next((each for each in value if each is not None), None)
        elif isinstance(value, dict):
            value = next((each for name, each in value.items() if name in CONDITIONS), None)
        else:
            break
    return value if isinstance(value, str) else None
