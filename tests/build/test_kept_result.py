"""The kept result of a build: it is what a build from scratch finds, and its key has everything that decides a result."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapso_sync.build import Builder, BuildResult, Bundler, Esbuild, FolderPackages, Target
from kapso_sync.build import kept_result as keeping
from kapso_sync.model.policies import Contract
from kapso_sync.model.source import Above, SourceFile
from kapso_sync.store.builds import MAX_AGE, RESULT, BuildFolder
from kapso_sync.tools import ToolPlaces
from tests.build.workbench import MODULE, SCRIPT, Texts, Workbench, entry, needs_esbuild, source_files

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NO_ESBUILD = ToolPlaces(None, (), [])
TEXTS = {
    "lib/text.ts": 'export const text = (): string => "text";\n',
    "lib/unused.ts": "export const unused = 1;\n",
    "typed.ts": 'import { text } from "./lib/text";\nexport default () => new Response(text());\n',
    "plain.js": "async function handler() { return new Response('plain') }\n",
    "module.js": "export default { fetch() { return new Response('module') } }\n",
}
ENTRIES = ("typed.ts", "plain.js", "module.js")

pytestmark = needs_esbuild


def stored(state: Path, *, writes: bool = True, places: ToolPlaces | None = None, target: Target = SCRIPT) -> Workbench:
    """A builder of a new process, with this state folder."""
    store = BuildFolder(state, NOW, writes=writes)
    return Workbench(target, store) if places is None else Workbench(target, store, places)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder in which the result of `TEXTS` is kept, and nothing else of it."""
    stored(tmp_path / "state").build(TEXTS, *ENTRIES)
    for path in (tmp_path / "state" / "builds").iterdir():
        if path.name != RESULT:
            path.unlink()
    return tmp_path / "state"


def forgets(state: Path, texts: Texts = TEXTS, *entries: Any, target: Target = SCRIPT) -> bool:
    """Whether a process without esbuild, and without any other memory, must build again: then TypeScript is unusable."""
    return bool(stored(state, writes=False, places=NO_ESBUILD, target=target).build(texts, *(entries or ENTRIES)).unusable)


def test_an_unchanged_folder_is_not_built_or_parsed_again(state: Path) -> None:
    """The result is the same in everything, also the hash of the code, and the next process does not even need esbuild."""
    fresh = Workbench().build(TEXTS, *ENTRIES)
    again = stored(state, writes=False, places=NO_ESBUILD).build(TEXTS, *ENTRIES)
    assert again == fresh
    assert [function.content for function in again.functions] == [function.content for function in fresh.functions]
    assert [function.compiled for function in again.functions] == [True, False, True]
    (state / "builds" / RESULT).unlink()
    assert forgets(state), "the control: nothing else is remembered"


