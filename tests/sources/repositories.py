"""Real repositories to read from, and the sources that read them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kapso_sync.model import events
from kapso_sync.model.source import Snapshot
from kapso_sync.network import Network
from kapso_sync.sources.command import Git, GitCredentials
from kapso_sync.sources.folder import FolderSource
from kapso_sync.sources.git import GitSource
from kapso_sync.sources.signatures import SignatureVerifier
from kapso_sync.sources.spec import SourceKind, parse_source

SECRET = "s3cret-t0ken-of-ours"
MANIFEST = "version: 1\nfunctions: {}\n"
CODE = "async function handler() { return new Response('a'); }\n"


class Repository:
    """A git repository in a folder, written by the git that is installed."""

    def __init__(self, folder: Path, *, bare: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", *(["--bare"] if bare else []))

    @property
    def url(self) -> str:
        """The repository as a URL."""
        return self.folder.as_uri()

    def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run git in the repository, hand it some input, and return what it printed."""
        done = subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True, input=stdin)
        return done.stdout.decode().strip()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Write files into the work tree."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, files: Mapping[str, str | bytes] | None = None, message: str = "change") -> str:
        """Write and commit files; return the commit's id."""
        self.write(files if files is not None else {"manifest.yaml": MANIFEST})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--allow-empty-message", "--message", message)
        return self.git("rev-parse", "HEAD")

    def commit_tree(self, *entries: tuple[str, bytes, str], message: str = "odd") -> str:
        """Commit a tree of (mode, name, object id) that no work tree could hold; main points to it."""
        body = b"".join(f"{mode} ".encode() + name + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries)
        tree = self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=body)
        commit = self.git("commit-tree", tree, "-m", message)
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def blob(self, content: bytes) -> str:
        """Store a blob and return its id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)


@dataclass
class Reader:
    """Opens sources the way the program does, and notes their events."""

    folder: Path
    credentials: GitCredentials = field(default_factory=GitCredentials)
    deadline: float = 20.0
    network: Network = field(default_factory=Network)
    monotonic: Callable[[], float] = time.monotonic
    seen: list[events.Event] = field(default_factory=list)
    verify_file: Path | None = None

    @property
    def mirror(self) -> Path:
        """Where a git source keeps its mirror."""
        return self.folder / "mirror"

    def git(self, location: str, protocol: str = "file") -> Git:
        """Open git for one remote."""
        return Git(
            protocol=protocol,
            location=location,
            home=self.folder,
            credentials=self.credentials,
            deadline=self.deadline,
            network=self.network,
        )

    def open(
        self, text: str | Path, *, branch: str | None = None, ref: str | None = None, path: str | None = None
    ) -> GitSource:
        """Open what a SOURCE means, which must be a repository."""
        spec = parse_source(str(text), branch=branch, ref=ref, path=path, cwd=Path.cwd())
        assert spec.kind is SourceKind.GIT
        git = self.git(spec.location, spec.protocol)
        return GitSource(spec, self.mirror, git, self.seen.append, self.verifier(), monotonic=self.monotonic)

    def verifier(self) -> SignatureVerifier | None:
        """Judge signatures by the keys in `verify_file`, if there is one."""
        if self.verify_file is None:
            return None
        return SignatureVerifier(self.verify_file, self.folder / "verify", path=os.environ["PATH"])

    def open_folder(self, folder: Path, path: str | None = None, *, work_tree: bool = False) -> FolderSource:
        """Open a folder."""
        return FolderSource(folder, path, top=folder if work_tree else None, emit=self.seen.append)

    def names(self) -> list[str]:
        """Return the names of the events so far."""
        return [event.name for event in self.seen]


def contents(snapshot: Snapshot) -> dict[str, bytes | None]:
    """What each file of a snapshot holds."""
    return {path: file.content for path, file in snapshot.files.items()}


def problems(snapshot: Snapshot) -> dict[str, str]:
    """Why files were not read."""
    return {path: file.problem for path, file in snapshot.files.items() if file.problem is not None}


def command_lines() -> list[bytes]:
    """The command line of every process that this machine shows us, our own left out."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()):
            try:
                lines.append((process / "cmdline").read_bytes())
            except OSError:
                continue
    return lines


def children() -> set[str]:
    """The ids of child processes that this process started and that still exist, zombies included."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if parent == str(os.getpid()):
            found.add(process.name)
    return found
