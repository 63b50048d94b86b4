"""A build holds while each lookup of its packages finds the same, and not only while the files that it read are the same."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kapso_sync.build import FolderPackages, external_inputs
from kapso_sync.build.external_inputs import ExternalInputs
from kapso_sync.files import read_beneath
from kapso_sync.model.builds import Built, Resolution
from kapso_sync.store.builds import BuildFolder
from tests.build.test_memory import NOW, Counted
from tests.build.test_packages import package
from tests.build.workbench import SCRIPT, Workbench, answers, entry, needs_esbuild, needs_node

pytestmark = needs_esbuild

TEXTS = {"a.ts": "import { x } from 'top';\nexport default () => new Response(String(x));"}


def write(folder: Path, **texts: str) -> None:
    """Write files into a folder, each by its name without ``.js``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.js").write_text(text)


def override(root: Path) -> None:
    package(root / "node_modules/top", "inner", "exports.y = 'new'", version="2.0.0")


def dedupe(root: Path) -> None:
    shutil.rmtree(root / "node_modules/nesting/node_modules/inner")


def install(root: Path) -> None:
    package(root, "fast", "exports.y = 'new'")


def polyfill(root: Path) -> None:
    package(root, "events", "exports.y = 'new'")


def file_beside_folder(root: Path) -> None:
    write(root / "node_modules/top", lib="exports.y = 'new'")


def file_with_an_earlier_suffix(root: Path) -> None:
    write(root / "node_modules/top", table="exports.y = 'new'")


def describe_a_folder(root: Path) -> None:
    (root / "node_modules/top/lib/package.json").write_text('{"main": "./other.js"}')


def describe_a_folder_otherwise(root: Path) -> None:
    (root / "node_modules/top/redirected/package.json").write_text('{"main": "../new.js"}')


def export_a_path(root: Path) -> None:
    about = root / "node_modules/closed/package.json"
    about.write_text(json.dumps({"name": "closed", "exports": {"./part": "./main.js"}}))


def ship_modules(root: Path) -> None:
    package(root / "node_modules/top/lib", "inner", "exports.y = 'new'")


def shared_by_pnpm(root: Path) -> None:
    package(root / "node_modules/.pnpm", "fast", "exports.y = 'new'")


def link_elsewhere(root: Path) -> None:
    (root / "node_modules/linked").unlink()
    (root / "node_modules/linked").symlink_to("second")


OPTIONAL = "let y; try { y = require('%s').y } catch {}; exports.x = y || 'old'"

CHANGES: list[tuple[str, Callable[[Path], None]]] = [
    ("exports.x = require('inner').y", override),
    ("exports.x = require('nesting').y", dedupe),
    (OPTIONAL % "fast", install),
    (OPTIONAL % "fast", shared_by_pnpm),
    (OPTIONAL % "events", polyfill),
    (OPTIONAL % "closed/part", export_a_path),
    ("exports.x = require('./lib').y", file_beside_folder),
    ("exports.x = require('./table').y", file_with_an_earlier_suffix),
    ("exports.x = require('./lib').y", describe_a_folder),
    ("exports.x = require('./redirected').y", describe_a_folder_otherwise),
    ("exports.x = require('./lib/deep').y", ship_modules),
    ("exports.x = require('linked').y", link_elsewhere),
]


def installed(root: Path, code: str) -> FolderPackages:
    """Packages of which `top`, with this code, is what the function imports: it finds `old` in each of them."""
    top = package(root, "top", code)
    write(top / "lib", index="exports.y = 'old'", other="exports.y = 'new'", deep="exports.y = require('inner').y")
    write(top, new="exports.y = 'new'", old="exports.y = 'old'")
    (top / "table.json").write_text('{"y": "old"}')
    (top / "redirected").mkdir()
    (top / "redirected/package.json").write_text('{"main": "../old.js"}')
    package(root, "inner", "exports.y = 'old'")
    nesting = package(root, "nesting", "exports.y = require('inner').y === 'old' ? 'new' : 'old'")
    package(nesting, "inner", "exports.y = 'nested'")
    package(root, "closed", "exports.y = 'new'", exports={"./other": "./main.js"})
    package(root, "first", "exports.y = 'old'")
    package(root, "second", "exports.y = 'new'")
    (root / "node_modules/linked").symlink_to("first")
    return FolderPackages(root, root)


