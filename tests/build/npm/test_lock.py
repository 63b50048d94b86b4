"""What a lock file says: which package an import means, what it needs, where it is fetched, and what is refused."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest

from kapso_sync.build.npm.lock import MAX_NEEDS, MAX_PACKAGES, LockedPackage, LockedTree, read_lock_file, tarball_path
from kapso_sync.build.packages import Refusal
from kapso_sync.model.source import SourceFile
from tests.build.npm.registry import lock, sri

REGISTRY = "https://npm.acme.dev/api/npm/all"
GOOD = sri(b"content")


def entry(version: str = "1.0.0", **more: object) -> dict[str, object]:
    """An entry that can be fetched."""
    return {"version": version, "integrity": GOOD, **more}


def tree(packages: dict[str, object], **others: bytes) -> LockedTree:
    """The tree of a lock file at the root, and of others in folders."""
    files = {"": lock(packages), **others}
    return LockedTree([read_lock_file(folder, SourceFile("x", content)) for folder, content in files.items()], REGISTRY)


def found(where: LockedTree, folder: str, name: str) -> str | None:
    package = where.find(folder, name)
    assert not isinstance(package, Refusal), package
    return package.location if package is not None else None


def reached(where: LockedTree, *names: str) -> list[str]:
    """The folders of all packages that imports of these names need."""
    starts = [package for name in names if isinstance(package := where.find("", name), LockedPackage)]
    return [package.location for package in where.closure(starts)]


def refusal(one: object) -> str:
    """Why the only package of a lock file cannot be used."""
    package = tree({"node_modules/a": one}).find("", "a")
    assert isinstance(package, LockedPackage)
    assert package.refusal is not None, package
    assert package.tarball == ""
    return package.refusal.reason


def test_an_import_means_the_nearest_package_as_node_finds_it() -> None:
    """From the functions folder upwards, workspaces and nested versions included; nothing is found beside the road."""
    where = tree(
        {
            "node_modules/a": entry(),
            "node_modules/a/node_modules/b": entry("2.0.0"),
            "node_modules/b": entry("1.0.0"),
            "services/fns/node_modules/b": entry("3.0.0"),
            "other/node_modules/c": entry(),
            "node_modules/@scope/d": entry(),
        }
    )
    assert found(where, "services/fns/lib", "b") == "services/fns/node_modules/b"
    assert found(where, "services", "b") == "node_modules/b"
    assert found(where, "node_modules/a", "b") == "node_modules/a/node_modules/b"
    assert found(where, "node_modules/a/node_modules/b", "a") == "node_modules/a"
    assert found(where, "services", "@scope/d") == "node_modules/@scope/d"
    assert [found(where, "services", name) for name in ("c", "missing", "@scope", "", "..", "a/../b", "node_modules")] == [
        None
    ] * 7


def test_a_lock_file_in_a_folder_goes_before_the_one_above_it() -> None:
    """Each of its packages does; what it lacks is found above."""
    where = tree(
        {"node_modules/a": entry("1.0.0"), "node_modules/b": entry("1.0.0"), "fns/node_modules/a": entry("9.0.0")},
        fns=lock({"node_modules/a": entry("2.0.0")}),
    )
    near = where.find("fns", "a")
    assert isinstance(near, LockedPackage)
    assert (near.location, near.version) == ("fns/node_modules/a", "2.0.0")
    assert found(where, "fns", "b") == "node_modules/b"


def test_a_lock_file_that_cannot_be_read_ends_the_search() -> None:
    """It may have had the package, in another version than the one above it."""
    where = tree({"node_modules/a": entry()}, fns=b"{")
    problem = where.find("fns/lib", "a")
    assert isinstance(problem, Refusal)
    assert problem.reason == "fns/package-lock.json is not JSON"
    assert found(where, "", "a") == "node_modules/a"


def test_only_what_an_import_needs_is_reached() -> None:
    """Dependencies of dependencies, cycles, peers and optional ones; no other of the lock file's packages."""
    where = tree(
        {
            "node_modules/a": entry(dependencies={"b": "1"}, devDependencies={"dev": "1"}, peerDependencies={"peer": "*"}),
            "node_modules/b": entry(dependencies={"a": "1", "gone": "1"}, optionalDependencies={"maybe": "1"}),
            "node_modules/maybe": entry(optional=True),
            "node_modules/peer": entry(peer=True),
            "node_modules/dev": entry(dev=True),
            "node_modules/other": entry(),
        }
    )
    assert reached(where, "a") == ["node_modules/a", "node_modules/b", "node_modules/maybe", "node_modules/peer"]
    assert reached(where, "dev") == ["node_modules/dev"]


