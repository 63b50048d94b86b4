"""From a snapshot with a lock file to code: what is fetched, what is in the bundle, and which functions are blocked."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from kapso_sync.build import BuildResult
from kapso_sync.build.npm import NpmPackages, Registry, TarballCache
from kapso_sync.build.packages import NOT_CACHED
from kapso_sync.build.space import Space
from kapso_sync.errors import Problem
from kapso_sync.model.source import Revision, Snapshot, SourceFile
from kapso_sync.store.builds import BuildFolder
from tests.build.npm.registry import LoopbackRegistry, answer, lock, member, package_files, serving, tarball
from tests.build.workbench import SCRIPT, Texts, Workbench, answers, entry, needs_esbuild, needs_node, source_files
from tests.clock import VirtualClock

pytestmark = needs_esbuild


@dataclass
class GitBench:
    """Builds snapshots of a git source, from pass to pass; ``locks`` are lock files by their folders."""

    folder: Path
    registry: LoopbackRegistry
    path: str = "functions"
    online: bool = True
    locks: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache = TarballCache(self.folder / "packages")
        self.bench = Workbench(store=BuildFolder(self.folder, datetime.now(UTC), writes=True))
        self.registry_client = Registry(
            self.registry.url, lambda: httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False), VirtualClock()
        )
        self.packages = NpmPackages(self.registry_client, self.cache, online=self.online)

    def snapshot(self, texts: Texts) -> Snapshot:
        above = {folder: content for folder, content in self.locks.items() if not f"{folder}/".startswith(f"{self.path}/")}
        inside = {
            f"{folder}/package-lock.json".removeprefix(f"{self.path}/"): content
            for folder, content in self.locks.items()
            if folder not in above
        }
        return Snapshot(
            "test",
            Revision("c0ffee"),
            self.path,
            source_files({**texts, **inside}),
            lock_files={folder: SourceFile("package-lock.json", content) for folder, content in above.items()},
        )

    def build(self, texts: Texts, *files: str) -> BuildResult:
        """One pass."""
        snapshot = self.snapshot(texts)
        wanted = [entry(file) for file in files or texts]
        return asyncio.run(self.bench.builder.build(wanted, snapshot.files, self.packages(snapshot)))

    def codes(self, texts: Texts) -> dict[str, str]:
        """The code of each function; all of them must be sound."""
        made = self.build(texts)
        assert not made.unusable, made.unusable
        return {function.slug: function.code for function in made.functions}

    def problem(self, texts: Texts) -> Problem:
        """What blocks the only function."""
        (unusable,) = self.build(texts).unusable
        assert unusable.blocked
        (found,) = unusable.problems
        return found


@pytest.fixture
def bench(tmp_path: Path, registry: LoopbackRegistry) -> GitBench:
    return GitBench(tmp_path, registry)


def imports(*names: str) -> str:
    """A function that answers with what these packages export as default."""
    lines = [f"import p{number} from {name!r};" for number, name in enumerate(names)]
    said = ", ".join(f"p{number}" for number in range(len(names)))
    return "\n".join([*lines, f"export default () => new Response([{said}].join());"])


def esm(name: str, code: str, version: str = "1.0.0", **about: object) -> dict[str, str | bytes]:
    return package_files(name, code, version, type="module", **about)


@needs_node
def test_a_function_of_a_git_source_is_built_with_the_packages_of_the_lock_file(bench: GitBench) -> None:
    """A dependency of a dependency, a nested version, a scope, an alias, CommonJS; nothing else is fetched or bundled."""
    add = bench.registry.add
    bench.locks[""] = lock(
        {
            "node_modules/a": add("a", esm("a", "import b from 'b'; export default 'a+' + b;"), dependencies={"b": "^2"}),
            "node_modules/a/node_modules/b": add("b", esm("b", "export default 'b2';", "2.0.0"), "2.0.0"),
            "node_modules/b": add("b", package_files("b", "module.exports = 'b1';")),
            "node_modules/@scope/c": add("@scope/c", esm("@scope/c", "export default 'c';")),
            "node_modules/old": add("b", esm("b", "export default 'b0';", "0.1.0"), "0.1.0", name="b"),
            **{f"node_modules/other{number}": add(f"other{number}", esm("x", "")) for number in range(300)},
        }
    )
    made = bench.build({"f.ts": imports("a", "b", "@scope/c", "old")})
    (function,) = made.functions
    assert answers([function.code], SCRIPT) == [(200, "a+b2,b1,c,b0")]
    assert sorted(bench.registry.asked) == [
        "/@scope/c/-/c-1.0.0.tgz",
        "/a/-/a-1.0.0.tgz",
        "/b/-/b-0.1.0.tgz",
        "/b/-/b-1.0.0.tgz",
        "/b/-/b-2.0.0.tgz",
    ]
    assert [(one.name, one.version, one.license) for one in function.packages] == [
        ("@scope/c", "1.0.0", "MIT"),
        ("a", "1.0.0", "MIT"),
        ("b", "0.1.0", "MIT"),
        ("b", "1.0.0", "MIT"),
        ("b", "2.0.0", "MIT"),
    ]
    assert "// ../node_modules/a/node_modules/b/main.js" in function.code
    assert str(bench.folder) not in function.code
    assert not [path for path in (bench.folder / "packages").iterdir() if path.suffix != ".tgz"]


def test_the_same_lock_file_gives_the_same_bytes_in_any_folder(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Whatever the state folder's path, and whatever else is built with it."""
    locks = {"": lock({"node_modules/a": registry.add("a", esm("a", "export default 'a';"))})}
    one = GitBench(tmp_path / "one", registry, locks=locks).codes({"f.ts": imports("a")})
    other = GitBench(tmp_path / "another place", registry, locks=locks).codes({"f.ts": imports("a"), "g.ts": imports("a", "a")})
    assert one["f"] == other["f"]


