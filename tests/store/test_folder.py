"""What lies in a state folder is trusted, so it is ours alone, or not used."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kapso_sync.errors import ExitCode, StateExposed, StateUnusable
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.store.api_facts import ApiFactsFile
from kapso_sync.store.backups import read_backup
from kapso_sync.store.connection import DATABASE_NAME
from kapso_sync.store.daemon_files import ADDRESS_NAME, TOKEN_NAME, DaemonFiles
from kapso_sync.store.database import StateStore, read_last_pass
from kapso_sync.store.folder import is_private, require_private, who_may_write_root
from kapso_sync.store.history import HISTORY_NAME, History, read_history
from kapso_sync.store.lock import HOLDER_NAME, held, holder, is_held
from kapso_sync.store.secretkey import NAME as KEY_NAME
from kapso_sync.store.secretkey import read_key
from tests.builders import DAWN

VOLUME = Path("/dev/shm")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
needs_volume = pytest.mark.skipif(not VOLUME.is_mount(), reason="needs a mount point that everybody may write")


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder in a mount point."""
    folder = Path(tempfile.mkdtemp(dir=VOLUME, prefix="kapso-sync-tests-"))
    yield folder
    shutil.rmtree(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_state_folder_is_created_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    """With all that is missing above it, whatever the umask."""
    folder = tmp_path / "root" / "state" / "one"
    before = os.umask(umask)
    try:
        with held(folder, DAWN):
            assert [mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3
    finally:
        os.umask(before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_has_another_hint_than_a_folder_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A daemon that starts tells the same as one that runs: who may write the folder need not look at its mode."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    full = number != errno.EACCES
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(StateUnusable, match=os.strerror(number)) as raised:
        DaemonFiles(tmp_path).token()
    assert ("free some space" in (raised.value.hint or "")) is full
    assert ("writable" in (raised.value.hint or "")) is not full
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StateUnusable, match=os.strerror(number)) as raised, held(tmp_path, DAWN):
        pass
    assert ("free some space" in (raised.value.hint or "")) is full


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702, 0o720, 0o1777, 0o2770])
def test_a_state_folder_that_others_may_write_is_refused(tmp_path: Path, bits: int) -> None:
    """Nothing is written into it; after the group and others lost the right it is used again."""
    folder = tmp_path / "one"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(StateExposed, match=f"its mode is {bits:04o}") as caught, held(folder, DAWN):
        pytest.fail("it was used")
    assert caught.value.exit_code is ExitCode.CONFIG
    assert caught.value.hint
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    with held(folder, DAWN):
        pass


@pytest.mark.parametrize("bits", [0o755, 0o750, 0o701])
def test_a_state_folder_that_others_may_read_is_closed(tmp_path: Path, bits: int) -> None:
    """Nobody else can have written it, so it is used; an earlier version made such folders."""
    folder = tmp_path / "one"
    folder.mkdir()
    folder.chmod(bits)
    require_private(folder)
    assert mode(folder) == bits, "looking changes nothing"
    with held(folder, DAWN):
        assert mode(folder) == 0o700


