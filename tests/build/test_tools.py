"""The one pinned version of esbuild, and where our own copy is."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from kapso_sync.tools import VERSION, ToolMissing, ToolPlaces, own_copies
from tests.build.workbench import ESBUILD, needs_esbuild
from tests.program import kapso_sync

ROOT = Path(__file__).parents[2]


def test_the_esbuild_version_is_pinned_in_code_package_json_and_lockfile() -> None:
    """The three versions are equal and exact."""
    assert json.loads((ROOT / "package.json").read_text())["dependencies"] == {"esbuild": VERSION}
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert locked["node_modules/esbuild"]["version"] == VERSION
    for platform in ("linux-x64", "linux-arm64", "darwin-arm64", "darwin-x64"):
        assert locked[f"node_modules/@esbuild/{platform}"]["version"] == VERSION
        assert locked[f"node_modules/@esbuild/{platform}"]["integrity"].startswith("sha512-")


def test_the_docker_image_has_esbuild_where_it_is_searched() -> None:
    """The Dockerfile copies it to the place of an installed copy."""
    copies = [path.as_posix() for path in own_copies(Path("/venv/lib/python3.13/site-packages/kapso_sync"), Path("/venv"))]
    assert (
        "COPY --from=esbuild /esbuild/node_modules/@esbuild /venv/lib/node_modules/@esbuild\n"
        in (ROOT / "Dockerfile").read_text()
    )
    assert any(path.startswith("/venv/lib/node_modules/@esbuild/") for path in copies)


@needs_esbuild
def test_version_shows_the_esbuild_version_and_path(tmp_path: Path) -> None:
    """The pinned one without a remark, another one with the version that is needed."""
    assert kapso_sync("version", "--json").document["esbuild"] == f"{VERSION} ({ESBUILD})"
    other = tmp_path / "esbuild"
    other.write_text("#!/bin/sh\necho 0.1.0\n")
    other.chmod(0o755)
    said = kapso_sync("version", "--json", environment={"KAPSO_SYNC_ESBUILD": str(other)}).document["esbuild"]
    assert said == f"0.1.0 ({other}); {VERSION} is needed"


def test_a_configured_esbuild_needs_an_absolute_path(tmp_path: Path) -> None:
    """A relative path would depend on the current directory."""
    with pytest.raises(ToolMissing, match="not a full path"):
        list(ToolPlaces(Path("esbuild"), (), []).candidates())


@pytest.mark.e2e
@needs_esbuild
def test_the_npm_install_hint_puts_esbuild_where_it_is_searched(tmp_path: Path) -> None:
    """`npm install --global --prefix …` fills one of the searched places."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    command = [
        "npm",
        "install",
        "--global",
        "--prefix",
        str(tmp_path),
        f"esbuild@{VERSION}",
        "--ignore-scripts",
        "--prefer-offline",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if ran.returncode:
        pytest.skip(f"npm cannot install here: {ran.stderr[-200:]}")
    found = [path for path in own_copies(Path("/nowhere/kapso_sync"), tmp_path) if path.is_file()]
    assert found
    assert subprocess.run([str(found[0]), "--version"], capture_output=True, text=True, check=True).stdout.strip() == VERSION
