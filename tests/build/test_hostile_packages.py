"""Packages of a folder that somebody hostile made: they are copied within limits, and nothing else of the machine is read."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from kapso_sync.build import FolderPackages, PackageCopies
from kapso_sync.build.esbuild_run import MAX_MESSAGES, run_esbuild
from kapso_sync.build.package_tree import MAX_DEPTH
from kapso_sync.build.packages import MAX_FILE_BYTES
from kapso_sync.build.space import Space
from kapso_sync.errors import Problem
from kapso_sync.model.desired import DesiredFunction
from tests.build.test_packages import package
from tests.build.workbench import ESBUILD, SCRIPT, Workbench, answers, build, entry, good, needs_esbuild, needs_node

CANARY = "TOP_SECRET_OF_THIS_MACHINE TOP_SECRET_TOO"
CODE = "import { x } from 'evil'; export default () => new Response(String(x));"

pytestmark = needs_esbuild


def refusal(root: Path, code: str = CODE) -> Problem:
    """Why a function that imports the package `evil` is refused; the canary is in no part of that."""
    made = build({"a.ts": code}, "a.ts", packages=FolderPackages(root, root))
    assert CANARY not in repr(made)
    assert "TOP_SECRET" not in repr(made)
    assert not isinstance(made, DesiredFunction), made
    return made.problems[0]


def outside(tmp_path: Path, name: str = "token") -> Path:
    """A file of the machine, which is not code."""
    place = tmp_path / "etc"
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"{CANARY}\n")
    return place / name


def by_link(home: Path, secret: Path) -> None:
    (home / "leak.json").symlink_to(secret)
    (home / "main.js").write_text("export { default as x } from './leak.json'")


def by_code_link(home: Path, secret: Path) -> None:
    (home / "main.js").unlink()
    (home / "main.js").symlink_to(secret)


def by_link_chain(home: Path, secret: Path) -> None:
    (home / "one.json").symlink_to(secret)
    (home / "two.json").symlink_to("one.json")
    (home / "main.js").write_text("export { default as x } from './two.json'")


def by_folder_link(home: Path, secret: Path) -> None:
    (home / "data").symlink_to(secret.parent, target_is_directory=True)
    (home / "main.js").write_text("export { default as x } from './data/token'")


def by_main(home: Path, secret: Path) -> None:
    (home / "package.json").write_text(json.dumps({"main": os.path.relpath(secret, home)}))


def by_linked_main(home: Path, secret: Path) -> None:
    (home / "leak.js").symlink_to(secret)
    (home / "package.json").write_text(json.dumps({"main": "leak.js"}))


def by_exports(home: Path, secret: Path) -> None:
    (home / "leak.js").symlink_to(secret)
    (home / "package.json").write_text(json.dumps({"exports": {".": "./leak.js"}}))


def by_browser(home: Path, secret: Path) -> None:
    (home / "leak.json").symlink_to(secret)
    about = {"main": "main.js", "browser": {"./main.js": "./leak.json", "./other.js": str(secret)}}
    (home / "package.json").write_text(json.dumps(about))


def by_package_json(home: Path, secret: Path) -> None:
    (home / "package.json").unlink()
    (home / "package.json").symlink_to(secret)
    (home / "main.js").write_text("export { default as x } from './package.json'")


def by_absolute_path(home: Path, secret: Path) -> None:
    (home / "main.js").write_text(f"export {{ default as x }} from {json.dumps(str(secret))}")


def by_escaped_path(home: Path, secret: Path) -> None:
    path = "".join(f"\\u{ord(char):04x}" for char in str(secret))
    (home / "main.js").write_text(f"export {{ default as x }} from '{path}'")


def by_parent_path(home: Path, secret: Path) -> None:
    (home / "main.js").write_text(f"export {{ default as x }} from '{'../' * 40}{secret.relative_to('/')}'")


def by_tsconfig(home: Path, secret: Path) -> None:
    (home / "leak.json").symlink_to(secret)
    (home / "tsconfig.json").write_text(json.dumps({"extends": ["./leak.json", str(secret)]}))
    (home / "main.js").write_text("export { default as x } from './leak.json'")


WAYS: list[Callable[[Path, Path], None]] = [
    by_link,
    by_code_link,
    by_link_chain,
    by_folder_link,
    by_main,
    by_linked_main,
    by_exports,
    by_browser,
    by_package_json,
    by_absolute_path,
    by_escaped_path,
    by_parent_path,
    by_tsconfig,
]


@pytest.mark.parametrize("name", ["token", "token.json", "token.js"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_way_leads_from_a_package_to_a_file_of_the_machine(
    tmp_path: Path, way: Callable[[Path, Path], None], name: str
) -> None:
    """Links, link chains, fields of package.json and paths: each is refused, and no text of the file is in what is said."""
    root = tmp_path / "repository"
    way(package(root, "evil", "export const x = 1;"), outside(tmp_path, name))
    refusal(root)


def test_a_secret_beside_the_packages_is_no_part_of_a_package(tmp_path: Path) -> None:
    """A checkout has hidden files, such as .env and git's own, that somebody who may only push must not reach by a link."""
    home = package(tmp_path, "evil", "export { default as x } from './leak.json'")
    (tmp_path / ".env").write_text(CANARY)
    (home / "leak.json").symlink_to(tmp_path / ".env")
    assert "leads out of the source" in refusal(tmp_path).message
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index.js").write_text(f"export const x = '{CANARY}'")
    (tmp_path / "node_modules" / "hidden").symlink_to(tmp_path / ".git")
    assert "not installed" in refusal(tmp_path, CODE.replace("evil", "hidden")).message


