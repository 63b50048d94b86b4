"""`validate`, `plan` and `sync` of a git repository whose functions import npm packages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.build.npm.registry import LoopbackRegistry, answer, lock, package_files, serving
from tests.build.workbench import needs_esbuild
from tests.program import Ran, answering, git, kapso_sync, write_functions
from tests.served import Served

pytestmark = needs_esbuild

IMPORTING = "import say from 'say';\nexport default () => new Response(say('hello'));\n"


@pytest.fixture
def registry() -> Iterator[LoopbackRegistry]:
    with serving() as running:
        yield running


class Pushed:
    """A repository with functions and a lock file at its root, and the commands on it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], registry: LoopbackRegistry) -> None:
        self.folder = folder
        self.registry = registry
        self.environment = {**environment, "KAPSO_SYNC_NPM_REGISTRY": registry.url}
        folder.mkdir()
        git(folder, "init", "--quiet", "--initial-branch=main")
        write_functions(folder / "functions", {"speaks": IMPORTING, "plain": answering("plain")})
        (folder / "package.json").write_text('{"dependencies": {"say": "*"}}')
        self.push("1.0.0", "one")

    def push(self, version: str, text: str, **about: object) -> None:
        """Publish a version of the package, and commit the lock file that pins it."""
        files = package_files("say", f"export default (name) => '{text} ' + name;", version, type="module", **about)
        (self.folder / "package-lock.json").write_bytes(lock({"node_modules/say": self.registry.add("say", files, version)}))
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--message", version)

    def run(self, command: str, *arguments: str, **environment: str) -> Ran:
        return kapso_sync(command, self.folder.as_uri(), *arguments, environment={**self.environment, **environment})

    def planned(self) -> dict[str, dict[str, Any]]:
        """Each function in the plan, by slug."""
        return {one["slug"]: one for one in self.run("plan", "--json").document["functions"]}


@pytest.fixture
def pushed(tmp_path: Path, environment: dict[str, str], registry: LoopbackRegistry) -> Pushed:
    return Pushed(tmp_path / "repository", environment, registry)


def test_a_git_source_is_planned_and_synced_with_its_packages(pushed: Pushed, kapso: Served, tmp_path: Path) -> None:
    """`plan` names them and writes nothing; `sync` keeps them, so that nothing is asked for again."""
    planned = pushed.planned()
    (package,) = planned["speaks"]["packages"]
    assert package == {"name": "say", "version": "1.0.0", "license": "MIT", "bytes": package["bytes"]}
    assert 0 < package["bytes"] < 200
    assert planned["plain"]["packages"] == []
    assert not (tmp_path / "state").exists()
    assert pushed.run("sync").code == 0
    deployed = {function["slug"]: function["code"] for function in kapso.control("GET", "/state")["functions"]}
    assert "'one '" in deployed["speaks"].replace('"', "'")
    asked = list(pushed.registry.asked)
    assert pushed.planned()["speaks"]["action"] == "none"
    assert pushed.planned()["speaks"]["packages"] == [package]
    assert pushed.run("validate").out == "Valid: 2 functions.\n"
    assert pushed.registry.asked == asked == ["/say/-/say-1.0.0.tgz"] * 2


def test_a_change_of_the_lock_file_alone_is_a_change(pushed: Pushed, kapso: Served) -> None:
    """Of the functions that import the package, and of no other."""
    assert pushed.run("sync").code == 0
    pushed.push("1.1.0", "two")
    assert {slug: one["action"] for slug, one in pushed.planned().items()} == {"speaks": "update", "plain": "none"}
    assert pushed.run("sync").code == 0
    deployed = {function["slug"]: function["code"] for function in kapso.control("GET", "/state")["functions"]}
    assert "two " in deployed["speaks"]


def test_without_the_setting_the_function_is_blocked_and_the_hint_names_it(pushed: Pushed, kapso: Served) -> None:
    """The other functions are deployed; exit code 1."""
    del pushed.environment["KAPSO_SYNC_NPM_REGISTRY"]
    planned = pushed.planned()
    assert {slug: one["action"] for slug, one in planned.items()} == {"speaks": "blocked", "plain": "create"}
    assert any("set KAPSO_SYNC_NPM_REGISTRY" in reason for reason in planned["speaks"]["reasons"])
    ran = pushed.run("sync")
    assert (ran.code, "KAPSO_SYNC_NPM_REGISTRY" in ran.out + ran.err) == (1, True)
    assert [function["slug"] for function in kapso.control("GET", "/state")["functions"]] == ["plain"]
    assert pushed.registry.asked == []


def test_a_package_that_cannot_be_fetched_blocks_one_function_until_it_can(pushed: Pushed, kapso: Served) -> None:
    """What ran before stays; the next pass tries again."""
    assert pushed.run("sync").code == 0
    pushed.push("1.1.0", "two")
    pushed.registry.sends["/say/-/say-1.1.0.tgz"] = answer(404)
    ran = pushed.run("sync", "--json")
    (blocked,) = [one for one in ran.document["functions"] if one["slug"] == "speaks"]
    assert (ran.code, blocked["action"]) == (1, "blocked")
    assert "answers 404 for `say` 1.1.0 at /say/-/say-1.1.0.tgz" in blocked["reasons"][0]
    deployed = {function["slug"]: function["code"] for function in kapso.control("GET", "/state")["functions"]}
    assert "one " in deployed["speaks"]
    pushed.registry.sends.clear()
    assert pushed.run("sync").code == 0


def test_validate_makes_no_request_and_names_what_it_did_not_build(pushed: Pushed) -> None:
    """A warning, and no failure: what is not in the cache may be right."""
    ran = pushed.run("validate")
    assert (ran.code, ran.out) == (0, "Valid: 1 function.\n")
    assert "it was not built: `say` 1.0.0 is not in the cache; nothing is fetched here" in " ".join(ran.err.split())
    document = json.loads(pushed.run("validate", "--json").out)
    assert (document["valid"], [warning["code"] for warning in document["warnings"]]) == (True, ["package-not-cached"])
    assert pushed.registry.asked == []


@pytest.mark.parametrize("command", ["plan", "sync", "validate"])
def test_a_registry_that_cannot_be_one_is_a_wrong_setting(pushed: Pushed, command: str) -> None:
    """Exit code 78, for a folder as well, where it has no effect."""
    ran = pushed.run(command, KAPSO_SYNC_NPM_REGISTRY="http://npm.acme.dev")
    assert (ran.code, "KAPSO_SYNC_NPM_REGISTRY http://npm.acme.dev is not encrypted" in ran.err) == (78, True)
    wrong = {**pushed.environment, "KAPSO_SYNC_NPM_REGISTRY": "npm.acme.dev"}
    assert kapso_sync(command, str(pushed.folder), environment=wrong).code == 78


def test_a_folder_source_has_the_packages_of_its_node_modules(pushed: Pushed, kapso: Served) -> None:
    """The setting has no effect there; the plan names its packages as well."""
    home = pushed.folder / "node_modules" / "say"
    home.mkdir(parents=True)
    for name, content in package_files("say", "export default (name) => 'folder ' + name;", "7.0.0", type="module").items():
        (home / name).write_text(str(content))
    ran = kapso_sync("plan", str(pushed.folder), "--json", environment=pushed.environment)
    found = {one["slug"]: one["packages"] for one in ran.document["functions"]}
    assert [(one["name"], one["version"]) for one in found["speaks"]] == [("say", "7.0.0")]
    assert kapso.requests()
    assert pushed.registry.asked == []
