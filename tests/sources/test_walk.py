"""Trees without an end, in a few kilobytes: a walk is given up, in time, and says why."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kapso_sync.errors import InvalidSource
from kapso_sync.sources.walk import WalkBudget, WalkLimits
from tests.program import git
from tests.sources.repositories import Reader

LIMITS = WalkLimits(files=3, folders=3, entries=5, depth=2, folder=10, size=100, seconds=7.0)


def budget(monotonic: Callable[[], float] = lambda: 0.0) -> WalkBudget:
    return WalkBudget("flows", monotonic, LIMITS)


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda walk: [walk.look() for _ in range(5)], None),
        (lambda walk: [walk.look() for _ in range(6)], "flows holds more than 5 files and folders"),
        (lambda walk: [walk.take_file() for _ in range(3)], None),
        (lambda walk: [walk.take_file() for _ in range(4)], "flows holds more than 3 files of code and text"),
        (lambda walk: (walk.enter("", 10), walk.enter("a/"), walk.enter("b/")), None),
        (lambda walk: [walk.enter("") for _ in range(4)], "flows holds more than 3 folders"),
        (lambda walk: walk.enter("a/b/"), "flows has folders more than 2 deep"),
        (lambda walk: walk.enter("a/", 11), "flows has a folder whose list is longer than 0 MiB"),
        (lambda walk: (walk.take_content(60), walk.take_content(40)), None),
        (lambda walk: (walk.take_content(60), walk.take_content(41)), "flows holds more than 0 MiB of code and text"),
    ],
)
def test_each_limit_ends_a_walk_with_its_reason(use: Callable[[WalkBudget], object], said: str | None) -> None:
    """What is at the limit is walked; the hint says what to do."""
    walk = budget()
    if said is None:
        use(walk)
        return
    with pytest.raises(InvalidSource) as refused:
        use(walk)
    assert refused.value.message == said
    assert "--path" in str(refused.value.hint)


def test_a_slow_walk_ends_at_its_deadline() -> None:
    """Whatever it looks at, and however long each entry takes."""
    seconds = itertools.count(0.0, 2.0)
    walk = budget(lambda: next(seconds))
    walk.look()
    walk.look()
    walk.look()
    with pytest.raises(InvalidSource, match="could not be read within 7 s"):
        walk.look()


def bomb(folder: Path, levels: int, width: int) -> Path:
    """Make a bare repository whose tree has ``width`` equal folders on each of the levels: one object for each level."""
    repository = folder / "bomb.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(repository))

    def made(command: str, text: str) -> str:
        ran = subprocess.run(
            ["git", "-C", str(repository), *command.split()], input=text.encode(), capture_output=True, check=True
        )
        return ran.stdout.decode().strip()

    blob = made("hash-object -w --stdin", "export const one = 1;\n")
    tree = made("mktree", f"100644 blob {blob}\tcode.js\n")
    for _ in range(levels):
        tree = made("mktree", "".join(f"040000 tree {tree}\td{number}\n" for number in range(width)))
    commit = made("-c user.name=Mal -c user.email=mal@example.com commit-tree -F - " + tree, "Boom\n")
    git(repository, "update-ref", "refs/heads/main", commit)
    return repository


async def test_a_tree_bomb_is_refused(tmp_path: Path, reader: Reader) -> None:
    """Ten levels of ten equal folders; with three levels, a thousand files, it is read: the control."""
    small = await reader.open(str(bomb(tmp_path, 3, 10))).fetch()
    assert len(small.files) == 1000
    (tmp_path / "bomb.git").rename(tmp_path / "small.git")
    with pytest.raises(InvalidSource, match="holds more than"):
        await reader.open(str(bomb(tmp_path, 10, 10))).fetch()


async def test_an_empty_tree_bomb_is_refused_too(tmp_path: Path, reader: Reader) -> None:
    """Folders alone: nothing in them is ever read."""
    repository = bomb(tmp_path, 6, 20)
    with pytest.raises(InvalidSource, match="holds more than"):
        await reader.open(str(repository)).fetch()
