"""Resolve ``#name`` imports by the field ``imports`` of the nearest ``package.json`` in the functions folder or above it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from kapso_sync.build.nearest import Surroundings
from kapso_sync.dataclass import dataclass
from kapso_sync.model.source import Above, SourceFile

PACKAGE = "package.json"
CONDITIONS = frozenset({"workerd", "worker", "browser", "import", "module", "default"})
"""Conditions that hold in a build; of an object's keys the first that holds counts, as Node's documentation has it."""

MAX_SUBPATHS = 1000
"""Maximum number of `imports` of a package.json, since each import is compared with all of them."""


@dataclass(frozen=True, slots=True)
class Subpath:
    """What an import names: a ``target`` relative to the functions folder, or the reason why there is none."""

    target: str | None = None
    problem: str = ""


class Subpaths:
    """The ``imports`` of all package.json files of a snapshot, and of those above it; each file is read once."""

    def __init__(self, files: Mapping[str, SourceFile], above: Above | None = None) -> None:
        self._around = Surroundings(files, above or Above())
        self._read: dict[str, Mapping[str, object]] = {}

    def find(self, path: str, specifier: str) -> Subpath:
        """Return what a ``#name`` import of a file means."""
        package = self._around.nearest(path.rpartition("/")[0], (PACKAGE,))
        if package is None:
            return Subpath(problem=f"no {PACKAGE} of the functions folder, or above it, defines `{specifier}`")
        imports = self._imports(package)
        if len(imports) > MAX_SUBPATHS:
            return Subpath(problem=f"{package} has more than {MAX_SUBPATHS} `imports`, which are not followed")
        value, star = imports.get(specifier) if "*" not in specifier else None, ""
        if value is None:
            value, star = _pattern(specifier, imports)
        target = _chosen(value)
        if target is None:
            return Subpath(problem=f"{package} does not define `{specifier}`")
        target = target.replace("*", star)
        if not target.startswith("./") or ".." in target.split("/"):
            return Subpath(problem=f"{package} makes `{specifier}` mean `{target}`: only files beside it are followed")
        return Subpath(self._around.normal(package.removesuffix(PACKAGE) + target))

    def _imports(self, package: str) -> Mapping[str, object]:
        if package not in self._read:
            file = self._around.get(package)
            content = file.content if file is not None else None
            try:
                document = json.loads(content or b"{}")
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
