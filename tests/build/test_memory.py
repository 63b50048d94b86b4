"""Builds: reproducible, cached, and one that fails does not stop the others; with esbuild, and without it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import stat
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kapso_sync.build import FolderPackages
from kapso_sync.build.contract import inspect
from kapso_sync.build.shapes import Shapes, rules
from kapso_sync.build.syntax import Grammar
from kapso_sync.model.builds import Built
from kapso_sync.store.builds import (
    FINDINGS,
    MAX_AGE,
    MAX_BUILDS,
    MAX_WHOLE,
    RESULT,
    BuildFolder,
    StoredBuild,
    find_build,
)
from kapso_sync.tools import VERSION, ToolPlaces
from tests.build.test_hostile_code import ODD
from tests.build.workbench import ESBUILD, MODULE, OWN, SCRIPT, Workbench, entry, good, needs_esbuild, source_files
from tests.process.test_process import is_gone

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIB = {
    "lib/a.ts": 'import { b } from "./b";\nexport const a = () => b() + "a";\n',
    "lib/b.ts": 'import { c } from "./c";\nexport const b = () => c() + "b";\n',
    "lib/c.ts": 'export const c = (): string => "c";\n',
    "lib/alone.ts": "export const alone = (): number => 1;\n",
}
TEXTS = {
    **LIB,
    "first.ts": 'import { a } from "./lib/a";\nexport default () => new Response(a());\n',
    "second.ts": 'import { b } from "./lib/b";\nexport default () => new Response(b());\n',
    "third.ts": 'import { alone } from "./lib/alone";\nexport default () => new Response(String(alone()));\n',
    "plain.js": "async function handler() { return new Response('x') }\n",
}
ENTRIES = ("first.ts", "second.ts", "third.ts", "plain.js")


class Counted:
    """An esbuild that notes each run, with the entries it was given."""

    def __init__(self, folder: Path, before: str = "") -> None:
        self.log = folder / "runs.log"
        self.path = folder / "esbuild"
        real = ESBUILD or Path("/nowhere")
        self.path.write_text(f'#!/bin/sh\necho "$@" >> {self.log}\n{before}\nexec {real} "$@"\n', encoding="utf-8")
        self.path.chmod(0o755)

    @property
    def places(self) -> ToolPlaces:
        return ToolPlaces(self.path, (), [])

    @property
    def processes(self) -> int:
        return len(self.log.read_text(encoding="utf-8").splitlines()) if self.log.exists() else 0

    @property
    def builds(self) -> int:
        """How many runs made bundles; others ask for the version, or check the syntax of code that goes up as it is."""
        return sum("--bundle" in line for line in self.log.read_text(encoding="utf-8").splitlines())


def entries_of(counted: Counted) -> int:
    """How many functions the last run built."""
    last = counted.log.read_text(encoding="utf-8").splitlines()[-1]
    return sum(word.startswith(".kapso-sync/") for word in last.split())


@needs_esbuild
def test_builds_are_reproducible_alone_together_and_in_another_folder(tmp_path: Path) -> None:
    """Whatever else is built in the same run, and wherever the temporary folder is."""
    together = {f.slug: f.code for f in Workbench().build(TEXTS, *ENTRIES).functions}
    alone = {name.partition(".")[0]: good(TEXTS, name) for name in ENTRIES}
    before = os.environ.get("TMPDIR")
    other = tmp_path / "a place with spaces" / "deep" / "er"
    other.mkdir(parents=True)
    (tmp_path / "package.json").write_text('{"browser": {"./lib/c.ts": "./evil.ts"}, "sideEffects": false, "type": "module"}')
    (tmp_path / "tsconfig.json").write_text('{"compilerOptions": {"experimentalDecorators": true, "jsx": "preserve"}}')
    tempfile.tempdir = str(other)
    try:
        elsewhere = {f.slug: f.code for f in Workbench().build(TEXTS, *ENTRIES).functions}
    finally:
        tempfile.tempdir = before
    assert together == alone == elsewhere
    assert str(tmp_path) not in "".join(together.values())
    assert "kapso-sync-build" not in "".join(together.values())


@needs_esbuild
def test_an_unchanged_build_comes_from_the_cache_without_esbuild(tmp_path: Path) -> None:
    """Also after a restart: the build is in the state folder."""
    counted = Counted(tmp_path)
    state = tmp_path / "state"
    bench = Workbench(store=BuildFolder(state, NOW, writes=True), places=counted.places)
    first = bench.build(TEXTS, *ENTRIES)
    assert len(first.functions) == 4
    assert (counted.processes, entries_of(counted)) == (3, 3)  # its version, a look at plain.js, and one build of the rest
    assert bench.build(TEXTS, *ENTRIES) == first
    again = Workbench(store=BuildFolder(state, NOW, writes=False), places=counted.places)
    assert again.build(TEXTS, *ENTRIES) == first
    assert (counted.processes, counted.builds) == (3, 1)


@needs_esbuild
def test_findings_of_an_earlier_process_count_for_the_same_content_and_rules_alone(tmp_path: Path) -> None:
    """Else a file is looked at again: changed, found by another version, or with findings that cannot be read."""
    counted = Counted(tmp_path)
    file = tmp_path / "state" / "builds" / FINDINGS

    def looks(texts: dict[str, str], *, writes: bool = False) -> int:
        before = counted.processes
        file.with_name(RESULT).unlink(missing_ok=True)  # with it, no file is looked at
        bench = Workbench(store=BuildFolder(tmp_path / "state", NOW, writes=writes), places=counted.places)
        assert len(bench.build(texts, "plain.js").functions) == 1
        return counted.processes - before

    assert looks(TEXTS, writes=True) == 2  # esbuild's version, and the file
    assert looks(TEXTS) == 0
    assert looks({**TEXTS, "plain.js": f"{TEXTS['plain.js']}\n// changed\n"}) == 2
    kept = file.read_bytes()
    for damage in (b"", b"{", kept[:-9], kept.replace(b'"script"', b'"module"')):
        file.write_bytes(damage)
        assert looks(TEXTS) == 2, damage
    whole = kept.partition(b"\n")[2]
    for other in (b"{}", b"null", whole.replace(rules().encode(), b"0"), whole.replace(b'"script"', b'"scrpit"')):
        BuildFolder(tmp_path / "state", NOW, writes=True).put_findings(other)
        assert looks(TEXTS) == 2, other
    file.write_bytes(kept)
    assert looks(TEXTS) == 0


def test_findings_come_back_equal_and_equal_ones_are_one_object(tmp_path: Path) -> None:
    """Those of a thousand plain files are equal. Files with other findings are the control."""
    files = {f"{name}.js": f"// {name}\nfunction handler(request) {{ return 1; }}\n".encode() for name in "abc"}
    files |= {f"odd{number}{Path(path).suffix}": code.encode() for number, (path, code) in enumerate(ODD.values())}
    alone = {path: inspect(content, Grammar.of(path)) for path, content in files.items()}
    shapes = Shapes(store=BuildFolder(tmp_path, NOW, writes=True))
    fresh = {path: asyncio.run(shapes.read(path, content)) for path, content in files.items()}
    shapes.turn()
    again = Shapes(store=BuildFolder(tmp_path, NOW, writes=False))
    stored = again._recalled().shapes
    recalled = {
        path: stored[f"{Grammar.of(path).name}:{again.digest(path, content)}"]
        for path, content in files.items()
        if alone[path].error is None and alone[path].limit is None
    }
    assert fresh == alone
    assert recalled == {path: alone[path] for path in recalled}
    assert len(recalled) == len(files) - 2
    for found in (fresh, recalled):
        assert found["a.js"] is found["b.js"] is found["c.js"] is not found["odd0.js"]


@needs_esbuild
def test_a_file_with_a_syntax_error_is_looked_at_by_each_process(tmp_path: Path) -> None:
    """A newer parser may understand it; files without one are not looked at again."""
    counted = Counted(tmp_path)
    texts = {**TEXTS, "broken.js": "async function handler( {", "late.js": "let a;\nlet a;\nfunction handler() {}\n"}
    made = []
    for _ in range(2):
        bench = Workbench(store=BuildFolder(tmp_path / "state", NOW, writes=True), places=counted.places)
        made.append(bench.build(texts, "plain.js", "broken.js", "late.js"))
    assert [function.slug for function in made[0].unusable] == ["broken", "late"]
    assert made[0] == made[1]
    kept = (tmp_path / "state" / "builds" / FINDINGS).read_text()
    assert hashlib.sha256(TEXTS["plain.js"].encode()).hexdigest() in kept
    assert hashlib.sha256(texts["broken.js"].encode()).hexdigest() not in kept
    assert f".js:{hashlib.sha256(texts['late.js'].encode()).hexdigest()}" not in kept


@needs_esbuild
@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [("lib/c.ts", 2), ("lib/a.ts", 1), ("lib/alone.ts", 1), ("first.ts", 1), ("plain.js", 0), ("unused.ts", 0)],
)
def test_a_change_rebuilds_only_the_functions_that_import_it(tmp_path: Path, changed: str, rebuilt: int) -> None:
    """Functions that import a shared module, directly or not, and no other."""
    counted = Counted(tmp_path)
    bench = Workbench(places=counted.places)
    bench.build(TEXTS, *ENTRIES)
    assert counted.builds == 1
    after = {**TEXTS, changed: TEXTS.get(changed, "") + "\n// changed\n"}
    assert len(bench.build(after, *ENTRIES).functions) == 4
    assert counted.builds == 1 + (1 if rebuilt else 0)
    assert entries_of(counted) == (rebuilt if rebuilt or changed == "plain.js" else 3)


@needs_esbuild
def test_a_changed_type_declaration_rebuilds_nothing(tmp_path: Path) -> None:
    """A declaration file is used, but it is not a part of the code."""
    counted = Counted(tmp_path)
    texts = {
        "a.ts": "import { Env } from './kapso';\nexport default (_: Request, e: Env) => 1;",
        "kapso.d.ts": "export type Env = 1",
    }
    bench = Workbench(places=counted.places)
    assert bench.build(texts, "a.ts").used == {"a.ts", "kapso.d.ts"}
    bench.build({**texts, "kapso.d.ts": "export type Env = 2"}, "a.ts")
    assert counted.processes == 2


@needs_esbuild
def test_a_changed_build_option_rebuilds_the_code(tmp_path: Path) -> None:
    """tsconfig, style, minify: each gives other bytes."""
    counted = Counted(tmp_path)
    bench = Workbench(places=counted.places)
    bench.build(TEXTS, "first.ts")
    for texts, listed in (
        ({**TEXTS, "tsconfig.json": '{"compilerOptions": {"useDefineForClassFields": false}}'}, entry("first.ts")),
        (TEXTS, entry("first.ts", minify=True)),
    ):
        before = counted.processes
        bench.build(texts, listed)
        assert counted.processes == before + 1
    assert good(TEXTS, "first.ts", SCRIPT) != good(TEXTS, "first.ts", MODULE)


@needs_esbuild
@pytest.mark.parametrize("broken", ["export default () => (;", "import './lib/bad.json'; export default () => 1"])
def test_a_failed_build_does_not_stop_other_builds(tmp_path: Path, broken: str) -> None:
    """It is reported with file and place, and not built again until it changes; the others are built."""
    counted = Counted(tmp_path)
    texts = {**TEXTS, "lib/bad.json": '{\n  "é": oops\n}', "broken.ts": broken}
    bench = Workbench(places=counted.places)
    made = bench.build(texts, *ENTRIES, "broken.ts")
    assert [function.slug for function in made.functions] == ["first", "second", "third", "plain"]
    (problem,) = made.unusable[0].problems
    assert problem.location is not None
    assert problem.frame is not None
    assert (problem.location.file, problem.location.line) == (("lib/bad.json", 2) if "json" in broken else ("broken.ts", 1))
    before = counted.processes
    assert bench.build(texts, *ENTRIES, "broken.ts") == made
    assert counted.processes == before


@needs_esbuild
def test_bisection_finds_the_function_that_breaks_a_shared_build(tmp_path: Path) -> None:
    """A package that cannot be built has no entry of its own: halving the entries finds the importer."""
    broken = tmp_path / "node_modules" / "broken"
    broken.mkdir(parents=True)
    (broken / "index.js").write_text("export const x = (;")
    sound = tmp_path / "node_modules" / "sound"
    sound.mkdir()
    (sound / "index.js").write_text("export const x = 'sound';")
    texts = {f"f{n}.ts": f"import {{ x }} from 'sound'; export default () => new Response(x + {n});" for n in range(9)}
    texts["f4.ts"] = "import { x } from 'broken'; export default () => new Response(x);"
    made = Workbench().build(texts, *texts, packages=FolderPackages(tmp_path, tmp_path))
    assert [function.slug for function in made.unusable] == ["f4"]
    assert len(made.functions) == 8
    (problem,) = made.unusable[0].problems
    assert problem.location is not None
    assert problem.location.file == "node_modules/broken/index.js"


@needs_esbuild
def test_a_build_timeout_kills_the_process_group_of_esbuild(tmp_path: Path) -> None:
    """The timeout is reported, and the next pass tries again."""
    child = tmp_path / "child.pid"
    counted = Counted(tmp_path, f'case "$1" in --version) ;; *) sleep 600 & echo $! > {child}; wait;; esac')
    bench = Workbench(places=counted.places, deadline=0.5)
    made = bench.build(TEXTS, "first.ts")
    (problem,) = made.unusable[0].problems
    assert problem.message == "esbuild did not end within 0.5 s"
    assert is_gone(int(child.read_text()))
    before = counted.processes
    bench.build(TEXTS, "first.ts")
    assert counted.processes == before + 1


@needs_esbuild
def test_a_file_on_which_esbuild_does_not_end_is_not_given_to_it_in_each_pass(tmp_path: Path) -> None:
    """Each would last as long as the deadline; the next process asks again."""
    counted = Counted(tmp_path, 'case "$1" in --version) ;; *) sleep 600;; esac')
    bench = Workbench(places=counted.places, deadline=0.2)
    runs = []
    for _ in range(3):
        assert bench.build(TEXTS, "plain.js").functions
        runs.append(counted.processes)
    assert runs == [2, 2, 2], "its version, and one look"
    Workbench(places=counted.places, deadline=0.2).build(TEXTS, "plain.js")
    assert counted.processes > 2


def test_without_esbuild_only_functions_that_need_it_are_blocked(tmp_path: Path) -> None:
    """The message says how to install it; raw TypeScript is never uploaded."""
    made = Workbench(places=ToolPlaces(None, (), [])).build(TEXTS, *ENTRIES)
    assert [function.slug for function in made.functions] == ["plain"]
    assert [(function.slug, function.blocked) for function in made.unusable] == [
        ("first", True),
        ("second", True),
        ("third", True),
    ]
    (problem,) = made.unusable[0].problems
    assert problem.message == f"it is TypeScript: esbuild {VERSION} is needed, and there is none"
    assert problem.hint == (
        f"`npm install --global --prefix {sys.prefix} esbuild@{VERSION}`, or KAPSO_SYNC_ESBUILD with the path of one"
    )


def test_without_esbuild_syntax_errors_are_still_reported() -> None:
    """Our parser knows the place, and installing esbuild would not correct it."""
    texts = {"a.ts": "import './lib/b';\nexport default () => 1", "lib/b.ts": "export const b = (;\n"}
    made = Workbench(places=ToolPlaces(None, (), [])).build(texts, "a.ts")
    (problem,) = made.unusable[0].problems
    assert (made.unusable[0].blocked, problem.code, str(problem.location)) == (False, "syntax", "lib/b.ts:1:16")


def test_another_esbuild_version_is_never_used(tmp_path: Path) -> None:
    """Its bytes could differ; the message names the version that was found, and where."""
    other = tmp_path / "esbuild"
    other.write_text("#!/bin/sh\necho 0.1.0\n", encoding="utf-8")
    other.chmod(0o755)
    made = Workbench(places=ToolPlaces(None, (), [str(tmp_path)])).build(TEXTS, "first.ts")
    assert f"and {other} is 0.1.0" in made.unusable[0].problems[0].message


@needs_esbuild
def test_esbuild_is_searched_in_the_setting_then_our_folder_then_path(tmp_path: Path) -> None:
    """A configured path is the only one that counts; without one, our own copy goes before PATH."""
    assert ESBUILD is not None
    counted = Counted(tmp_path)
    assert len(Workbench(places=ToolPlaces(None, OWN, [str(tmp_path)])).build(TEXTS, "first.ts").functions) == 1
    assert counted.processes == 0
    assert len(Workbench(places=ToolPlaces(None, (), [str(tmp_path)])).build(TEXTS, "first.ts").functions) == 1
    assert counted.processes == 2
    named = Workbench(places=ToolPlaces(tmp_path / "nowhere", OWN, [str(tmp_path)])).build(TEXTS, "first.ts")
    assert "does not run" in named.unusable[0].problems[0].message


@needs_esbuild
@pytest.mark.parametrize("how", ["named", "path", "linked", "relative"])
def test_esbuild_from_the_functions_repository_is_never_run(tmp_path: Path, how: str) -> None:
    """Not even for its version: users who can push could run programs beside the API key. Another one is run."""
    source = tmp_path / "source"
    (source / "node_modules" / ".bin").mkdir(parents=True)
    counted = Counted(source / "node_modules" / ".bin")
    link = tmp_path / "bin"
    link.mkdir()
    (link / "esbuild").symlink_to(counted.path)
    places = {
        "named": ToolPlaces(counted.path, (), [], [source]),
        "path": ToolPlaces(None, (), [str(counted.path.parent)], [source]),
        "linked": ToolPlaces(None, (), [str(link)], [source]),
        "relative": ToolPlaces(None, (), [os.path.relpath(counted.path.parent), ".", ""], []),
    }[how]
    made = Workbench(places=places).build(TEXTS, "first.ts")
    assert made.unusable[0].blocked
    assert counted.processes == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    allowed = Counted(elsewhere)
    assert Workbench(places=ToolPlaces(allowed.path, (), [], [source])).build(TEXTS, "first.ts").functions
    assert allowed.processes > 0


@needs_esbuild
def test_esbuild_does_not_inherit_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no home, no path."""
    monkeypatch.setenv("KAPSO_API_KEY", "sesame")
    seen = tmp_path / "environment"
    counted = Counted(tmp_path, f"/usr/bin/env > {seen}")
    assert len(Workbench(places=counted.places).build(TEXTS, "first.ts").functions) == 1
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert "PWD" in names
    assert names <= {"GOMEMLIMIT", "NODE_PATH", "PWD", "OLDPWD", "SHLVL", "_"}


