"""Finds files whose names are nearly those that declare functions: nobody reads them, and a person believes that we do."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

from kapso_sync.dataclass import dataclass
from kapso_sync.model.source import FUNCTION_FILE, MANIFEST_NAMES

_OTHER_FORMATS = frozenset({"", ".json", ".jsonc", ".toml"})
"""Suffixes of other tools' files: Azure's functions have a ``function.json``, for example."""


_OTHER_NAMES = ("functions.yaml", "functions.yml")
"""What people call a list of functions, at the top of the folder, where nobody means a single one."""


@dataclass(frozen=True, slots=True)
class MisnamedFile:
    """A file that is not read. ``reason`` ends a sentence that begins with its path; ``hint`` says what to do.

    ``declares``: nothing that is read may declare the same function, so its absence says nothing.
    """

    path: str
    reason: str
    hint: str
    declares: bool

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.path} is not read: {self.reason}"


def find_misnamed(paths: Collection[str], code: Collection[str]) -> tuple[MisnamedFile, ...]:
    """Return the misnamed files among all paths of a functions folder, in order.

    ``code`` are the files that the manifest's entries name: what lies beside one of them declares nothing else.
    """
    every = frozenset(paths)
    named = {path.rpartition("/")[0] for path in code} - {""}
    described = {folder for folder in named if f"{folder}/{FUNCTION_FILE}" not in every}
    found = (_judge(path, every) for path in sorted(every))
    return tuple(each for each in found if each is not None and each.path.rpartition("/")[0] not in described)


def _judge(path: str, paths: frozenset[str]) -> MisnamedFile | None:
    *folders, name = path.split("/")
    if not folders:
        return _at_the_top(path, paths)
    if name != FUNCTION_FILE and not _is_near(_folded(name), FUNCTION_FILE):
        return None
    if len(folders) == 1:
        if name == FUNCTION_FILE:
            return None
        right = f"{folders[0]}/{FUNCTION_FILE}"
        return MisnamedFile(path, f"did you mean {FUNCTION_FILE}?", f"rename it to {right}", right not in paths)
    if f"{folders[0]}/{FUNCTION_FILE}" in paths:
        return None  # it belongs to that function, as a fixture may
    reason = f"a {FUNCTION_FILE} counts in a folder directly below the functions folder"
    return MisnamedFile(path, reason, f"move {'/'.join(folders)} up, or name its code in the manifest", declares=True)


def _at_the_top(name: str, paths: frozenset[str]) -> MisnamedFile | None:
    if name in MANIFEST_NAMES:
        return None
    folded = _folded(name)
    near = [known for known in MANIFEST_NAMES if _is_near(folded, known)]
    meant = next((known for known in near if known == folded), near[0] if near else None)
    if meant is None and folded in _OTHER_NAMES:
        meant = MANIFEST_NAMES[0]
    if meant is not None:
        return MisnamedFile(name, f"did you mean {meant}?", f"rename it to {meant}", paths.isdisjoint(MANIFEST_NAMES))
    if name == FUNCTION_FILE or _is_near(folded, FUNCTION_FILE):
        reason = f"a {FUNCTION_FILE} counts in a folder of its own, directly below the functions folder"
        return MisnamedFile(name, reason, "move it, with its code, into a folder that has the function's slug", declares=True)
    return None


def _is_near(folded: str, known: str) -> bool:
    """Return whether a person who gave a name, here without what is `_folded`, may have meant the known one."""
    stem = known.rpartition(".")[0]
    other_format = folded.startswith(stem) and folded.removeprefix(stem) in _OTHER_FORMATS
    return folded == known or other_format or (abs(len(folded) - len(known)) <= 1 and _one_slip(folded, known))


def _folded(name: str) -> str:
    """Return a name as it was probably meant: without capitals, and without the suffix that an editor has added."""
    return unicodedata.normalize("NFKC", name).casefold().strip().removesuffix(".txt")


def _one_slip(left: str, right: str) -> bool:
    """Return whether one character was left out, added, replaced, or swapped with the next one."""
    start = next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    a, b = left[start:], right[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