@needs_node
@pytest.mark.parametrize("restarted", [False, True], ids=["living", "restarted"])
@pytest.mark.parametrize(("code", "change"), CHANGES, ids=[change.__name__ for _, change in CHANGES])
def test_a_lookup_that_finds_something_else_rebuilds_the_function(
    tmp_path: Path, code: str, change: Callable[[Path], None], *, restarted: bool
) -> None:
    """Where no file that was read has changed: the same daemon notices, and one that has the build from the state folder."""
    counted = Counted(tmp_path)
    root = tmp_path / "repository"
    packages = installed(root, code)

    def new() -> Workbench:
        return Workbench(store=BuildFolder(tmp_path / "state", NOW, writes=True), places=counted.places)

    bench = new()
    before = bench.build(TEXTS, "a.ts", packages=packages)
    assert answers([before.functions[0].code], SCRIPT) == [(200, "old")]
    bench = new() if restarted else bench
    assert bench.build(TEXTS, "a.ts", packages=packages) == before
    assert counted.builds == 1
    change(root)
    bench = new() if restarted else bench
    after = bench.build(TEXTS, "a.ts", packages=packages)
    assert answers([after.functions[0].code], SCRIPT) == [(200, "new")]
    assert after == Workbench().build(TEXTS, "a.ts", packages=packages)
    assert counted.builds == 2
    assert new().build(TEXTS, "a.ts", packages=packages) == after
    assert counted.builds == 2


def test_what_no_lookup_reaches_rebuilds_nothing(tmp_path: Path) -> None:
    """Other packages, also beside and inside used ones, another version of an unused one, type declarations, a new `npm ci`."""
    counted = Counted(tmp_path)
    root = tmp_path / "repository"
    packages = installed(root, f"exports.z = require('./lib/deep'); {OPTIONAL % 'fast'}")
    state = tmp_path / "state"
    bench = Workbench(store=BuildFolder(state, NOW, writes=True), places=counted.places)
    before = bench.build(TEXTS, "a.ts", packages=packages)
    top = root / "node_modules/top"
    package(root, "unrelated", "exports.y = require('inner')")
    package(root, "@scope/fast", "exports.y = 'new'")
    package(top, "unrelated", "exports.y = 1")
    package(root, "second", "exports.y = 'newer'", version="3.0.0")
    (top / "lib" / "index.d.ts").touch()
    (root / "node_modules/.package-lock.json").write_text("{}")
    for each in (bench, Workbench(store=BuildFolder(state, NOW, writes=True), places=counted.places)):
        assert each.build(TEXTS, "a.ts", packages=packages) == before
    shutil.copytree(root / "node_modules", tmp_path / "copy", symlinks=True)
    shutil.rmtree(root / "node_modules")
    (tmp_path / "copy").rename(root / "node_modules")
    assert bench.build(TEXTS, "a.ts", packages=packages) == before
    assert counted.builds == 1
    package(root, "fast", "exports.y = 'new'")  # the control
    assert bench.build(TEXTS, "a.ts", packages=packages) != before
    assert counted.builds == 2


def test_another_function_with_other_packages_is_not_rebuilt(tmp_path: Path) -> None:
    """Each build has lookups of its own."""
    counted = Counted(tmp_path)
    package(tmp_path, "top", OPTIONAL % "fast")
    package(tmp_path, "other", "exports.x = 1")
    texts = {**TEXTS, "b.ts": TEXTS["a.ts"].replace("top", "other")}
    bench, packages = Workbench(places=counted.places), FolderPackages(tmp_path, tmp_path)
    bench.build(texts, "a.ts", "b.ts", packages=packages)
    install(tmp_path)
    bench.build(texts, "a.ts", "b.ts", packages=packages)
    assert counted.builds == 2
    assert sum(word.startswith(".kapso-sync/") for word in counted.log.read_text().splitlines()[-1].split()) == 1


