"""Functions folders on disk: an archive; names may hold any byte, and a content may be a link, a FIFO or a folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import ReconcilerState
from kapso_sync.sources.folder import FolderSource
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw
from tests.fuzz.kit import builder_without_tools, check_outside, print_desired, print_error, workspace
from tests.fuzz.promises import BrokenPromise, check_no_canary
from tests.fuzz.target import Target

MAX_FILES = 200


def run(data: bytes) -> None:
    """Read the folder, plan from it, and see that nothing of it came from outside."""
    with workspace() as root:
        for name, content in unpack(data)[:MAX_FILES]:
            place(root, name, content)
        for path in (None, "functions", "../root", "up"):
            source = FolderSource(root, path, top=root if path is None else None, emit=lambda _: None)
            try:
                snapshot = asyncio.run(source.fetch())
                asyncio.run(source.moved())
            except KapsoSyncError as error:
                print_error(error)
                continue
            check_snapshot(snapshot)
        check_outside(root)


def check_snapshot(snapshot: Snapshot) -> None:
    """Raise `BrokenPromise` for a snapshot that leads out of its root or holds something from outside, and use it."""
    for path, file in snapshot.files.items():
        if path.startswith("/") or {"..", ".", ""} & set(path.split("/")):
            raise BrokenPromise(f"a snapshot holds the path {path!r}")
        check_no_canary((file.content or b"").decode("utf-8", "replace"))
    for content in (snapshot.remote_map, snapshot.project_file):
        check_no_canary((content or b"").decode("utf-8", "replace"))
    try:
        desired = asyncio.run(builder_without_tools()(snapshot, ReconcilerState()))
    except KapsoSyncError as error:
        print_error(error)
        return
    print_desired(desired)


def place(root: Path, name: str, content: bytes) -> None:
    """Write a file, a link, a FIFO or an unreadable file below the root, as its content says; what cannot be is left out."""
    path = os.path.normpath(os.path.join(root, name.replace("\0", "")))  # noqa: PTH118 - a name that may not be text
    if not path.startswith(f"{root}{os.sep}") or Path(path).parent.resolve() != Path(path).parent:
        return
    kind, _, what = content.partition(b" ")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - the same
        if kind == b"->":
            os.symlink(what.strip(b"\n").replace(b"\0", b""), os.fsencode(path))  # noqa: PTH211
        elif content == b"fifo\n":
            os.mkfifo(path)
        elif content == b"unreadable\n":
            Path(path).touch(mode=0)
        else:
            with open(path, "xb") as file:  # noqa: PTH123 - not through a link of the same name
                file.write(content)
    except OSError:
        return


MANIFESTS = (
    b"version: 1\nfunctions:\n  greet:\n  out: {file: out.js}\n  deep: {file: a/b/c.js}\n",
    b"version: 1\nfunctions:\n  greet: {file: ../canary.js}\n  up: {file: up/canary.js}\n  link: {file: link.js}\n",
    b"-> ../manifest.yaml\n",
    b"-> manifest.yml\n",
    b"fifo\n",
)
NAMES = (
    "greet.js",
    "out.js",
    "link.js",
    "up",
    "functions/greet.js",
    "functions",
    "functions/manifest.yaml",
    "a/b/c.js",
    "a/function.yaml",
    "a/index.js",
    ".kapso/remote-map.json",
    ".kapso/project.json",
    ".hidden.js",
    "node_modules/x.js",
    "\udcff.js",
    "e\u0301.js",
    "É.js",
    "new\nline.js",
    "tab\t.ts",
    "x" * 200 + ".js",
    "Manifest.yaml",
    "loop.js",
)
CONTENTS = (
    b"async function handler() { return new Response('a'); }\n",
    b"-> ../canary.js\n",
    b"-> ../canary\n",
    b"-> ..\n",
    b"-> .\n",
    b"-> loop.js\n",
    b"-> /etc/hostname\n",
    b"-> /dev/zero\n",
    b"-> greet.js\n",
    b"-> a\n",
    b"-> ../rootx\n",
    b"fifo\n",
    b"unreadable\n",
    b"\xff\xfe",
    b"",
    b"slug: greet\n",
    b'{"functions": {"greet": {"id": "i", "files": {"a/index.js": "0"}}}}\n',
)


def make(draw: Draw) -> bytes:
    """A few files with odd names and kinds."""
    files = {"manifest.yaml": draw.pick(MANIFESTS)} if draw.chance(0.7) else {}
    for _ in range(draw.random.randint(1, 8)):
        files[draw.pick(NAMES)] = draw.pick(CONTENTS)
    return pack(files)


TOKENS = (b"-> ", b"../", b"canary", b"fifo", b"/", b".js", b"manifest.yaml", b"\\xff", b"\\x0a", b"up", b"loop.js", b"..")
TARGETS = (Target("folder", run, make, TOKENS),)
