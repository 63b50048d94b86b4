"""Old versions of git: refused where that makes reading unsafe, and used where a distribution may have mended them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kapso_sync.errors import ConfigError, ExitCode, SourceUnavailable
from kapso_sync.sources.git_version import heeds_settings, is_fixed, parse_git_version
from tests.sources.repositories import Reader, Repository

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository away")


def pretend(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the installed git on PATH under another version, and return the file in which it notes how often that is asked."""
    real, log = shutil.which("git"), folder / "asked"
    folder.mkdir()
    program = folder / "git"
    asks = f'[ "$1" = --version ] && echo x >>{log} && echo "git version {version}" && exit\n'
    program.write_text(f'#!/bin/sh\n{asks}exec {real} "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.39.5\n", (2, 39, 5)),
        ("git version 2.39.5 (Apple Git-154)", (2, 39, 5)),
        ("git version 2.51.0.windows.1", (2, 51, 0)),
        ("git version 2.46.rc1", (2, 46, 0)),
        ("2.34.1", (2, 34, 1)),
        ("git version unknown", None),
    ],
)
def test_versions_of_git_are_read_as_it_prints_them(text: str, version: tuple[int, int, int] | None) -> None:
    """Builds of vendors add words."""
    assert parse_git_version(text) == version


@pytest.mark.parametrize(
    ("version", "heeds", "fixed"),
    [
        ((1, 8, 3), False, False),
        ((2, 30, 9), False, False),
        ((2, 31, 0), True, False),
        ((2, 34, 1), True, False),
        ((2, 39, 3), True, False),
        ((2, 39, 4), True, True),
        ((2, 40, 1), True, False),
        ((2, 43, 3), True, False),
        ((2, 43, 5), True, True),
        ((2, 45, 0), True, False),
        ((2, 45, 1), True, True),
        ((2, 46, 0), True, True),
        ((3, 0, 0), True, True),
    ],
)
def test_every_release_line_has_a_first_good_version(version: tuple[int, int, int], heeds: bool, fixed: bool) -> None:
    """And settings from the environment came with 2.31."""
    assert (heeds_settings(version), is_fixed(version)) == (heeds, fixed)


async def test_a_git_that_ignores_our_settings_is_refused(
    upstream: Repository, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it reads anything."""
    pretend("2.30.9", tmp_path / "bin", monkeypatch)
    with pytest.raises(ConfigError, match=r"git 2\.30\.9 ignores the settings that make it safe") as caught:
        await reader.open(upstream.url).fetch()
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.CONFIG, "install git 2.31 or newer")
    assert not reader.mirror.exists()


@pytest.mark.parametrize("version", ["2.34.1", "a version that nobody knows"])
async def test_a_git_that_a_distribution_may_have_mended_is_used(
    upstream: Repository, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """It is asked for its version once, however often it runs."""
    asked = pretend(version, tmp_path / "bin", monkeypatch)
    source = reader.open(upstream.url)
    await source.fetch()
    upstream.commit(message="again")
    await source.fetch()
    assert asked.read_text() == "x\n"


@needs_root
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("named", ["url", "path", "link"])
async def test_a_repository_of_another_user_of_this_machine_needs_a_mended_git(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: bool, named: str
) -> None:
    """A mended one reads it, by the file that names it as safe, and no other repository; an older one may run its programs."""
    repository = Repository(tmp_path / "theirs 'and\" more")
    repository.commit()
    if bare:
        repository.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
        repository.folder = tmp_path / "bare"
    for path in (repository.folder, *repository.folder.rglob("*")):
        os.chown(path, 1234, 1234)
    (tmp_path / "link").symlink_to(repository.folder)
    where = {"url": repository.url, "path": str(repository.folder), "link": str(tmp_path / "link")}[named]
    assert (await reader.open(where, branch="main").fetch()).files
    config = reader.folder / "gitconfig"
    assert "*" not in config.read_text()
    config.write_text("[safe]\n\tdirectory = *\n")  # as an earlier version did
    other = Repository(tmp_path / "others")
    other.commit()
    for path in (other.folder, *other.folder.rglob("*")):
        os.chown(path, 1234, 1234)
    git = reader.git(where)
    with pytest.raises(Exception, match="dubious ownership") as refused:
        await git.run(["ls-remote", "--", str(other.folder)])
    assert type(refused.value).__name__ == "GitFailed"
    pretend("2.34.1", tmp_path / "bin", monkeypatch)
    with pytest.raises(ConfigError, match=r"may run programs of the repository .* belongs to uid 1234") as caught:
        await reader.open(where, branch="main").fetch()
    assert caught.value.hint


async def test_git_is_told_of_no_safe_place_but_mirror_and_source(upstream: Repository, reader: Reader) -> None:
    """A remote on another machine adds none."""
    reader.git(upstream.url).environment()
    assert (reader.folder / "gitconfig").read_text().splitlines() == [
        "[safe]",
        f'\tdirectory = "{reader.mirror}"',
        f'\tdirectory = "{upstream.folder}"',
        f'\tdirectory = "{upstream.folder}/.git"',
    ]
    reader.git("https://github.com/acme/flows.git", "https").environment()
    assert (reader.folder / "gitconfig").read_text() == f'[safe]\n\tdirectory = "{reader.mirror}"\n'


async def test_a_missing_local_repository_is_reported_by_git(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went away after the start; that is no question of versions."""
    pretend("2.34.1", tmp_path / "bin", monkeypatch)
    repository = Repository(tmp_path / "gone")
    source = reader.open(repository.url)
    shutil.rmtree(repository.folder)
    with pytest.raises((ConfigError, SourceUnavailable)) as caught:
        await source.fetch()
    assert "belongs to" not in caught.value.message