def test_a_used_package_that_was_filled_with_files_is_not_listed_to_its_end(tmp_path: Path) -> None:
    """A hit is bounded as a build is: then it is a build, which says so."""
    root = tmp_path / "repository"
    home = package(root, "top", "exports.x = 1")
    bench = Workbench()
    assert bench.build(TEXTS, "a.ts", packages=FolderPackages(root, root)).functions
    home.joinpath(*["d"] * 100).mkdir(parents=True)
    (function,) = bench.build(TEXTS, "a.ts", packages=FolderPackages(root, root)).unusable
    assert "deep" in function.problems[0].message


def test_a_stored_build_that_does_not_say_what_its_lookups_found_is_made_again(tmp_path: Path) -> None:
    """It may have been right when it was made, and nobody can know whether it still is."""
    counted = Counted(tmp_path)
    packages = installed(tmp_path / "repository", CHANGES[0][0])
    builds = []
    for damaged in ("", "lookups", "outlines"):
        for file in (tmp_path / "state/builds").glob(f"{'?' * 64}.json"):
            kept = json.loads(file.read_text())
            kept.pop(damaged, None)
            file.write_text(json.dumps(kept))
        bench = Workbench(store=BuildFolder(tmp_path / "state", NOW, writes=True), places=counted.places)
        assert bench.build(TEXTS, "a.ts", packages=packages).functions
        builds.append(counted.builds)
    assert builds == [1, 2, 3]


