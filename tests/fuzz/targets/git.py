r"""Commits and trees of a git repository: an archive; a name is ``MODE PATH``, and ``commit`` is the commit's own text.

The objects are written as git stores them, by ourselves, since git would refuse most of these. In the commit's text
``{tree}`` is the tree's id.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from kapso_sync.cli.summary import revision_line
from kapso_sync.errors import KapsoSyncError
from kapso_sync.sources.command import Git, GitCredentials
from kapso_sync.sources.git import GitSource
from kapso_sync.sources.spec import parse_source
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw
from tests.fuzz.kit import check_outside, print_error, printed, workspace
from tests.fuzz.target import Target
from tests.fuzz.targets.folder import check_snapshot

PLAIN = (
    b"tree {tree}\nauthor Ada <ada@example.com> 1767225600 +0000\n"
    b"committer Ada <ada@example.com> 1767225600 +0000\n\nAdd greet\n"
)
DEADLINE = 15.0


@dataclass
class _Tree:
    """The entries of a tree in the order in which they were given: mode, name, and what is there."""

    entries: list[tuple[bytes, bytes, bytes | _Tree]] = field(default_factory=list)

    def add(self, mode: bytes, names: list[bytes], content: bytes) -> None:
        first, *rest = names
        if not rest:
            self.entries.append((mode, first, content))
            return
        found = next((below for _, name, below in self.entries if name == first and isinstance(below, _Tree)), None)
        if found is None:
            found = _Tree()
            self.entries.append((b"40000", first, found))
        found.add(mode, rest, content)


def run(data: bytes) -> None:
    """Fetch the repository as the program does, read it, and print what it says of itself."""
    with workspace() as root:
        repository = root / "repository"
        write_repository(repository, unpack(data))
        for path in (None, "functions"):
            try:
                source = _source(repository, root / "home", path)
                snapshot = asyncio.run(source.fetch())
            except KapsoSyncError as error:
                print_error(error)
                continue
            check_snapshot(snapshot)
            printed(lambda console, r=snapshot.revision: console.line(revision_line(r)), lines=1)  # type: ignore[misc]
        check_outside(root)


def _source(repository: Path, home: Path, path: str | None) -> GitSource:
    home.mkdir(exist_ok=True)
    spec = parse_source(repository.as_uri(), branch=None, ref=None, path=path, cwd=repository)
    git = Git(protocol=spec.protocol, location=spec.location, home=home, credentials=GitCredentials(), deadline=DEADLINE)
    return GitSource(spec, home / "mirror", git, lambda _: None)


def write_repository(folder: Path, sections: list[tuple[str, bytes]]) -> None:
    """Write a bare repository whose main branch is the commit."""
    objects = folder / "objects"
    (folder / "refs" / "heads").mkdir(parents=True)
    objects.mkdir()
    (folder / "HEAD").write_bytes(b"ref: refs/heads/main\n")
    (folder / "config").write_bytes(b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    tree, commit = _Tree(), PLAIN
    for name, content in sections[:100]:
        mode, _, path = name.partition(" ")
        if name == "commit":
            commit = content
        elif path:
            names = os.fsencode(path.replace("\0", "")).split(b"/") if "40000" not in mode else [os.fsencode(path)]
            tree.add(os.fsencode(mode), names, content)
    top = _write_tree(objects, tree)
    commit_id = _write(objects, b"commit", commit.replace(b"{tree}", top.encode()))
    (folder / "refs" / "heads" / "main").write_text(f"{commit_id}\n")


def _write_tree(objects: Path, tree: _Tree) -> str:
    body = b""
    for mode, name, content in tree.entries:
        body += mode + b" " + name + b"\0" + _entry(objects, mode, content)
    return _write(objects, b"tree", body)


def _entry(objects: Path, mode: bytes, content: bytes | _Tree) -> bytes:
    if isinstance(content, _Tree):
        return bytes.fromhex(_write_tree(objects, content))
    if mode.lstrip(b"0") == b"160000":
        return hashlib.sha1(content, usedforsecurity=False).digest()
    kind = b"tree" if mode.lstrip(b"0") == b"40000" else b"blob"
    return bytes.fromhex(
        _write(objects, kind, b"" if kind == b"tree" else content.removesuffix(b"\n") if mode == b"120000" else content)
    )


def _write(objects: Path, kind: bytes, body: bytes) -> str:
    whole = kind + b" " + str(len(body)).encode() + b"\0" + body
    name = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
    path = objects / name[:2] / name[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(whole, 1))
    return name


MODES = ("100644", "100755", "120000", "160000", "100664", "040000", "40000", "0100644", "100600", "0", "999999", "170000", "")
PATHS = (
    "greet.js",
    "functions/greet.js",
    "functions/manifest.yaml",
    "functions",
    "a/b/c.js",
    "..",
    "../canary.js",
    ".git/config",
    ".GIT/x.js",
    "git~1/x.js",
    ".gitmodules",
    "",
    ".",
    "\udcff.js",
    "new\nline.js",
    "\u202ea.js",
    "É.js",
    "e\u0301.js",
    "x" * 250 + ".js",
    ".kapso/remote-map.json",
    ".kapso/project.json",
    ".kapso",
    "a//b.js",
    "CON.js",
)
COMMITS = (
    PLAIN,
    PLAIN.replace(b"1767225600 +0000", b"99999999999999 +0000"),
    PLAIN.replace(b"1767225600 +0000", b"-1 -9999"),
    PLAIN.replace(b"1767225600 +0000", b"1767225600 +000000000"),
    PLAIN.replace(b"Ada <ada@example.com>", b"\x1b[31mAda\x1b[0m <>"),
    PLAIN.replace(b"Ada <ada@example.com>", b"<>"),
    PLAIN.replace(b"Ada <ada@example.com>", b"\xe2\x80\xaeAda <a"),
    PLAIN.replace(b"\n\nAdd greet\n", b"\n\n"),
    PLAIN.replace(b"\n\nAdd greet\n", b"\nencoding utf-16\n\nAdd\xff"),
    PLAIN.replace(b"\n\nAdd greet\n", b"\nencoding nonsense\n\nAdd\xff"),
    PLAIN.replace(b"\n\nAdd greet\n", b"\ngpgsig -----BEGIN\n -----END\n\nAdd"),
    PLAIN.replace(b"Add greet", b"\r\x1b]0;x\x07::error::forged\n::error::forged"),
    PLAIN.replace(b"Add greet", b"\xe2\x80\xa8\xc2\x85" + b"x" * 5000),
    PLAIN.replace(b"author", b"parent 0000000000000000000000000000000000000000\nauthor"),
    PLAIN.replace(b"author", b"mergetag object x\nauthor"),
    b"tree {tree}\n",
    b"",
)
FILES = (
    b"async function handler() {}\n",
    b"../canary.js",
    b"/etc/hostname",
    b"version: 1\nfunctions:\n  greet:\n",
    b'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c id\n',
    b"\xff",
    b"",
    b'{"functions": {}}',
)


def make(draw: Draw) -> bytes:
    """A commit of a few files with odd modes and names; most are what git's checks let through."""
    plain = draw.chance(0.6)
    files: dict[str, bytes] = {}
    if draw.chance(0.8):
        files["100644 functions/manifest.yaml"] = FILES[3]
    for _ in range(draw.random.randint(0, 5)):
        mode = draw.pick(MODES[:4] if plain else MODES)
        files[f"{mode} {draw.pick(PATHS)}"] = draw.pick(FILES)
    if draw.chance(0.5):
        files["commit"] = draw.pick(COMMITS)
    return pack(files)


TOKENS = (
    *(mode.encode() for mode in MODES),
    *(os.fsencode(path) for path in PATHS),
    b"author ",
    b"committer ",
    b"encoding ",
    b"{tree}",
    b"\n\n",
)
TARGETS = (Target("git", run, make, TOKENS, cpu=15.0, share=2.0),)