class TestBuildFolder:
    """What the state folder keeps."""

    BUILT = Built("code é", (("node_modules/x/index.js", "abc"),), ())

    def test_a_cached_build_is_read_back_unchanged(self, tmp_path: Path) -> None:
        """Only its owner can read the file; it keeps warnings with their places."""
        from kapso_sync.errors import Location, Notice
        from kapso_sync.model.desired import BundledPackage

        built = Built(
            "code é",
            (("node_modules/x/index.js", "abc"),),
            (Notice("a", "b", Location("f", 1, 2)), Notice("c", "d")),
            (BundledPackage("x", None, "MIT", 12),),
        )
        BuildFolder(tmp_path, NOW, writes=True).put("key", built)
        assert BuildFolder(tmp_path, NOW, writes=False).get("key") == built
        assert stat.S_IMODE((tmp_path / "builds" / "key.json").stat().st_mode) == 0o600

    def test_a_read_only_build_cache_writes_nothing(self, tmp_path: Path) -> None:
        """`plan` changes nothing in the state folder."""
        reader = BuildFolder(tmp_path, NOW, writes=False)
        reader.put("key", self.BUILT)
        reader.put_findings(b"{}")
        reader.put_result(b"{}")
        reader.use(["key"])
        assert list(tmp_path.iterdir()) == []
        BuildFolder(tmp_path, NOW, writes=True).put("key", self.BUILT)
        assert list(tmp_path.iterdir()) != []

    @pytest.mark.parametrize(
        "damage", ["", "{", '{"code": 1}', "null", '{"code": "x", "sha256": "y", "inputs": [], "notices": []}']
    )
    def test_a_damaged_cache_file_is_rebuilt(self, tmp_path: Path, damage: str) -> None:
        """A truncated or changed file counts as missing."""
        folder = BuildFolder(tmp_path, NOW, writes=True)
        folder.put("key", self.BUILT)
        (tmp_path / "builds" / "key.json").write_text(damage)
        assert folder.get("key") is None
        assert folder.get("other") is None

    def test_a_build_is_found_by_its_code_with_the_map_that_was_used_last(self, tmp_path: Path) -> None:
        """Two versions of a file that differ in comments alone give one code, and two maps: git has the one that was used."""
        folder = BuildFolder(tmp_path, NOW, writes=True)
        for second, (key, code) in enumerate({"old": "same", "new": "same", "other": "x"}.items()):
            folder.put(key, Built(code, source_map=f"map of {key}"))
            os.utime(tmp_path / "builds" / f"{key}.json", (NOW.timestamp() + second,) * 2)
        wanted = [hashlib.sha256(b"same").hexdigest(), "0" * 64]
        assert find_build(tmp_path, wanted) == StoredBuild("same", "map of new")
        assert folder.get("old") == Built("same"), "no map comes back with a build"
        assert find_build(tmp_path, wanted) == StoredBuild("same", "map of old"), "what was read again is in use again"
        (tmp_path / "builds" / "old.map").unlink()
        assert find_build(tmp_path, wanted) == StoredBuild("same", None)
        assert find_build(tmp_path, wanted[1:]) is None
        assert find_build(tmp_path / "absent", wanted) is None
        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "builds").iterdir()} == {0o600}

    def test_a_source_map_lives_as_long_as_its_build(self, tmp_path: Path) -> None:
        """It is dropped with the build, and never before, however old it is."""
        folder = BuildFolder(tmp_path, NOW, writes=True)
        for key in ("used", "unused"):
            folder.put(key, Built("x", source_map="map"))
        used, old = NOW.timestamp(), (NOW - MAX_AGE).timestamp() - 1
        for name, moment in {"used.json": used, "used.map": old, "unused.json": old, "unused.map": used}.items():
            os.utime(tmp_path / "builds" / name, (moment, moment))
        BuildFolder(tmp_path, NOW, writes=True)
        assert sorted(path.name for path in (tmp_path / "builds").iterdir()) == ["used.json", "used.map"]

    def test_old_builds_are_pruned_from_the_cache(self, tmp_path: Path) -> None:
        """Those that were unused for longest go first, and files that an interrupted write left behind."""
        folder = BuildFolder(tmp_path, NOW, writes=True)
        for number in range(MAX_BUILDS + 3):
            folder.put(f"k{number}", Built("x"))
            os.utime(tmp_path / "builds" / f"k{number}.json", (NOW.timestamp() - number,) * 2)
        (tmp_path / "builds" / "k.1.part").write_text("")
        folder.put_findings(b"{}")
        folder.put_result(b"{}")
        BuildFolder(tmp_path, NOW, writes=True)
        kept = {path.name for path in (tmp_path / "builds").iterdir()} - {FINDINGS, RESULT}
        assert len(kept) == MAX_BUILDS
        assert f"k{MAX_BUILDS}.json" not in kept
        later = BuildFolder(tmp_path, datetime.now(UTC) + MAX_AGE + timedelta(days=1), writes=True)
        assert {path.name for path in (tmp_path / "builds").iterdir()} == {FINDINGS, RESULT}
        assert later.findings() == later.result() == b"{}", "of each there is one, so no age is asked for"

    def test_findings_and_results_beyond_the_limit_are_not_stored(self, tmp_path: Path) -> None:
        """Code that was pushed must not fill the disk."""
        folder = BuildFolder(tmp_path, NOW, writes=True)
        for put, get in ((folder.put_findings, folder.findings), (folder.put_result, folder.result)):
            put(b"x" * (MAX_WHOLE - 65))
            put(b"y" * (MAX_WHOLE - 64))
            assert get() == b"x" * (MAX_WHOLE - 65)

    def test_an_unwritable_build_cache_is_not_an_error(self, tmp_path: Path) -> None:
        """Everything is then built again in each process."""
        (tmp_path / "builds").write_text("a file where the folder should be")
        folder = BuildFolder(tmp_path, NOW, writes=True)
        folder.put("key", self.BUILT)
        assert folder.get("key") is None