def test_optional_packages_for_other_machines_or_of_a_refused_kind_are_left_out() -> None:
    """Npm does without them as well; one that is required is not left out."""
    where = tree(
        {
            "node_modules/a": entry(
                optionalDependencies={"linux": "1", "git": "1"}, peerDependencies={"link": "*"}, dependencies={"must": "1"}
            )
            | {"peerDependenciesMeta": {"link": {"optional": True}}},
            "node_modules/linux": entry(os=["linux"], optional=True),
            "node_modules/git": {"version": "1.0.0", "resolved": "git+ssh://git@github.com/a/b.git#1", "optional": True},
            "node_modules/link": {"resolved": "packages/link", "link": True},
            "node_modules/must": entry(cpu=["x64"]),
        }
    )
    assert reached(where, "a") == ["node_modules/a", "node_modules/must"]


def test_a_bundled_package_comes_with_the_one_that_carries_it() -> None:
    """However deep it lies in it; without a carrier it is refused."""
    where = tree(
        {
            "node_modules/a": entry(bundleDependencies=["b"], dependencies={"b": "1"}),
            "node_modules/a/node_modules/b": {"version": "1.0.0", "inBundle": True, "dependencies": {"c": "1"}},
            "node_modules/a/node_modules/b/node_modules/c": {"version": "1.0.0", "inBundle": True},
        }
    )
    packages = {package.location: package for package in where.closure([p for p in [where.read("node_modules/a")] if p])}
    assert {location: package.carrier for location, package in packages.items()} == {
        "node_modules/a": None,
        "node_modules/a/node_modules/b": "node_modules/a",
        "node_modules/a/node_modules/b/node_modules/c": "node_modules/a",
    }
    assert where.carries("node_modules/a")
    assert not where.carries("node_modules/b")
    assert refusal({"version": "1.0.0", "inBundle": True}) == "no package carries it"


def test_an_alias_is_fetched_by_its_real_name() -> None:
    """`npm install old@npm:zod@3`."""
    package = tree({"node_modules/old": entry("3.1.0", name="zod")}).find("", "old")
    assert isinstance(package, LockedPackage)
    assert (package.location, package.tarball) == ("node_modules/old", "zod/-/zod-3.1.0.tgz")
    assert package.shown == "`zod` 3.1.0"


def test_a_lock_file_made_to_be_slow_is_read_in_time() -> None:
    """Within 8 MiB: packages that name thousands of others, one folder a hundred thousand deep, everything carried."""
    names = dict.fromkeys((f"p{number}" for number in range(MAX_NEEDS)), "1")
    many: dict[str, object] = {f"node_modules/p{number}": entry(dependencies=names) for number in range(MAX_NEEDS)}
    deep = "/".join(["node_modules/a"] * 100_000)
    carried: dict[str, object] = {f"node_modules/a/node_modules/c{number}": {"inBundle": True} for number in range(50_000)}
    started = time.process_time()
    where = tree(
        {**many, **carried, deep: {"inBundle": True}, "node_modules/greedy": entry(dependencies={**names, "one": "1"})}
    )
    for number in range(5):
        assert len(reached(where, f"p{number}")) == MAX_NEEDS
        assert where.carries("node_modules/a")
    assert time.process_time() - started < 20
    greedy = where.find("", "greedy")
    assert isinstance(greedy, LockedPackage)
    assert greedy.refusal is not None
    assert greedy.refusal.reason == "it needs more than 200 packages itself"


