"""A git repository whose functions import npm packages: killed while it fetches them, and run on workerd."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from kapso_sync.cli.workerd import find_workerd
from tests.build.npm.registry import LoopbackRegistry, lock, package_files, serving
from tests.build.workbench import needs_esbuild
from tests.program import git, kapso_sync, started, write_functions
from tests.served import QUICK, served

pytestmark = [pytest.mark.e2e, needs_esbuild]
WORKERD = find_workerd()


@pytest.fixture
def registry() -> Iterator[LoopbackRegistry]:
    with serving() as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path, registry: LoopbackRegistry) -> Path:
    """A function that imports a module, which needs a CommonJS package, from a workspace below the lock file."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    answering = "Response.json({ said: greet((await request.json()).name) })"
    code = f"import {{ greet }} from '@acme/greet';\nexport default async (request) => {answering};\n"
    write_functions(folder / "functions", {"greet": code})
    greeting = "import upper from 'upper'; export const greet = (name) => `hello ${upper(name)}`;"
    upper = "module.exports = function (text) { return text.toUpperCase(); };"
    (folder / "package-lock.json").write_bytes(
        lock(
            {
                "node_modules/@acme/greet": registry.add(
                    "@acme/greet", package_files("@acme/greet", greeting, type="module"), dependencies={"upper": "1"}
                ),
                "node_modules/upper": registry.add("upper", package_files("upper", upper)),
            }
        )
    )
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


@pytest.mark.skipif(WORKERD is None, reason="needs workerd: npm ci")
def test_a_function_of_a_git_source_runs_with_its_packages(
    repository: Path, registry: LoopbackRegistry, tmp_path: Path
) -> None:
    """On the real runtime, CommonJS among them."""
    assert WORKERD is not None
    with served(replace(QUICK, workerd=WORKERD.path)) as kapso:
        environment = {**kapso.environment(tmp_path / "state"), "KAPSO_SYNC_NPM_REGISTRY": registry.url}
        assert kapso_sync("sync", repository.as_uri(), environment=environment).code == 0
        ran = kapso_sync("invoke", "greet", "--data", '{"name": "Ada"}', environment=environment)
    assert (ran.code, json.loads(ran.out)) == (0, {"said": "hello ADA"})


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing_half(
    repository: Path, registry: LoopbackRegistry, tmp_path: Path
) -> None:
    """The next one fetches what is missing, and removes what was left."""
    halfway, end = threading.Event(), threading.Event()
    path = "/@acme/greet/-/greet-1.0.0.tgz"

    def half(handler: BaseHTTPRequestHandler) -> None:
        content = registry.tarballs[path]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        halfway.set()
        end.wait(20)

    registry.sends[path] = half
    with served() as kapso:
        environment = {**kapso.environment(tmp_path / "state"), "KAPSO_SYNC_NPM_REGISTRY": registry.url}
        with started("sync", repository.as_uri(), environment=environment):
            assert halfway.wait(30)
        end.set()
        (packages,) = (tmp_path / "state").glob("*/packages")
        assert list(packages.glob("*.part"))
        registry.sends.clear()
        assert kapso_sync("sync", repository.as_uri(), environment=environment).code == 0
        assert kapso.control("GET", "/state")["functions"][0]["status"] == "deployed"
    left = sorted(path.suffix for path in packages.iterdir())
    assert left == [".tgz", ".tgz"]