def test_a_tsconfig_that_extends_a_link_is_not_read(tmp_path: Path) -> None:
    """That of the functions folder is read by us, and its options alone reach esbuild."""
    secret = outside(tmp_path, "base.json")
    texts = {"a.ts": "export default () => new Response('x');", "tsconfig.json": json.dumps({"extends": str(secret)})}
    made = build(texts, "a.ts")
    assert isinstance(made, DesiredFunction)
    assert CANARY not in repr(made)


@pytest.mark.parametrize("text", ["from" + " " * 100_000, "import(" + "\n" * 100_000, "require/* " * 10_000])
def test_a_file_of_white_space_is_looked_through_once(tmp_path: Path, text: str) -> None:
    """With the square of its length, no other thread would run for hours: no probe answered, no signal heeded."""
    package(tmp_path, "evil", f"export const x = 1; // {text}")
    started = time.process_time()
    assert isinstance(build({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path)), DesiredFunction)
    assert time.process_time() - started < 5.0


def test_a_file_that_is_too_large_is_named_with_the_limit(tmp_path: Path) -> None:
    """150 MB of code that a package has and a build reaches; what no build reaches is no reason to refuse."""
    home = package(tmp_path, "evil", "export { x } from './big.js'")
    with (home / "big.js").open("wb") as file:
        file.truncate(150_000_000)
    started = time.monotonic()
    found = refusal(tmp_path)
    assert "big.js` is larger than 16 MiB" in found.message
    assert found.location is not None
    assert (found.location.file, found.location.line) == ("a.ts", 1)
    assert time.monotonic() - started < 20
    (home / "main.js").write_text("export const x = 1;")
    assert "16" not in good({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path))


def test_a_large_json_file_is_named_with_the_limit(tmp_path: Path) -> None:
    """An empty JSON file would be a syntax error, which would be no help."""
    home = package(tmp_path, "evil", "export { default as x } from './big.json'")
    (home / "big.json").write_bytes(b"[" + b" " * MAX_FILE_BYTES + b"]")
    assert refusal(tmp_path).message == "it is larger than 16 MiB, the limit for a file of a package"