def test_packages_that_need_many_far_above_them_or_nowhere_are_followed_in_time() -> None:
    """A thousand of them, 25 folders deep, each with 190 needs: for each need all folders above are looked at."""
    chain = ["/".join(["node_modules/a"] * depth) for depth in range(1, 25)]
    missing = {f"m{number}": "1" for number in range(MAX_NEEDS - 10)}
    deep: dict[str, object] = {
        f"{chain[-1]}/node_modules/q{number}": entry(dependencies={**missing, f"q{number + 1}": "1"}) for number in range(900)
    }
    known: dict[str, object] = {f"node_modules/x/node_modules/m{number}": entry() for number in range(100)}
    where = tree({**dict.fromkeys(chain, entry(dependencies={"a": "1", "q0": "1"})), **deep, **known})
    started = time.process_time()
    assert len(reached(where, "a")) == 924
    assert time.process_time() - started < 5


def test_a_function_may_need_a_thousand_packages() -> None:
    """The search ends just above that."""
    chain: dict[str, object] = {
        f"node_modules/p{number}": entry(dependencies={f"p{number + 1}": "1"}) for number in range(MAX_PACKAGES + 50)
    }
    assert len(reached(tree(chain), "p0")) == MAX_PACKAGES + 1
    assert len(reached(tree(chain), "p60")) == MAX_PACKAGES - 10


@pytest.mark.parametrize(
    ("resolved", "path"),
    [
        (None, "zod/-/zod-3.1.0.tgz"),
        (True, "zod/-/zod-3.1.0.tgz"),
        ("https://registry.npmjs.org/zod/-/zod-3.1.0.tgz", "zod/-/zod-3.1.0.tgz"),
        ("https://evil.example/zod/-/zod-3.1.0.tgz", "zod/-/zod-3.1.0.tgz"),
        ("http://user:secret@10.0.0.1:8080/api/npm/x/zod/-/zod-3.1.0.tgz?token=1#x", "zod/-/zod-3.1.0.tgz"),
        ("https://npm.acme.dev/api/npm/all/download/zod/3.1.0/abc", "download/zod/3.1.0/abc"),
        ("https://npm.pkg.github.com/download/zod/3.1.0/abc", "download/zod/3.1.0/abc"),
        ("https://x/zod/-/zod-3.1.0%2Bbuild.1.tgz", "zod/-/zod-3.1.0+build.1.tgz"),
        ("https://x/zod/-/a%20b%3F%23.tgz", "zod/-/a%20b%3F%23.tgz"),
        ("https://x/zod/-/../../admin", None),
        ("https://x/zod/-/%2e%2e/admin", None),
        ("https://x/zod/-//other.example/y.tgz", None),
        ("https://x/zod/-/a%0d%0aHost:%20y", None),
        ("https://x/zod/-/%ff.tgz", None),
        ("https://x/zod/-/" + "a" * 1001, None),
        ("https://x", None),
        ("https://[x/zod/-/zod-3.1.0.tgz", None),
    ],
)
def test_a_tarball_is_named_below_our_registry_whatever_resolved_says(resolved: object, path: str | None) -> None:
    """Its host, port, user and query are left out; what is no path below the registry is refused."""
    assert tarball_path("zod", "3.1.0", resolved, urlsplit(REGISTRY)) == path


