"""A machine without a git configuration, a repository to read, and a reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.sources.repositories import CODE, MANIFEST, Reader, Repository


@pytest.fixture(autouse=True)
def _neutral_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give git an identity and nothing else from the machine that runs the tests."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "SSL_CERT_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home-of-tests"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada Lovelace")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.com")
        monkeypatch.setenv(f"GIT_{role}_DATE", "2026-01-02T03:04:05Z")


@pytest.fixture
def upstream(tmp_path: Path) -> Repository:
    """A repository with one commit: a manifest and one function."""
    repository = Repository(tmp_path / "upstream")
    repository.commit({"manifest.yaml": MANIFEST, "a.ts": CODE}, "First")
    return repository


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Opens sources with a state folder of its own."""
    return Reader(tmp_path / "state")