def test_a_pipe_in_a_package_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody ever writes to it, and esbuild would wait for somebody to write, until its time is up."""
    home = package(tmp_path, "evil", "export { x } from './pipe.js'")
    os.mkfifo(home / "pipe.js")
    assert "pipe.js` is not a regular file" in refusal(tmp_path).message


def test_a_device_is_not_read(tmp_path: Path) -> None:
    """/dev/zero never ends: the run ends at its limit of memory, or of time."""
    package(tmp_path, "evil", "export { x } from '/dev/zero'")
    bench = Workbench(deadline=20.0)
    made = bench.build({"a.ts": CODE}, entry("a.ts"), packages=FolderPackages(tmp_path, tmp_path))
    assert "it may take 1024 MiB of memory" in made.unusable[0].problems[0].message


def test_one_function_that_takes_all_memory_fails_alone(tmp_path: Path) -> None:
    """The others are built without it."""
    package(tmp_path, "evil", "export { x } from '/dev/zero'")
    texts = {"a.ts": CODE, "b.ts": "export default () => new Response('b');"}
    made = Workbench().build(texts, "a.ts", "b.ts", packages=FolderPackages(tmp_path, tmp_path))
    assert [function.slug for function in made.functions] == ["b"]
    assert [function.slug for function in made.unusable] == ["a"]


def test_packages_with_too_many_files_are_refused_before_they_fill_the_disk(tmp_path: Path) -> None:
    """With the number that there is room for; within that, ten thousand files are no reason to refuse."""
    home = package(tmp_path, "evil", "export const x = 1;")
    (home / "many").mkdir()
    for number in range(10_000):
        (home / "many" / f"{number}.d.ts").touch()
    assert isinstance(build({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path)), DesiredFunction)
    small = FolderPackages(tmp_path, tmp_path, lambda: Space(files=9_000))
    made = build({"a.ts": CODE}, "a.ts", packages=small)
    assert not isinstance(made, DesiredFunction)
    assert re.search(r"npm package `evil` does not fit .*too many files", made.problems[0].message)
    assert made.blocked


def test_packages_that_do_not_fit_together_are_built_one_after_another(tmp_path: Path) -> None:
    """What all of them take together is bounded, and no function suffers for its neighbours."""
    for name in ("one", "two", "three"):
        package(tmp_path, name, f"export const x = '{name}'; /*{'x' * 5000}*/")
    texts = {f"{name}.ts": CODE.replace("evil", name) for name in ("one", "two", "three")}
    packages = FolderPackages(tmp_path, tmp_path, lambda: Space(bytes=6000))
    assert len(Workbench().build(texts, *texts, packages=packages).functions) == 3


def test_folders_that_lie_too_deep_are_refused(tmp_path: Path) -> None:
    """Each file in them would be opened through all of them."""
    home = package(tmp_path, "evil", "export const x = 1;")
    home.joinpath(*["d"] * 500).mkdir(parents=True)
    assert f"has folders more than {MAX_DEPTH} deep" in refusal(tmp_path).message


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """To the folder itself, to one above it, and two folders to each other."""
    home = package(tmp_path, "evil", "export const x = 1;")
    for name in ("a", "b"):
        (home / name).mkdir()
    (home / "self").symlink_to(home)
    (home / "a" / "up").symlink_to("..")
    (home / "a" / "other").symlink_to("../b")
    (home / "b" / "other").symlink_to("../a")
    (home / "loop.js").symlink_to("loop.js")
    made = build({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path, lambda: Space(files=2000)))
    assert not isinstance(made, DesiredFunction)
    assert "deep" in made.problems[0].message
    (home / "b" / "other").unlink()
    assert isinstance(build({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path)), DesiredFunction)


def test_a_file_that_is_swapped_for_a_link_while_it_is_copied_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was listed, and before it is opened."""
    secret = outside(tmp_path, "token.js")
    root = tmp_path / "repository"
    home = package(root, "evil", "export const x = 1;")
    listed = os.scandir

    def swap(place: int) -> object:
        found = list(listed(place))
        if (home / "main.js").exists() and any(each.name == "main.js" for each in found):
            (home / "main.js").unlink()
            (home / "main.js").symlink_to(secret)
        return _Listed(found)

    monkeypatch.setattr(os, "scandir", swap)
    assert "swapped for a link" in refusal(root).message


class _Listed(list[object]):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""