def test_functions_share_what_was_fetched_and_unchanged_ones_are_not_built_again(bench: GitBench) -> None:
    """Nor by a new process: the build's key holds the packages, so that not even the cache of packages is needed."""
    bench.locks[""] = lock({"node_modules/a": bench.registry.add("a", esm("a", "export default 'a';"))})
    texts = {"f.ts": imports("a"), "g.ts": imports("a", "a")}
    first = bench.codes(texts)
    assert bench.registry.asked == ["/a/-/a-1.0.0.tgz"]
    for kept in (bench.folder / "packages").iterdir():
        kept.unlink()
    assert bench.codes(texts) == first
    assert GitBench(bench.folder, bench.registry, locks=bench.locks).codes(texts) == first
    assert bench.registry.asked == ["/a/-/a-1.0.0.tgz"]


def test_a_changed_lock_file_changes_the_code(bench: GitBench) -> None:
    """Another version, the same version with other content, and back, all in one process."""
    add = bench.registry.add
    one = {"node_modules/a": add("a", esm("a", "export default 'first';"))}
    two = {"node_modules/a": add("a", esm("a", "export default 'second';", "2.0.0"), "2.0.0")}
    deep = {"node_modules/a": add("a", esm("a", "export {default} from 'b';", "3.0.0"), "3.0.0", dependencies={"b": "*"})}
    deeper = [
        {**deep, "node_modules/b": add("b", esm("b", f"export default 'deep{version}';"), version)}
        for version in ("1.0.0", "1.0.1")
    ]
    seen = []
    for packages in (one, two, one, *deeper):
        bench.locks[""] = lock(packages)
        (found,) = re.findall(r"(?:first|second|deep[\d.]+)", bench.codes({"f.ts": imports("a")})["f"])
        seen.append(found)
    assert seen == ["first", "second", "first", "deep1.0.0", "deep1.0.1"]


def test_a_lock_file_in_the_functions_folder_or_in_a_function_s_own_goes_first(bench: GitBench) -> None:
    """As `node_modules` would: each file sees the nearest, and then those above."""
    add = bench.registry.add
    bench.locks |= {
        "": lock(
            {
                "node_modules/a": add("a", esm("a", "export default 'root';")),
                "node_modules/b": add("b", esm("b", "export default 'b';")),
            }
        ),
        "functions": lock({"node_modules/a": add("a", esm("a", "export default 'home';", "2.0.0"), "2.0.0")}),
        "functions/deep": lock({"node_modules/a": add("a", esm("a", "export default 'deep';", "3.0.0"), "3.0.0")}),
    }
    codes = bench.codes({"f.ts": imports("a", "b"), "deep/g.ts": imports("a", "b")})
    assert ('"home"' in codes["f"], '"b"' in codes["f"]) == (True, True)
    assert ('"deep"' in codes["g"], '"b"' in codes["g"]) == (True, True)


