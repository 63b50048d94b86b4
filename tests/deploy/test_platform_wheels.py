"""The wheel of a platform brings esbuild: only the locked one, and TypeScript is built without Node."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from kapso_sync.tools import VERSION
from tests.build.workbench import ESBUILD, needs_esbuild

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "release" / "platform_wheels.py"
NAME = f"{sys.platform}-{'x64' if platform.machine() == 'x86_64' else 'arm64'}"
WHEEL_TAG = {"linux": "manylinux_2_17", "darwin": "macosx_12_0"}.get(sys.platform, "none")


def npm_package(registry: Path, name: str, files: dict[str, bytes]) -> dict[str, str]:
    """Put a package into a folder as a registry has it, and return its entry in a lock file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    tarball = registry / name / "-" / f"{name.rpartition('/')[2]}-{VERSION}.tgz"
    tarball.parent.mkdir(parents=True)
    tarball.write_bytes(made.getvalue())
    digest = base64.b64encode(hashlib.sha512(made.getvalue()).digest()).decode()
    return {"version": VERSION, "integrity": f"sha512-{digest}"}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry of files with a lock file beside it."""
    folder = tmp_path / "registry"
    program = Path(str(ESBUILD)).read_bytes()
    packages = {
        f"node_modules/@esbuild/{NAME}": npm_package(folder, f"@esbuild/{NAME}", {"bin/esbuild": program}),
        "node_modules/esbuild": npm_package(folder, "esbuild", {"LICENSE.md": b"MIT"}),
    }
    (folder / "lock.json").write_text(json.dumps({"packages": packages}))
    return folder


@pytest.fixture
def pure(tmp_path: Path) -> Path:
    """The wheel for every platform."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "pure")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next((tmp_path / "pure").iterdir())


def make(pure: Path, registry: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(pure), "--into", str(into), "--platform", NAME]
    command += ["--lock", str(registry / "lock.json"), "--registry", registry.as_uri()]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@needs_esbuild
def test_an_installed_platform_wheel_builds_typescript_without_node(pure: Path, registry: Path, tmp_path: Path) -> None:
    """PATH is empty: the program that is used came with the wheel. The same wheel comes out again, byte for byte."""
    wheels: list[Path] = []
    for name in ("one", "two"):
        assert make(pure, registry, tmp_path / name).returncode == 0
        wheels += (tmp_path / name).iterdir()
    assert wheels[0].name == wheels[1].name
    assert WHEEL_TAG in wheels[0].name
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(site), str(wheels[0])], check=True, capture_output=True)
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "manifest.yaml").write_text("version: 1\nfunctions:\n  hello: {}\n")
    (functions / "hello.ts").write_text("export default async (r: Request): Promise<Response> => new Response('built');\n")
    said = subprocess.run(
        [sys.executable, "-m", "kapso_sync", "validate", str(functions), "--json"],
        env={"PATH": str(tmp_path / "nothing"), "HOME": str(tmp_path), "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    # Without the wheel's program the same command finds none: the proof above would be empty otherwise.
    (site / "kapso_sync" / "bin" / "esbuild").unlink()
    said = subprocess.run(
        [sys.executable, "-m", "kapso_sync", "validate", str(functions)],
        env={"PATH": str(tmp_path / "nothing"), "HOME": str(tmp_path), "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 65
    assert "there is none" in said.stderr


@needs_esbuild
def test_a_package_with_another_hash_makes_no_wheel(pure: Path, registry: Path, tmp_path: Path) -> None:
    """A registry that was taken over cannot put a program into our wheel."""
    tarball = registry / "@esbuild" / NAME / "-" / f"{NAME}-{VERSION}.tgz"
    tarball.write_bytes(tarball.read_bytes() + b"\0")
    said = make(pure, registry, tmp_path / "dist")
    assert said.returncode == 1
    assert "the lock file wants sha512-" in said.stderr
    assert list((tmp_path / "dist").iterdir()) == []


@pytest.mark.thorough
@needs_esbuild
def test_the_wheel_lists_the_program_in_its_record_as_executable(pure: Path, registry: Path, tmp_path: Path) -> None:
    """Installers set the mode from the archive, and verify hashes by the record."""
    make(pure, registry, tmp_path / "dist")
    with zipfile.ZipFile(next((tmp_path / "dist").iterdir())) as wheel:
        program = wheel.getinfo("kapso_sync/bin/esbuild")
        assert program.external_attr >> 16 & 0o777 == 0o755
        record = wheel.read(next(name for name in wheel.namelist() if name.endswith("/RECORD"))).decode()
        metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("/WHEEL"))).decode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(Path(str(ESBUILD)).read_bytes()).digest()).decode().rstrip("=")
    assert f"kapso_sync/bin/esbuild,sha256={digest}," in record
    assert "Root-Is-Purelib: false" in metadata
    assert f"Tag: py3-none-{WHEEL_TAG}" in metadata