@pytest.mark.parametrize(
    "changed",
    [
        {"typed.ts": TEXTS["typed.ts"] + "// a word\n"},
        {"lib/text.ts": TEXTS["lib/text.ts"].replace('"text"', '"other"')},
        {"lib/text/index.ts": "export const text = () => 1;\n"},
        {"lib/text.js": "export const text = () => 2;\n"},
        {"tsconfig.json": '{"compilerOptions": {"target": "es2020"}}'},
        {"package.json": '{"sideEffects": false}'},
        {"readme.md": "another file"},
        {"lib/unused.ts": None},
        {"lib/new.ts": "export {};\n"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_any_changed_file_is_built_again(state: Path, changed: Mapping[str, str | None]) -> None:
    """What a file means to the others is not asked: it may decide what an import names."""
    texts = {path: text for path, text in {**TEXTS, **changed}.items() if text is not None}
    assert forgets(state, texts)
    assert not forgets(state)


@pytest.mark.parametrize(
    "entries",
    [
        (entry("typed.ts", minify=True), "plain.js", "module.js"),
        (entry("typed.ts", Contract.MODULE), "plain.js", "module.js"),
        ("typed.ts", "module.js", "plain.js"),
        ("typed.ts", "plain.js"),
        ("typed.ts", "plain.js", "module.js", "lib/text.ts"),
    ],
)
def test_another_manifest_is_built_again(state: Path, entries: tuple[Any, ...]) -> None:
    """Whatever it says of how code is built."""
    assert forgets(state, TEXTS, *entries)


def test_what_the_manifest_says_of_other_things_is_taken_from_the_manifest(state: Path) -> None:
    """A function's description does not change its code, and the kept result must not bring the old one back."""
    described = (entry("typed.ts", description="new"), "plain.js", "module.js")
    again = stored(state, writes=False, places=NO_ESBUILD).build(TEXTS, *described)
    assert again == Workbench().build(TEXTS, *described)
    assert again.functions[0].content["description"] == "new"


def test_another_contract_or_folder_above_is_built_again(state: Path) -> None:
    """So do files above the functions folder, the entries of other environments, and files that cannot be read."""
    assert forgets(state, target=MODULE)

    def usable(files: Mapping[str, SourceFile], above: Above, elsewhere: str) -> bool:
        builder = Builder(SCRIPT, Bundler(Esbuild(NO_ESBUILD)), BuildFolder(state, NOW, writes=False))
        building = builder.build(map(entry, ENTRIES), files, above=above, elsewhere=map(entry, elsewhere.split()))
        return not asyncio.run(building).unusable

    files, config = source_files(TEXTS), SourceFile("../tsconfig.json", b"{}")
    assert usable(files, Above(), "")
    assert not usable(files, Above("functions"), "")
    assert not usable(files, Above("", {config.path: config}), "")
    assert not usable(files, Above(), "lib/unused.ts")
    assert not usable({**files, "big.js": SourceFile("big.js", None, "is too large")}, Above(), "")


def test_a_result_of_other_rules_is_not_taken(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of kapso-sync, or of esbuild, may build otherwise."""
    monkeypatch.setattr(keeping, "rules", lambda: "other rules")
    assert forgets(state)


def test_a_damaged_result_counts_as_missing(state: Path) -> None:
    """Whatever is in the file, and even where its digest is right."""
    file = state / "builds" / RESULT
    whole = file.read_bytes()
    for damage in (b"", b"x", whole[:-9], whole.replace(b"text", b"evil")):
        file.write_bytes(damage)
        assert forgets(state), damage
    result = whole.partition(b"\n")[2]
    for other in (b"null", b"{}", b"[" * 100_000, result.replace(b'"functions"', b'"other"')):
        BuildFolder(state, NOW, writes=True).put_result(other)
        assert forgets(state), other
    file.write_bytes(whole)
    assert not forgets(state)


def test_a_result_with_an_unusable_function_is_not_kept(tmp_path: Path) -> None:
    """Each pass looks for mistakes again."""
    bench = stored(tmp_path)
    assert bench.build({**TEXTS, "typed.ts": 'import "./absent";\nexport default () => new Response();\n'}, *ENTRIES).unusable
    assert not (tmp_path / "builds" / RESULT).exists()
    assert not bench.build(TEXTS, *ENTRIES).unusable
    assert (tmp_path / "builds" / RESULT).exists()


def test_a_file_that_esbuild_has_not_parsed_is_not_kept(tmp_path: Path) -> None:
    """Without esbuild a plain file is taken as it is; once esbuild is there, it is asked."""
    assert stored(tmp_path, places=NO_ESBUILD).build(TEXTS, "plain.js").functions
    assert not (tmp_path / "builds" / RESULT).exists()
    stored(tmp_path).build(TEXTS, "plain.js")
    assert (tmp_path / "builds" / RESULT).exists()


def test_a_result_with_an_installed_package_is_not_kept(tmp_path: Path) -> None:
    """It may be another one tomorrow, and no file of the folder says so."""
    package = tmp_path / "node_modules" / "greeting"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "greeting", "version": "1.0.0", "main": "index.js"}')
    texts = {"typed.ts": 'import { hi } from "greeting";\nexport default () => new Response(hi());\n'}
    for answer in ("hi", "hello"):
        (package / "index.js").write_text(f"exports.hi = () => '{answer}';\n")
        made = stored(tmp_path / "state").build(texts, "typed.ts", packages=FolderPackages(tmp_path, tmp_path))
        assert answer in made.functions[0].code
    assert not (tmp_path / "state" / "builds" / RESULT).exists()


@pytest.mark.parametrize("code", ["export const half = '\\ud83d';\n", "// \u2028 \U0001f600\n"])
def test_odd_text_is_kept_as_it_is_or_not_at_all(tmp_path: Path, code: str) -> None:
    """Half of a surrogate pair cannot be stored as JSON."""
    texts = {**TEXTS, "typed.ts": f"{code}{TEXTS['typed.ts']}", os.fsdecode(b"bad-\xff.md"): "x"}
    assert (
        stored(tmp_path).build(texts, *ENTRIES) == stored(tmp_path).build(texts, *ENTRIES) == Workbench().build(texts, *ENTRIES)
    )


def test_a_result_beyond_its_limit_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that was pushed must not fill the disk, or the memory."""
    monkeypatch.setattr(keeping, "MAX_CODE", 10)
    stored(tmp_path).build(TEXTS, *ENTRIES)
    assert not (tmp_path / "builds" / RESULT).exists()


def test_builds_of_a_kept_result_stay_in_use(tmp_path: Path) -> None:
    """Their source maps lead an error back to its line: none is dropped as unused, and a lost one is made again."""
    folder = tmp_path / "builds"
    stored(tmp_path).build(TEXTS, *ENTRIES)
    maps = sorted(folder.glob("*.map"))
    old = (NOW - MAX_AGE + timedelta(days=1)).timestamp()
    builds = [path.with_suffix(".json") for path in maps]
    assert len(builds) == 2
    for path in builds:
        os.utime(path, (old, old))
    stored(tmp_path, writes=False).build(TEXTS, *ENTRIES)
    assert {path.stat().st_mtime for path in builds} == {old}, "a command that writes nothing"
    stored(tmp_path, places=NO_ESBUILD).build(TEXTS, *ENTRIES)
    assert all(path.stat().st_mtime > old for path in builds)
    builds[0].unlink()
    maps[0].unlink()
    assert not forgets(tmp_path), "a command that writes nothing needs no map"
    stored(tmp_path).build(TEXTS, *ENTRIES)
    assert builds[0].exists()
    assert maps[0].exists()


EDITS: Mapping[str, tuple[str | None, ...]] = {
    "typed.ts": (
        TEXTS["typed.ts"],
        'import { text } from "./lib/text";\nexport default { fetch: () => new Response(text()) };\n',
        'import { text } from "#lib";\nexport default () => new Response(text());\n',
        "export default () => {\n",
    ),
    "plain.js": (TEXTS["plain.js"], "const handler = () => new Response('other')\n", "x = 1; function handler() {}\n"),
    "module.js": (TEXTS["module.js"], "export { default } from './typed';\n", "export default 1\n"),
    "lib/text.ts": (TEXTS["lib/text.ts"], "export const text = () => 1;\n", None),
    "lib/text.js": (None, "export const text = () => 2;\n"),
    "tsconfig.json": (
        None,
        '{"compilerOptions": {"paths": {"#lib": ["./lib/text"]}}}',
        '{"compilerOptions": {"strict": true}}',
    ),
    "package.json": (None, '{"imports": {"#lib": "./lib/text.js"}}'),
}
EDIT = st.sampled_from([(path, text) for path, texts in EDITS.items() for text in texts])
HOW: Mapping[str, Callable[[], Any]] = {
    "as it is": lambda: entry("typed.ts"),
    "small": lambda: entry("typed.ts", minify=True),
    "a module": lambda: entry("typed.ts", Contract.MODULE),
}


@given(st.lists(st.tuples(EDIT, st.sampled_from(sorted(HOW))), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_a_build_with_any_memory_finds_what_one_without_finds(edits: list[tuple[tuple[str, str | None], str]]) -> None:
    """Through any edits, there and back again: each state is built by a process that remembers the states before."""
    folder = Path(tempfile.mkdtemp())
    try:
        texts: dict[str, str] = dict(TEXTS)
        for (path, text), how in edits:
            texts = {**texts, path: text} if text is not None else {key: kept for key, kept in texts.items() if key != path}
            listed = (HOW[how](), "plain.js", "module.js")
            fresh: BuildResult = Workbench().build(texts, *listed)
            for _ in range(2):
                again = stored(folder).build(texts, *listed)
                assert again == fresh
                assert [each.content for each in again.functions] == [each.content for each in fresh.functions]
    finally:
        shutil.rmtree(folder)