def test_a_workspace_has_its_versions_in_the_lock_file_of_the_root(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """A workspace's own version goes before the root's; a link to a workspace is refused."""
    bench = GitBench(tmp_path, registry, "apps/fns")
    bench.locks[""] = lock(
        {
            "apps/fns": {"name": "fns", "dependencies": {"a": "^2"}},
            "node_modules/fns": {"resolved": "apps/fns", "link": True},
            "node_modules/a": registry.add("a", esm("a", "export default 'root';")),
            "apps/fns/node_modules/a": registry.add("a", esm("a", "export default 'own';", "2.0.0"), "2.0.0"),
        }
    )
    assert '"own"' in bench.codes({"f.ts": imports("a")})["f"]
    found = bench.problem({"f.ts": imports("fns")})
    assert found.message == (
        "the npm package `fns`: it is a link to a folder of the repository, which a git source does not follow"
    )


@needs_node
def test_bundled_packages_come_from_the_tarball_that_carries_them(bench: GitBench) -> None:
    """They have no tarball of their own; one with a folder in the same place but its own entry replaces what is carried."""
    carrier = {
        **esm("a", "import b from 'b'; import c from 'c'; export default b + c;", bundleDependencies=["b"]),
        **{f"node_modules/b/{name}": content for name, content in esm("b", "export default 'carried';").items()},
        **{f"node_modules/c/{name}": content for name, content in esm("c", "export default 'smuggled';").items()},
        "node_modules/c/extra.js": "left over",
    }
    bench.locks[""] = lock(
        {
            "node_modules/a": bench.registry.add("a", carrier, dependencies={"b": "1", "c": "1"}, bundleDependencies=["b"]),
            "node_modules/a/node_modules/b": {"version": "1.0.0", "inBundle": True},
            "node_modules/a/node_modules/c": bench.registry.add("c", esm("c", "export default '+pinned';")),
        }
    )
    assert answers([bench.codes({"f.ts": imports("a")})["f"]], SCRIPT) == [(200, "carried+pinned")]


def test_types_and_runtime_modules_need_no_package(bench: GitBench) -> None:
    """What a build drops is not fetched."""
    bench.locks[""] = lock({"node_modules/a": bench.registry.add("a", esm("a", "export default 'a';"))})
    text = "import type { A } from 'a';\nexport default (x: A) => new Response(String(x));"
    assert "import" not in bench.codes({"f.ts": text})["f"]
    assert bench.registry.asked == []


def test_without_a_registry_a_function_that_imports_a_package_is_blocked(tmp_path: Path) -> None:
    """The hint names the setting; functions without packages are built."""
    made = Workbench().build({"f.ts": imports("zod"), "g.ts": "export default () => new Response('x');"}, "f.ts", "g.ts")
    assert [function.slug for function in made.functions] == ["g"]
    (blocked,) = made.unusable
    assert blocked.blocked
    assert "set KAPSO_SYNC_NPM_REGISTRY" in (blocked.problems[0].hint or "")
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_the_code_is_invalid_although_a_package_is_missing_as_well(bench: GitBench) -> None:
    """Blocked is only what may be right; what is wrong in any case is told as such."""
    made = bench.build({"f.ts": "import './gone';\n" + imports("zod")})
    assert not made.unusable[0].blocked
    assert {problem.code for problem in made.unusable[0].problems} == {"unresolved-import", "package-unavailable"}


@pytest.mark.parametrize(
    ("lock_file", "said"),
    [
        (None, "no package-lock.json above the file has the npm package `zod`"),
        (lock({}), "no package-lock.json above the file has the npm package `zod`"),
        (lock({}, version=1), "package-lock.json has lockfileVersion 1, and 2 or 3 is read"),
        (b"{", "package-lock.json is not JSON"),
    ],
)
def test_a_package_that_no_lock_file_pins_blocks_its_function(bench: GitBench, lock_file: bytes | None, said: str) -> None:
    """At the place of the import; nothing is asked for."""
    bench.locks |= {} if lock_file is None else {"": lock_file}
    found = bench.problem({"f.ts": imports("zod/v4")})
    assert (found.message, str(found.location)) == (said, "f.ts:1:16")
    assert bench.registry.asked == []


def broken(registry: LoopbackRegistry, **changes: object) -> dict[str, object]:
    """The entry of a package that was published and then changed in the lock file."""
    return {**registry.add("bad", esm("bad", "export default 'bad';")), **changes}


HOSTILE: Mapping[str, tuple[bytes, str]] = {
    "link": (tarball({}, member("package/x", b"2", "/etc/passwd")), "the tarball of `bad` 1.0.0 holds a link"),
    "outside": (tarball({"../../../evil.js": "x"}, root="package"), "the tarball of `bad` 1.0.0 holds a file with `..`"),
    "absolute": (tarball({"x": "x"}, root="/etc"), "the tarball of `bad` 1.0.0 holds a file with an absolute path"),
    "device": (tarball({}, member("package/x", b"3")), "the tarball of `bad` 1.0.0 holds a special file"),
    "garbage": (b"garbage", "the tarball of `bad` 1.0.0 is not a tar archive"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tarball_blocks_only_the_functions_that_need_it(bench: GitBench, kind: str) -> None:
    """Although its integrity is right; the others are built with their own packages."""
    content, said = HOSTILE[kind]
    add = bench.registry.add
    bench.locks[""] = lock(
        {
            "node_modules/bad": add("bad", content),
            "node_modules/good": add("good", esm("good", "export default 'good';")),
            "node_modules/over": add("over", esm("over", "export {default} from 'bad';"), dependencies={"bad": "1"}),
        }
    )
    made = bench.build({"f.ts": imports("good"), "g.ts": imports("good", "over"), "h.ts": imports("bad")})
    assert [function.slug for function in made.functions] == ["f"]
    assert [(one.slug, one.blocked, len(one.problems)) for one in made.unusable] == [("g", True, 1), ("h", True, 1)]
    assert all(said in one.problems[0].message for one in made.unusable)
    assert [one.problems[0].message.endswith("(`over` needs it)") for one in made.unusable] == [True, False]
    assert {path.suffix for path in (bench.folder / "packages").iterdir()} == {".tgz"}
    assert not (bench.folder / "evil.js").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"integrity": None}, "has no integrity for it"),
        ({"integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="}, "has only sha1 for it, and sha512 is needed"),
        ({"resolved": "git+ssh://git@github.com/a/bad.git#abc"}, "it comes from a git repository"),
        ({"resolved": "file:../bad.tgz"}, "it comes from a file"),
        ({"resolved": "../bad", "link": True}, "it is a link to a folder"),
        ({"integrity": "sha512-" + "A" * 86 + "=="}, "is not what the lock file pins"),
        ({"resolved": "https://codeload.github.com/a/bad/tar.gz/abc"}, "answers 404 for `bad` 1.0.0 at /a/bad/tar.gz/abc"),
        ({"version": "9.0.0", "resolved": None}, "answers 404 for `bad` 9.0.0 at /bad/-/bad-9.0.0.tgz"),
    ],
)
def test_an_entry_that_cannot_be_fetched_blocks_its_function(bench: GitBench, changes: dict[str, object], said: str) -> None:
    """With a true reason; nothing is asked of any other host."""
    bench.locks[""] = lock({"node_modules/bad": broken(bench.registry, **changes)})
    assert said in bench.problem({"f.ts": imports("bad")}).message


