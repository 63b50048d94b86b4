"""What several targets need: a folder with a canary beside it, printing to a pipe and to a terminal, and plain values."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from kapso_sync.build import Builder, Bundler, Esbuild, Target
from kapso_sync.cli.console import Console
from kapso_sync.cli.runner import print_problems
from kapso_sync.errors import KapsoSyncError, ManifestInvalid
from kapso_sync.manifest.checking import check
from kapso_sync.manifest.document import read_document
from kapso_sync.model.desired import Desired
from kapso_sync.model.source import Revision, Snapshot, SourceFile
from kapso_sync.reconcile.desired import DesiredBuilder
from kapso_sync.tools import ToolPlaces
from tests.fuzz.promises import CANARY, BrokenPromise, check_no_canary, check_printed
from tests.program import Terminal

_Model = TypeVar("_Model")

MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""

WIDTHS = ("", "37")
"""What COLUMNS says; a terminal of few columns breaks lines in the most places."""

NO_TOOLS = ToolPlaces(None, [], [])


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder ``root`` that canaries lie around: beside it, above it, and in folders that its names lead to."""
    outside = Path(tempfile.mkdtemp(prefix="kapso-sync-fuzz-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        root = outside / "root"
        root.mkdir()
        for name in ("canary", "canary.js", "manifest.yaml", "secret.env", "rootx"):
            (outside / name).write_text(f"A={CANARY}\n", encoding="utf-8")
        yield root
    finally:
        shutil.rmtree(outside, ignore_errors=True)


def check_outside(root: Path) -> None:
    """Raise `BrokenPromise` if anything beside the root was written, or is new."""
    names = {path.name for path in root.parent.iterdir()}
    if names != {"root", "canary", "canary.js", "manifest.yaml", "secret.env", "rootx"}:
        raise BrokenPromise(f"writes beside the root: {sorted(names)}")
    for path in root.parent.iterdir():
        if path != root and path.read_text(encoding="utf-8") != f"A={CANARY}\n":
            raise BrokenPromise(f"writes {path.name} beside the root")


def printed(show: Callable[[Console], None], *, lines: int | None = None) -> None:
    """Print to a pipe, and to terminals, and check each; ``lines`` is how many a pipe must get."""
    pipe = io.StringIO()
    show(Console(pipe, {}))
    check_printed(pipe.getvalue(), lines=lines)
    for width in WIDTHS:
        terminal = Terminal()
        show(Console(terminal, {"COLUMNS": width, "NO_COLOR": "1"}))
        text = terminal.getvalue()
        check_no_canary(text)
        check_printed("\n".join(line.lstrip() and f".{line}" for line in text.split("\n")))


def print_error(error: KapsoSyncError) -> None:
    """Print an error as the command line does."""
    if isinstance(error, ManifestInvalid):
        printed(lambda console: print_problems(console, error.problems))
    else:
        printed(lambda console: console.error(error.message, error.hint), lines=1 + bool(error.hint))


def snapshot_of(files: Mapping[str, bytes], **more: bytes | None) -> Snapshot:
    """A snapshot with these files."""
    read = {path: SourceFile(path, content) for path, content in files.items()}
    return Snapshot("test", Revision("c0ffee"), "", read, more.get("remote_map"), more.get("project_file"))


def builder_without_tools(environment: str | None = None) -> DesiredBuilder:
    """What makes desired functions, without esbuild: what must be built is blocked."""
    return DesiredBuilder(Builder(Target(), Bundler(Esbuild(NO_TOOLS), 10.0)), environment=environment)


def print_desired(desired: Desired) -> None:
    """Print what `validate` says of a source that can be planned."""
    problems = [problem for function in desired.unusable for problem in function.problems]
    printed(lambda console: print_problems(console, problems))

    def warn(console: Console) -> None:
        for notice in desired.notices:
            console.warning(f"{notice.location}: {notice.message}")

    printed(warn, lines=len(desired.notices))


def model_of(model: type[_Model], text: bytes) -> _Model | None:
    """Return a part of a manifest as the model that it is, or None if something is wrong with it."""
    document = read_document("manifest.yaml", text)
    found = check(document, model) if not document.problems else None
    return found if not document.problems else None
