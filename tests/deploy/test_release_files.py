"""What a release publishes beside its packages: manifests with the image's digest, and the notes of the version."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / "deploy" / "release"
IMAGE = f"ghcr.io/acme/kapso-sync@sha256:{'0a' * 32}"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RELEASE / script), *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_released_manifests_name_the_image_by_its_digest(tmp_path: Path) -> None:
    """A tag can be moved to another image. No file keeps one, and everything else is as in the repository."""
    said = run("manifests.py", IMAGE, "--into", str(tmp_path))
    assert said.returncode == 0, said.stderr
    named = 0
    with tarfile.open(next(tmp_path.iterdir())) as archive:
        for member in archive:
            source = archive.extractfile(member)
            assert source is not None
            text, before = source.read().decode(), (ROOT / member.name).read_text()
            assert not re.search(r"image: kapso-sync", text), member.name
            named += text.count(f"image: {IMAGE}\n")
            assert text.replace(IMAGE, "X") == re.sub(r"(?<=image: )kapso-sync:\S+", "X", before)
    assert named == len(re.findall(r"image: kapso-sync:", "".join(p.read_text() for p in (ROOT / "deploy").rglob("*.yaml"))))
    assert named >= 4


def test_manifests_are_not_packed_for_an_image_without_a_digest(tmp_path: Path) -> None:
    said = run("manifests.py", "ghcr.io/acme/kapso-sync:0.2.0", "--into", str(tmp_path))
    assert said.returncode == 1
    assert "is not a name and a digest" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_release_notes_are_the_part_of_the_changelog_of_that_version() -> None:
    """Each released version has its own part, and none of the others'."""
    versions = re.findall(r"^## (\S+) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions
    parts = [run("notes.py", version).stdout for version in versions]
    assert all(part.startswith("### ") or part[:1].isalpha() for part in parts)
    assert len(set(parts)) == len(parts)
    assert not any(re.search(r"^## ", part, re.MULTILINE) for part in parts)


def test_a_version_without_a_date_in_the_changelog_has_no_notes() -> None:
    assert run("notes.py", "99.0.0").returncode == 1


def test_hooks_for_commits_use_the_locked_versions() -> None:
    """Else a commit passes here and fails in `make check`."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    locked = "".join((ROOT / "requirements" / name).read_text() for name in ("dev.txt", "release.txt"))
    wanted = [need for hook in hooks for need in hook["additional_dependencies"]]
    assert len(wanted) == 3
    assert all(re.search(rf"^{re.escape(need)}( |$)", locked, re.MULTILINE) for need in wanted)