def test_no_other_host_is_asked_whatever_the_lock_file_says(bench: GitBench) -> None:
    """A control: the host that `resolved` names is up, has the package, and hears nothing."""
    with serving() as other:
        one = bench.registry.add("a", esm("a", "export default 'a';"))
        other.add("a", bench.registry.tarballs["/a/-/a-1.0.0.tgz"])
        bench.locks[""] = lock({"node_modules/a": {**one, "resolved": f"{other.url}/a/-/a-1.0.0.tgz"}})
        assert '"a"' in bench.codes({"f.ts": imports("a")})["f"]
        bench.locks[""] = lock({"node_modules/b": {**other.add("b", esm("b", "")), "resolved": f"{other.url}/b/-/b-1.0.0.tgz"}})
        assert "answers 404" in bench.problem({"f.ts": imports("b")}).message
        assert (bench.registry.asked, other.asked) == (["/a/-/a-1.0.0.tgz", "/b/-/b-1.0.0.tgz"], [])


def test_npmrc_scripts_and_configuration_have_no_effect(bench: GitBench) -> None:
    """Neither those of the repository nor those of a package: nothing is run, no other registry is read."""
    trap = bench.folder / "trap"
    run = {
        "preinstall": f"touch {trap}",
        "install": f"touch {trap}",
        "postinstall": f"touch {trap}",
        "prepare": f"touch {trap}",
    }
    files = {
        **esm("a", "export default 'a';", scripts=run, gypfile=True),
        ".npmrc": "registry=https://evil.example\n",
        "binding.gyp": "{}",
    }
    bench.locks[""] = lock({"node_modules/a": bench.registry.add("a", files, hasInstallScript=True)})
    for name in (".npmrc", "functions/.npmrc"):
        (bench.folder / name).parent.mkdir(exist_ok=True)
        (bench.folder / name).write_text("registry=https://evil.example\n//127.0.0.1/:_authToken=x\n")
    assert '"a"' in bench.codes({"f.ts": imports("a")})["f"]
    assert not trap.exists()
    assert "Authorization" not in bench.registry.headers[0]


