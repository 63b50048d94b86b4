"""Keeps the result of the last build in the state folder: of a folder in which nothing changed, no import is followed again.

What a build finds is decided by the files, by what the manifest says of each entry's code, and by our own rules. All of it
together has a digest, the key. A result that hangs on anything else, such as an installed package, is not kept; neither is one
with a function that is unusable, so that mistakes are looked for in each pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Self

import msgspec

from kapso_sync.build.shapes import rules
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Notice
from kapso_sync.model.desired import BundledPackage, CodeStyle, DesiredFunction, Entry
from kapso_sync.model.functions import CODE
from kapso_sync.model.policies import Contract
from kapso_sync.model.source import Above, SourceFile

MAX_CODE = 12 * 1024 * 1024
"""Most characters of compiled code in a result that is kept."""


@dataclass(frozen=True, slots=True)
class KeptFunction:
    """What became of one entry.

    ``build`` is the key of its build, and ``code`` what was built; both are None if the file goes up as it is.
    """

    code_hash: str
    build: str | None = None
    code: str | None = field(default=None, repr=False)
    style: CodeStyle | None = None
    compiled: bool = False
    packages: tuple[BundledPackage, ...] = ()

    def function(self, entry: Entry, content: bytes) -> DesiredFunction:
        """Return the function of this entry; ``content`` is that of its file."""
        code = content.decode("utf-8") if self.code is None else self.code
        function = DesiredFunction(entry, code, style=self.style, compiled=self.compiled, packages=self.packages)
        return function.hashed(self.code_hash)


def result_key(
    entries: Sequence[Entry],
    elsewhere: Iterable[Entry],
    files: Mapping[str, SourceFile],
    above: Above,
    contract: Contract,
    digest: Callable[[str, bytes], str],
) -> str:
    """Return the digest of all that decides a result. ``digest`` returns that of a file, by its path and content."""
    asked = [[entry.slug, entry.file, entry.contract, entry.minify, entry.function_type] for entry in entries]
    read = [
        [path, file.problem if file.content is None else digest(path, file.content), file.content is None]
        for path, file in sorted([*files.items(), *above.files.items()])
    ]
    parts = [rules(), contract, asked, [entry.file for entry in elsewhere], above.home, read]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KeptResult:
    """The result of a build in which each entry became a function; ``functions`` are in the order of the entries."""

    key: str
    functions: tuple[KeptFunction, ...]
    notices: tuple[Notice, ...]
    used: tuple[str, ...]

    @classmethod
    def of(
        cls,
        key: str,
        functions: Iterable[DesiredFunction],
        builds: Mapping[str, str],
        notices: tuple[Notice, ...],
        used: Iterable[str],
    ) -> Self:
        """Return what is kept of a result; ``builds`` has the key of each function's build by slug."""
        kept = tuple(
            KeptFunction(
                str(function.content[CODE]),
                builds.get(function.slug),
                function.code if function.slug in builds else None,
                function.style,
                function.compiled,
                function.packages,
            )
            for function in functions
        )
        return cls(key, kept, notices, tuple(sorted(used)))

    @property
    def builds(self) -> Iterable[str]:
        """The keys of the builds in it."""
        return (kept.build for kept in self.functions if kept.build is not None)

    def encoded(self) -> bytes | None:
        """Return the result as JSON, or None if it is too large, or has text that JSON cannot hold."""
        if sum(len(kept.code) for kept in self.functions if kept.code is not None) > MAX_CODE:
            return None
        try:
            return msgspec.json.encode(self)
        except UnicodeEncodeError:  # half of a surrogate pair, in a file's name or in code
            return None

    @classmethod
    def decoded(cls, text: bytes, key: str) -> Self | None:
        """Return the result of this key from its JSON, or None if it is another one's, or no result."""
        try:
            result = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        return result if result.key == key else None