@needs_esbuild
async def test_a_cancelled_build_leaves_no_process_and_no_temporary_folder(tmp_path: Path) -> None:
    """Neither a process nor a staging folder stays."""
    counted = Counted(tmp_path, 'case "$1" in --version) ;; *) sleep 600;; esac')
    bench = Workbench(places=counted.places)
    own = tmp_path / "temporary"
    own.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(own)
    try:
        for name in ("first.ts", "plain.js"):
            runs = counted.processes
            task = asyncio.create_task(bench.builder.build([entry(name)], source_files(TEXTS)))
            while counted.processes < runs + 1 + (runs == 0):  # noqa: ASYNC110 - another process writes that log
                await asyncio.sleep(0.01)
            assert list(own.iterdir())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not list(own.iterdir())
    finally:
        tempfile.tempdir = before


async def test_no_content_of_plain_code_is_kept_between_builds() -> None:
    """Its digest tells the next build that nothing has changed; a daemon would hold all code of a folder otherwise."""
    bench, files = Workbench(), source_files({"plain.js": TEXTS["plain.js"]})
    one = entry("plain.js")
    for _ in range(2):
        (function,) = (await bench.builder.build([one], files)).functions
        assert function.code == TEXTS["plain.js"]
    content, control = files["plain.js"].content, TEXTS["plain.js"].encode()
    held, alone = sys.getrefcount(content), sys.getrefcount(control)
    assert held > alone, "the file has it"
    del files
    gc.collect()  # esbuild's output arrives through futures, which form cycles
    held = sys.getrefcount(content)
    assert held == alone, "and nobody else"