def test_a_registry_that_was_down_is_asked_again_at_the_next_pass(bench: GitBench) -> None:
    """The function is blocked meanwhile, and the others are built."""
    bench.locks[""] = lock({"node_modules/a": bench.registry.add("a", esm("a", "export default 'a';"))})
    bench.registry.sends["/a/-/a-1.0.0.tgz"] = answer(503)
    texts = {"f.ts": imports("a"), "g.ts": "export default () => new Response('x');"}
    assert [function.slug for function in bench.build(texts).functions] == ["g"]
    bench.registry.sends.clear()
    assert set(bench.codes(texts)) == {"f", "g"}


def test_offline_what_the_cache_has_is_built_and_the_rest_is_named(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """`validate` makes no request."""
    locks = {
        "": lock(
            {
                "node_modules/a": registry.add("a", esm("a", "export default 'a';")),
                "node_modules/b": registry.add("b", esm("b", "export default 'b';")),
            }
        )
    }
    GitBench(tmp_path / "online", registry, locks=locks).codes({"f.ts": imports("a")})
    registry.asked.clear()
    offline = GitBench(tmp_path / "offline", registry, online=False, locks=locks)
    offline.cache = TarballCache(tmp_path / "offline", tmp_path / "online" / "packages")
    offline.packages = NpmPackages(Registry(registry.url, httpx.AsyncClient, VirtualClock()), offline.cache, online=False)
    assert '"a"' in offline.codes({"f.ts": imports("a")})["f"]
    found = offline.problem({"g.ts": imports("b")})
    assert (found.code, found.message) == (NOT_CACHED, "`b` 1.0.0 is not in the cache")
    assert registry.asked == []


def test_a_package_that_imports_what_it_does_not_declare_is_told(bench: GitBench) -> None:
    """Whether another function happens to bring it or not: the result never depends on what else is built."""
    bench.locks[""] = lock(
        {
            "node_modules/a": bench.registry.add("a", esm("a", "export {default} from 'hoisted';")),
            "node_modules/hoisted": bench.registry.add("hoisted", esm("hoisted", "export default 'h';")),
        }
    )
    (alone,) = bench.build({"f.ts": imports("a")}).unusable
    assert 'Could not resolve "hoisted"' in alone.problems[0].message
    other = GitBench(bench.folder / "other", bench.registry, locks=bench.locks)
    made = other.build({"f.ts": imports("a"), "g.ts": imports("a", "hoisted"), "h.ts": imports("hoisted")})
    assert [function.slug for function in made.functions] == ["g", "h"]
    (again,) = made.unusable
    assert "a package imports `hoisted`, which it does not declare" in again.problems[0].message


def test_packages_that_do_not_fit_together_are_built_in_one_after_the_other(bench: GitBench) -> None:
    """Whatever the order of their folders; only a function whose own packages are too large is blocked."""

    def large(name: str, size: int = 4000) -> dict[str, object]:
        files = {**esm(name, f"export default '{name}';"), "unused.js": "x" * size}
        return bench.registry.add(name, files)

    bench.locks[""] = lock({f"node_modules/{name}": large(name) for name in "abcdef"} | {"node_modules/g": large("g", 20_000)})
    bench.packages = NpmPackages(bench.registry_client, bench.cache, new_space=lambda: Space(bytes=10_000))
    texts = {"f.ts": imports("a", "d"), "g.ts": imports("b", "e"), "h.ts": imports("c", "f"), "i.ts": imports("g")}
    texts |= {"j.ts": imports("a"), "k.ts": "export default () => new Response('x');"}
    made = bench.build(texts)
    assert [function.slug for function in made.functions] == ["f", "g", "h", "j", "k"]
    (blocked,) = made.unusable
    assert (blocked.slug, blocked.blocked) == ("i", True)
    assert "does not fit" in blocked.problems[0].message
    assert len(bench.registry.asked) == 7


def test_code_that_esbuild_refuses_is_not_built_again_until_something_changes(bench: GitBench) -> None:
    """What the lock file pins cannot change by itself: neither esbuild nor the registry is asked at the next pass."""
    one = {"node_modules/a": bench.registry.add("a", esm("a", "export const other = 1;"))}
    bench.locks[""] = lock(one)
    texts = {"f.ts": "import { gone } from 'a';\nexport default () => new Response(gone());"}
    (first,) = bench.build(texts).unusable
    assert [problem.code for problem in first.problems] == ["build"]
    for kept in (bench.folder / "packages").iterdir():
        kept.unlink()
    assert bench.build(texts).unusable == (first,)
    assert len(bench.registry.asked) == 1
    mended = bench.registry.add("a", esm("a", "export const gone = () => 'x';", "1.0.1"), "1.0.1")
    bench.locks[""] = lock({"node_modules/a": mended})
    assert not bench.build(texts).unusable


async def test_a_build_that_is_cancelled_leaves_no_unpacked_package(bench: GitBench) -> None:
    """While a thread unpacks: the folder is removed after it has ended, and not before."""
    files = {**esm("a", "export default 'a';"), **{f"lib/{number}.js": "x" * 2000 for number in range(3000)}}
    bench.locks[""] = lock({"node_modules/a": bench.registry.add("a", files)})
    snapshot = bench.snapshot({"f.ts": imports("a")})
    building = asyncio.create_task(bench.bench.builder.build([entry("f.ts")], snapshot.files, bench.packages(snapshot)))
    while not list(bench.folder.glob("packages/tree-*/node_modules/a/lib/*")):
        await asyncio.sleep(0.001)
        assert not building.done()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    await asyncio.get_running_loop().shutdown_default_executor()
    assert [path.suffix for path in (bench.folder / "packages").iterdir()] == [".tgz"]


def test_two_packages_with_one_content_are_fetched_by_their_own_names(bench: GitBench) -> None:
    """One that the registry does not have takes nothing from the other."""
    one = bench.registry.add("a", esm("a", "export default 'a';"))
    gone = {**one, "resolved": "https://registry.npmjs.org/gone/-/gone-1.0.0.tgz", "name": "gone"}
    bench.locks[""] = lock({"node_modules/a": one, "node_modules/b": gone, "node_modules/c": one})
    made = bench.build({"f.ts": imports("a"), "g.ts": imports("b"), "h.ts": imports("c")})
    assert [function.slug for function in made.functions] == ["f", "h"]
    assert sorted(bench.registry.asked) == ["/a/-/a-1.0.0.tgz", "/gone/-/gone-1.0.0.tgz"]


def test_a_cache_that_cannot_be_written_blocks_and_does_not_crash(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Functions without packages go on."""
    (tmp_path / "packages").write_text("in the way")
    bench = GitBench(tmp_path, registry)
    bench.locks[""] = lock({"node_modules/a": registry.add("a", esm("a", "export default 'a';"))})
    made = bench.build({"f.ts": imports("a"), "g.ts": "export default () => new Response('x');"})
    assert [function.slug for function in made.functions] == ["g"]
    assert "cannot be unpacked in the state folder" in made.unusable[0].problems[0].message