@needs_root
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Whatever its mode, and also by a link that another user made; a link of our own is followed."""
    folder, link = tmp_path / "one", tmp_path / "link"
    folder.mkdir(mode=0o700)
    link.symlink_to(folder)
    assert is_private(folder)
    assert is_private(link)
    os.chown(link, 1234, 1234, follow_symlinks=False)
    with pytest.raises(StateExposed, match="it is a link of uid 1234, and this process is uid 0"):
        require_private(link)
    os.chown(folder, 1234, 1234)
    with pytest.raises(StateExposed, match="it belongs to uid 1234, and this process is uid 0"), held(folder, DAWN):
        pytest.fail("it was used")


def test_a_file_in_place_of_a_state_folder_is_refused(tmp_path: Path) -> None:
    """One that is missing is not: it can be created."""
    (tmp_path / "one").write_text("")
    (tmp_path / "one").chmod(0o600)
    assert not is_private(tmp_path / "one")
    assert is_private(tmp_path / "two")


@needs_volume
@needs_root
def test_the_group_of_a_volume_may_have_been_given_rights(volume: Path) -> None:
    """Kubernetes does that at each mount (fsGroup); they are taken away. Beside a mount point they are refused."""
    inside = VOLUME / f"{volume.name}-state"
    for folder, accepted in ((inside, True), (volume / "state", False)):
        folder.mkdir()
        try:
            os.chown(folder, os.geteuid(), VOLUME.stat().st_gid)
            folder.chmod(0o2770)
            assert is_private(folder) is accepted
            if accepted:
                with held(folder, DAWN):
                    assert mode(folder) & 0o777 == 0o700
                folder.chmod(0o2777)
                assert not is_private(folder)
        finally:
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("bits", "who"),
    [
        (0o777, "others may write it (mode 0777)"),
        (0o1777, "others may write it (mode 1777)"),
        (0o770, "others may write it (mode 0770)"),
    ],
)
def test_a_root_that_others_may_write_is_known(tmp_path: Path, bits: int, who: str) -> None:
    """One that they may only read is fine, and so is one that is not there yet."""
    root = tmp_path / "root"
    assert who_may_write_root(root) is None
    root.mkdir()
    root.chmod(bits)
    assert who_may_write_root(root) == who
    root.chmod(0o755)
    assert who_may_write_root(root) is None


@needs_root
def test_the_root_of_another_user_is_known(tmp_path: Path) -> None:
    """Its owner may write it."""
    (tmp_path / "root").mkdir(mode=0o755)
    os.chown(tmp_path / "root", 1234, 1234)
    assert who_may_write_root(tmp_path / "root") == "it belongs to uid 1234"


@needs_volume
def test_a_mount_point_is_nobodys_concern(volume: Path) -> None:
    """An ``emptyDir`` of Kubernetes has mode 0777; a folder in it is judged as any other, and a link leads to it."""
    assert VOLUME.stat().st_mode & 0o002
    assert who_may_write_root(VOLUME) is None
    (volume / "link").symlink_to(VOLUME)
    assert who_may_write_root(volume / "link") is None
    volume.chmod(0o777)
    assert who_may_write_root(volume) == "others may write it (mode 0777)"


def test_facts_about_an_api_that_others_may_write_are_not_read(tmp_path: Path) -> None:
    """The file lies in the root. A control: what we wrote is read."""
    file = ApiFactsFile.for_base(tmp_path, "https://api.example")
    file.write(ApiFacts(secrets_survive=False))
    assert file.read().secrets_survive is False
    file.path.chmod(0o666)
    assert file.read() == ApiFacts()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 1024**3)


def deep(path: Path) -> None:
    path.write_text("[" * 4096, encoding="ascii")


def leading_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [pipe, huge, deep, leading_to_zeros])
def test_what_is_no_state_file_is_neither_waited_for_nor_read(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """Each reader takes it as missing, in no time and memory; the token, which gives rights, is not made anew over it."""
    files = DaemonFiles(tmp_path)
    for name in (TOKEN_NAME, ADDRESS_NAME, HOLDER_NAME, KEY_NAME, "backup.json"):
        put(tmp_path / name)
    assert (files.daemon(), is_held(tmp_path)) == (None, False)
    assert holder(tmp_path) == "pid unknown"
    assert (read_key(tmp_path), read_backup(tmp_path / "backup.json")) == (None, None)
    if put is not deep:
        with pytest.raises(StateUnusable, match="admin-token cannot be read: "):
            files.token()
    with held(tmp_path, DAWN):
        assert is_held(tmp_path)


def test_a_pipe_in_place_of_a_database_is_refused_at_once(tmp_path: Path) -> None:
    """SQLite itself waits until somebody writes into it. The history is not kept then: nothing depends on it."""
    for name in (DATABASE_NAME, HISTORY_NAME):
        pipe(tmp_path / name)
    with pytest.raises(StateUnusable, match="not a regular file"):
        StateStore(tmp_path, lambda: DAWN)
    assert (read_last_pass(tmp_path), read_history(tmp_path, "greet")) == (None, ())
    with History(tmp_path, lambda: DAWN):
        pass