def test_a_scoped_package_is_named_as_registries_do() -> None:
    """npm's, in either spelling of the slash, and GitLab's; without `resolved` by name and version."""
    for resolved in (
        None,
        "https://registry.npmjs.org/@acme/ui/-/ui-2.0.0.tgz",
        "https://registry.npmjs.org/@acme%2fui/-/ui-2.0.0.tgz",
    ):
        assert tarball_path("@acme/ui", "2.0.0", resolved, urlsplit(REGISTRY)) == "@acme/ui/-/ui-2.0.0.tgz"
    gitlab = "https://gitlab.com/api/v4/projects/1/packages/npm/@acme/ui/-/@acme/ui-2.0.0.tgz"
    assert tarball_path("@acme/ui", "2.0.0", gitlab, urlsplit(REGISTRY)) == "@acme/ui/-/@acme/ui-2.0.0.tgz"


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        ({"resolved": "packages/a", "link": True}, "link to a folder"),
        (entry(link=True), "link to a folder"),
        (entry(resolved="git+ssh://git@github.com/a/b.git#abc"), "comes from a git repository"),
        (entry(resolved="git+https://github.com/a/b.git#abc"), "comes from a git repository"),
        (entry(resolved="git://github.com/a/b.git"), "comes from a git repository"),
        (entry(resolved="github:a/b"), "comes from a git repository"),
        (entry(resolved="ssh://git@x/a.git"), "comes from a git repository"),
        (entry(resolved="file:../a.tgz"), "comes from a file"),
        (entry(resolved="../a"), "comes from a file"),
        (entry(resolved="ftp://x/a.tgz"), "comes from a file"),
        (entry(resolved=7), "`resolved` is not a text"),
        ({"version": "1.0.0"}, "has no integrity"),
        (entry(integrity=None), "has no integrity"),
        (entry(integrity=""), "has no integrity"),
        (entry(integrity=sri(b"x", "sha1")), "has only sha1"),
        (entry(integrity=sri(b"x", "sha256")), "has only sha256"),
        (entry(integrity="sha512-AAAA"), "has only sha512"),
        (entry(integrity="sha512-%%%"), "has only sha512"),
        (entry(integrity=[GOOD]), "has no integrity"),
        (entry(name="../../etc"), "is not one of npm"),
        (entry(name="node_modules"), "is not one of npm"),
        ({"version": 3, "integrity": GOOD}, "is not one of npm"),
        (entry(version=""), "`resolved` in package-lock.json"),
        (None, "is not one of npm"),
        ([], "is not one of npm"),
    ],
)
def test_an_entry_that_no_registry_serves_by_its_sha512_is_refused(one: object, reason: str) -> None:
    """Each with its own reason, and nothing to fetch."""
    assert reason in refusal(one)


def test_an_integrity_with_several_hashes_is_one_of_its_sha512() -> None:
    """Weaker ones do not count, and options are ignored."""
    both = f"{sri(b'x', 'sha1')} {sri(b'one')}?opt {sri(b'two')}"
    package = tree({"node_modules/a": entry(integrity=both)}).find("", "a")
    assert isinstance(package, LockedPackage)
    assert package.refusal is None
    assert len(package.digests) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lock({}, version=1), "has lockfileVersion 1, and 2 or 3 is read"),
        (lock({}, version=4), "has lockfileVersion 4, and 2 or 3 is read"),
        (lock({}, version=True), "has no lockfileVersion"),
        (lock({}, version="3"), "has no lockfileVersion"),
        (b"[]", "has no lockfileVersion"),
        (b'{"lockfileVersion": 3}', "lists no `packages`"),
        (b'{"lockfileVersion": 3, "packages": []}', "lists no `packages`"),
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"version https://git-lfs.github.com/spec/v1", "is not JSON"),
    ],
)
def test_a_lock_file_that_lists_no_packages_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    """Version 1 knows no folders; 2 and 3 do. A control: version 2 is read."""
    found = read_lock_file("fns", SourceFile("package-lock.json", content))
    assert found.problem is not None
    assert reason in found.problem.reason
    assert found.problem.reason.startswith("fns/package-lock.json ")
    assert read_lock_file("", SourceFile("x", lock({}, version=2))).problem is None


def test_a_lock_file_that_was_not_read_says_why() -> None:
    """Too large, a symbolic link, a submodule."""
    found = read_lock_file("", SourceFile("package-lock.json", None, "is 9 MiB; the limit for a lock file is 8 MiB"))
    assert found.problem is not None
    assert found.problem.reason == "package-lock.json is 9 MiB; the limit for a lock file is 8 MiB"


def test_garbage_in_a_large_lock_file_harms_only_what_it_is_about() -> None:
    """1,500 packages with garbage among them: only what is asked for is looked at."""
    packages: dict[str, object] = {f"node_modules/p{number}": {"garbage": number} for number in range(1500)}
    where = tree({**packages, "node_modules/zod": entry(), "../../etc": entry(), "/abs": entry(), "node_modules/../x": entry()})
    assert reached(where, "zod") == ["node_modules/zod"]
    garbage = where.find("", "p7")
    assert isinstance(garbage, LockedPackage)
    assert garbage.refusal is not None