@pytest.mark.parametrize(("code", "change"), CHANGES, ids=[change.__name__ for _, change in CHANGES])
def test_an_unchanged_package_is_not_listed_again_and_a_changed_one_is(
    tmp_path: Path, code: str, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While all of its folders have the same times, as they have in a daemon that looks again and again."""
    packages = installed(tmp_path, code)
    listed = []
    scandir = os.scandir

    def counted(place: int) -> object:
        listed.append(place)
        return scandir(place)

    async def resolution() -> Resolution:
        async with packages.installed(["node_modules/top"]) as made:
            assert made.packages is not None
            assert made.packages.resolution is not None
            inputs = [path.relative_to(made.packages.root).as_posix() for path in made.packages.root.rglob("*.js")]
            return made.packages.resolution(["node_modules/top"], inputs)

    built = Built("", resolution=asyncio.run(resolution()))
    outside = ExternalInputs(settled=0)
    time.sleep(0.02)  # the times of files may be those of the last tick of the kernel's clock
    assert outside.check(packages.on_disk).holds(built)
    monkeypatch.setattr(os, "scandir", counted)
    assert outside.check(packages.on_disk).holds(built)
    assert not listed
    change(tmp_path)
    assert not outside.check(packages.on_disk).holds(built)


@pytest.mark.parametrize(("settled", "reads"), [(0.0, 1), (3600.0, 3)])
def test_a_file_is_read_again_until_its_next_change_must_give_it_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: float, reads: int
) -> None:
    """Some file systems count in seconds: a change of the same size, right after the first look, would not be seen."""
    file = tmp_path / "node_modules" / "top" / "index.js"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    packages, built = (
        FolderPackages(tmp_path, tmp_path),
        Built("", (("node_modules/top/index.js", hashlib.sha256(b"1").hexdigest()),)),
    )
    seen = []
    read = read_beneath

    def counted(*place: Any) -> bytes:
        seen.append(place)
        return read(*place)

    monkeypatch.setattr(external_inputs, "read_beneath", counted)
    time.sleep(0.02)  # as above
    outside = ExternalInputs(settled=settled)
    for _ in range(3):
        assert outside.check(packages.on_disk).holds(built)
    assert len(seen) == reads


HOMES = (
    "node_modules/top",
    "node_modules/inner",
    "node_modules/opt",
    "node_modules/top/node_modules/inner",
    "node_modules/inner/node_modules/opt",
    "node_modules/top/dist/node_modules/inner",
    "node_modules/.pnpm/node_modules/opt",
)
FILES = (
    "index.js",
    "lib.js",
    "lib.ts",
    "lib/index.js",
    "dist/main.js",
    "dist/package.json",
    "lib/package.json",
    "package.json",
)
CODES = (
    "exports.x = 1",
    "exports.x = [require('./lib'), 2]",
    "exports.x = require('inner')",
    "exports.x = [require('inner'), require('opt/lib')]",
    "try { exports.x = require('opt') } catch { exports.x = 3 }",
    "try { exports.x = require('./lib') } catch { exports.x = 4 }",
    "try { exports.x = require('../lib') } catch { exports.x = require('inner/lib') }",
    "exports.x = require('../opt/lib')",
)
ABOUTS: tuple[dict[str, object], ...] = (
    {},
    {"main": "./dist/main.js"},
    {"main": "lib"},
    {"exports": "./lib.js"},
    {"exports": {".": "./index.js", "./lib": "./dist/main.js"}},
    {"main": "index.js", "browser": {"inner": "opt", "./lib.js": False}},
    {"sideEffects": False, "version": "2.0.0"},
)
PLACES = st.tuples(st.sampled_from((*HOMES, *(HOMES[:2] * 3))), st.sampled_from(FILES))
EDITS = st.one_of(
    st.tuples(st.just("write"), PLACES, st.integers(0, 7)),
    st.tuples(st.just("install"), PLACES, st.integers(0, 7)),
    st.tuples(st.just("rename"), PLACES, st.integers(0, 7)),
    st.tuples(st.just("remove"), PLACES, st.just(0)),
    st.tuples(st.just("move"), st.tuples(st.sampled_from(HOMES), st.sampled_from(HOMES)), st.just(0)),
    st.tuples(st.just("drop"), PLACES, st.just(0)),
    st.tuples(st.just("link"), st.tuples(st.sampled_from(HOMES), st.sampled_from(HOMES)), st.just(0)),
)
Edit = tuple[str, tuple[str, str], int]


def edit(root: Path, step: Edit) -> None:
    """Change one place of the tree; what cannot be, such as a file below another file, is left out."""
    kind, (home, name), number = step
    folder = root / home
    try:
        if kind == "write":
            text = json.dumps(ABOUTS[number % len(ABOUTS)]) if name.endswith(".json") else CODES[number]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        elif kind == "install":
            write(folder, index=CODES[number], lib=CODES[0])
        elif kind == "rename":
            (folder / FILES[number]).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).rename(folder / FILES[number])
        elif kind == "remove":
            (folder / name).unlink()
        elif kind == "move":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            folder.rename(root / name)
        elif kind == "link":
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(root / name)
        elif folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    except OSError:
        pass


def start(root: Path, first: Iterable[Edit]) -> None:
    """Make a tree in which a good deal is there at the beginning."""
    package(root, "top", "", main="index.js")
    write(root / "node_modules/top", index="exports.x = [require('./lib'), require('inner')]")
    write(root / "node_modules/top/lib", index=CODES[4])
    write(root / "node_modules/top/dist", main=CODES[3])
    write(root / "node_modules/inner", index=CODES[4])
    for step in first:
        edit(root, step)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(EDITS, max_size=6), st.lists(st.lists(EDITS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_whatever_is_edited_a_kept_build_is_the_one_that_would_be_made(first: list[Edit], rounds: list[list[Edit]]) -> None:
    """Three builders give the same: one that lives, one that has only its state folder, and one that has nothing."""
    with tempfile.TemporaryDirectory() as made:
        root, state = Path(made).resolve() / "repository", Path(made) / "state"
        start(root, first)
        living = Workbench(store=BuildFolder(state, NOW, writes=True))
        listed = [entry("a.ts")]
        for steps in [[], *rounds]:
            for step in steps:
                edit(root, step)
            results = [
                bench.build(TEXTS, *listed, packages=FolderPackages(root, root))
                for bench in (living, Workbench(store=BuildFolder(state, NOW, writes=True)), Workbench())
            ]
            shown = [
                (
                    [(function.code, function.packages) for function in result.functions],
                    [sorted(str(problem) for problem in each.problems) for each in result.unusable],
                    result.notices,
                )
                for result in results
            ]
            assert shown[0] == shown[2], "the living one"
            assert shown[1] == shown[2], "the restarted one"