def test_a_built_package_file_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Each pass compares the files that a build had with what is there now."""
    home = package(tmp_path, "evil", "export const x = 1;")
    bench = Workbench()
    assert bench.build({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path)).functions
    (home / "main.js").unlink()
    os.mkfifo(home / "main.js")
    (function,) = bench.build({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path)).unusable
    assert "is not a regular file" in function.problems[0].message


def test_esbuild_prints_a_bounded_number_of_messages(tmp_path: Path) -> None:
    """A megabyte of bad imports would be 20 MB of messages, and more."""
    (tmp_path / "a.js").write_text("".join(f"import './{number}.js';\n" for number in range(2 * MAX_MESSAGES)))
    running = run_esbuild(ESBUILD or Path(), ["a.js", "--bundle"], cwd=tmp_path, deadline=60)
    assert asyncio.run(running).errors.count(b"[ERROR]") == MAX_MESSAGES


@needs_node
def test_undeclared_shipped_and_sideways_imports_of_packages_work(tmp_path: Path) -> None:
    """What Node finds is found in the copy too: the nearest one of a name, hidden ones, and files of the neighbour."""
    package(tmp_path, "evil", "exports.x = [require('undeclared').u, require('.client/d').d, require('../side/s.js').s].join()")
    package(tmp_path, "undeclared", "exports.u = 'top'")
    package(tmp_path / "node_modules" / "evil", "undeclared", "exports.u = 'nested'")
    package(tmp_path, ".client", "")
    (tmp_path / "node_modules/.client/d.js").write_text("exports.d = 'hidden'")
    package(tmp_path, "side", "")
    (tmp_path / "node_modules/side/s.js").write_text("exports.s = 'sideways'")
    code = good({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path))
    assert answers([code], SCRIPT) == [(200, "nested,hidden,sideways")]


@needs_node
def test_packages_of_a_workspace_that_link_to_each_other_work(tmp_path: Path) -> None:
    """As npm and pnpm make them; each is one package, however many links lead to it."""
    for name, other in (("evil", "pair"), ("pair", "evil")):
        made = package(tmp_path / "packages" / name, "unused", "").parents[1]
        (made / "package.json").write_text(json.dumps({"name": name, "main": "src.ts"}))
        (made / "node_modules" / other).symlink_to(f"../../{other}")
    (tmp_path / "packages/evil/src.ts").write_text("import { y } from 'pair';\nexport const x: string = 'x' + y;")
    (tmp_path / "packages/pair/src.ts").write_text("import { x } from 'evil';\nexport const y = 'y', z = () => x;")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "evil").symlink_to("../packages/evil")
    code = good({"a.ts": CODE}, "a.ts", packages=FolderPackages(tmp_path, tmp_path))
    assert answers([code], SCRIPT) == [(200, "xy")]


def test_an_unchanged_package_is_copied_once_and_a_changed_one_anew(tmp_path: Path) -> None:
    """A file, a nearer package, a link to another version: whatever would be another copy."""
    store = tmp_path / "node_modules" / ".pnpm"
    for version in ("one", "two"):
        package(store / version, "inner", f"exports.y = '{version}'")
    (tmp_path / "node_modules" / "inner").symlink_to(".pnpm/one/node_modules/inner")
    home = package(tmp_path, "evil", "exports.x = require('inner').y")
    kept = [PackageCopies(settled=0)]

    async def copied() -> tuple[Path, str, str]:
        async with FolderPackages(tmp_path, tmp_path, copies=kept[0]).installed(["node_modules/evil"]) as installed:
            assert installed.packages is not None
            place = installed.packages.root
            modules = place / "node_modules"
            nearer = modules / "evil" / "node_modules" / "inner"
            inner = nearer if nearer.exists() else modules / "inner"
            return place, (modules / "evil" / "main.js").read_text(), (inner / "main.js").read_text()

    first = asyncio.run(copied())
    assert first[1:] == ("exports.x = require('inner').y", "exports.y = 'one'")
    assert asyncio.run(copied()) == first
    (home / "main.js").write_text("exports.x = require('inner').z")
    second = asyncio.run(copied())
    assert second[1:] == ("exports.x = require('inner').z", "exports.y = 'one'")
    assert not first[0].exists()
    (tmp_path / "node_modules" / "inner").unlink()
    (tmp_path / "node_modules" / "inner").symlink_to(".pnpm/two/node_modules/inner")
    assert asyncio.run(copied())[2] == "exports.y = 'two'"
    package(home, "inner", "exports.y = 'three'")
    last = asyncio.run(copied())
    assert last[2] == "exports.y = 'three'"
    assert asyncio.run(copied()) == last
    kept.clear()
    gc.collect()
    assert not last[0].exists()


def test_packages_that_were_just_written_are_copied_again(tmp_path: Path) -> None:
    """Their next change may leave the same times."""
    package(tmp_path, "evil", "exports.x = 1")
    copies = PackageCopies()

    async def place() -> Path:
        async with FolderPackages(tmp_path, tmp_path, copies=copies).installed(["node_modules/evil"]) as installed:
            assert installed.packages is not None
            return installed.packages.root

    assert asyncio.run(place()) != asyncio.run(place())
