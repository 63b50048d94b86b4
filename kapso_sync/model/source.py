"""Defines a snapshot: one revision of a functions folder, complete and unchanging."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime

from kapso_sync.dataclass import dataclass

CODE_LIMIT = 1024 * 1024
"""Maximum size of a code file, in bytes."""

MANIFEST_LIMIT = 256 * 1024
"""Maximum size of a manifest or a ``function.yaml``, in bytes."""

CONFIG_LIMIT = 256 * 1024
"""Maximum size of a configuration file above the functions folder, in bytes."""

CONFIG_COUNT_LIMIT = 20
"""Maximum number of configuration files above the functions folder; the nearest are read."""

LOCK_LIMIT = 8 * 1024 * 1024
"""Maximum size of a `LOCK_FILE`, in bytes."""

FILE_COUNT_LIMIT = 10_000
"""Maximum number of files below the functions folder."""

DEFAULT_FOLDER = "functions"
"""The functions folder of a repository, where there is one."""

MANIFEST_NAMES = ("manifest.yaml", "manifest.yml", "manifest.json")
FUNCTION_FILE = "function.yaml"
LOCK_FILE = "package-lock.json"
REMOTE_MAP = ".kapso/remote-map.json"
PROJECT_FILE = ".kapso/project.json"
"""The Kapso CLI keeps both files below the repository's root: `REMOTE_MAP` has functions' ids, `PROJECT_FILE` the project."""

NOT_FOLLOWED = frozenset({"node_modules", "__pycache__"})
"""Names of folders that are not read; nor are those whose name begins with a dot."""

CODE_SUFFIXES = (".js", ".ts", ".mjs", ".mts", ".cjs", ".cts", ".jsx", ".tsx")
TEXT_SUFFIXES = (".json", ".txt", ".md", ".html", ".css", ".svg", ".sql", ".graphql", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Revision:
    """The revision of the source that was read.

    ``id`` is a commit id for git and for a folder that git-sync published, and ``folder:`` plus a digest of what was read for
    any other folder. ``described`` is the output of ``git describe`` for a work tree's folder. The rest is known only if the
    source is git; ``signer`` is the fingerprint of the key whose signature was verified, if one was wanted.
    """

    id: str
    described: str | None = None
    subject: str | None = None
    author: str | None = None
    committed_at: datetime | None = None
    signer: str | None = None

    @property
    def of_folder(self) -> bool:
        """Return whether it is the revision of a folder, which may be written to, and not a commit."""
        return self.id.startswith("folder:")

    @property
    def short(self) -> str:
        """A few characters that a person can compare."""
        kind, _, digest = self.id.rpartition(":")
        return f"{kind}:{digest[:12]}" if kind else digest[:12]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file below the functions folder; ``path`` is relative to it, with forward slashes.

    ``content`` is None when the file must not or could not be read; ``problem`` then says why, in words that
    finish the sentence "FILE …", such as ``is 3.1 MiB; the limit for code is 1 MiB``.
    """

    path: str
    content: bytes | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Above:
    """The configuration files in the folders above a functions folder, which decide how its code is built.

    ``home`` is the path of the functions folder below the root of the repository, or of the folder that is the source. The
    paths of ``files`` are relative to the functions folder, such as ``../tsconfig.json``; none is above that root.
    """

    home: str = ""
    files: Mapping[str, SourceFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision of a functions folder. ``source`` is fit to be shown: it carries no credentials.

    ``path`` is the functions folder inside the source, with forward slashes, empty for the root. ``remote_map`` is the content
    of the repository's `REMOTE_MAP`, a hint that does not count as part of the revision, and ``project_file`` that of its
    `PROJECT_FILE`, which says which project the functions belong to. ``lock_files`` holds each `LOCK_FILE` above the functions
    folder of a git source, by the path of its folder below the repository's root; those inside are among ``files``. ``unread``
    are paths of files of other kinds, which are no part of the revision: an entry that names one must not be told that it does
    not exist. ``above`` are the files above the functions folder that configure builds; they count as part of the revision.
    """

    source: str
    revision: Revision
    path: str = ""
    files: Mapping[str, SourceFile] = field(default_factory=dict)
    remote_map: bytes | None = field(default=None, repr=False)
    project_file: bytes | None = field(default=None, repr=False)
    lock_files: Mapping[str, SourceFile] = field(default_factory=dict)
    unread: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    above: Above = field(default_factory=Above)

    @property
    def digest(self) -> str:
        """A digest of everything that was read, with the revision, and with what does not count as part of it."""
        read = self.revision.id if self.revision.of_folder else folder_digest({**self.files, **self.above.files})
        digest = hashlib.sha256(read.encode())
        for part in (self.revision.id, self.source, self.path, self.above.home, *sorted(self.unread)):
            digest.update(f"{len(part)}\0{part}".encode("utf-8", "surrogateescape"))
        for kept in (self.remote_map, self.project_file):
            digest.update(b"-" if kept is None else hashlib.sha256(kept).digest())
        digest.update(folder_digest(self.lock_files).encode())
        return digest.hexdigest()


def refused_parent(path: str, files: Mapping[str, SourceFile]) -> SourceFile | None:
    """Return the submodule or link above a path that is not followed, or None: a path below it is only absent for that."""
    parts = path.split("/")
    for end in range(1, len(parts)):
        file = files.get("/".join(parts[:end]))
        if file is not None and file.content is None:
            return file
    return None


def folder_digest(files: Mapping[str, SourceFile]) -> str:
    """Return ``folder:`` plus sha256 over the names and contents (or problems) of all files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        file = files[path]
        body = file.content if file.content is not None else (file.problem or "").encode()
        kind = "" if file.content is not None else "-"  # else a file could say what is wrong with another one
        digest.update(f"{path}\0{kind}{len(body)}\0".encode("utf-8", "surrogateescape"))
        digest.update(body)
    return f"folder:{digest.hexdigest()}"
