"""Checks the machine that kapso-sync runs on, and gives a hint for each problem."""

from __future__ import annotations

import enum
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.network import AUTHORITY_VARIABLES, PROXY_VARIABLES, read_network, system_has_authorities
from kapso_sync.plurals import counted
from kapso_sync.sources.git_version import heeds_settings, is_fixed, parse_git_version
from kapso_sync.sources.signatures import SignatureVerifier
from kapso_sync.store.folder import who_may_write_root
from kapso_sync.tools import VERSION, ToolMissing, ToolPlaces

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""A clock before this is wrong: certificates and signatures would be refused."""

FREE_BYTES = 200 * 1024 * 1024
WATCHES = 8192


class Level(enum.StrEnum):
    """The result of a check: fine, something may be missing, or kapso-sync cannot work like this."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SetupCheck:
    """One check of the machine, and what to do if it is not fine."""

    name: str
    level: Level
    found: str
    hint: str | None = None


def check_setup(
    state: Path, tools: ToolPlaces, workerd: SetupCheck, environment: Mapping[str, str], verifier: SignatureVerifier | None
) -> Iterator[SetupCheck]:
    """Yield every check: ``state`` is the folder of state folders, ``tools`` the places to search for esbuild.

    ``verifier`` judges signatures, None where none are wanted.
    """
    yield SetupCheck("python", Level.OK, f"{platform.python_version()} ({sys.executable})")
    yield check_git(_git_version())
    yield _esbuild(tools)
    yield workerd
    yield check_clock(datetime.now(UTC))
    yield check_proxies(environment)
    yield check_authorities(environment)
    yield check_signatures(verifier)
    yield check_state_folder(state)
    yield _watches()


def check_git(text: str | None) -> SetupCheck:
    """Return the check of git by its version string."""
    if text is None:
        hint = "install git: https://git-scm.com; a folder can be synced without it"
        return SetupCheck("git", Level.WARNING, "not found: git sources cannot be read", hint)
    version = parse_git_version(text)
    if version is not None and not heeds_settings(version):
        return SetupCheck("git", Level.ERROR, text, "git 2.31 or newer is needed: older ones ignore our settings")
    if version is not None and is_fixed(version):
        return SetupCheck("git", Level.OK, text)
    hint = "2.39.4, 2.45.1 and newer close known holes, which your distribution may have closed under this number"
    return SetupCheck("git", Level.WARNING, text, hint)


def check_clock(now: datetime) -> SetupCheck:
    """Return the check of the clock."""
    if now < EARLIEST:
        return SetupCheck(
            "clock", Level.ERROR, f"{now:%Y-%m-%d %H:%M} UTC", "set the clock: TLS refuses certificates otherwise"
        )
    return SetupCheck("clock", Level.OK, f"{now:%Y-%m-%d %H:%M} UTC")


def check_authorities(environment: Mapping[str, str]) -> SetupCheck:
    """Return the check of the certificate authorities."""
    names = [name for name in AUTHORITY_VARIABLES if environment.get(name)]
    try:
        network = read_network({name: environment[name] for name in names})
    except ConfigError as error:
        return SetupCheck("authorities", Level.ERROR, error.message, error.hint)
    if names:
        return SetupCheck("authorities", Level.OK, ", ".join(f"{name} {environment[name]}" for name in names))
    known = network.ssl_context().cert_store_stats()["x509_ca"]
    return SetupCheck("authorities", Level.OK, "the system's" if system_has_authorities() else f"certifi's {known}")


def check_proxies(environment: Mapping[str, str]) -> SetupCheck:
    """Return the check of the proxies; their addresses are not shown, since they may hold passwords."""
    spellings = {name: spelled for name in PROXY_VARIABLES for spelled in (name, name.lower()) if environment.get(spelled)}
    try:
        read_network({spelled: environment[spelled] for spelled in spellings.values()})
    except ConfigError as error:
        return SetupCheck("proxy", Level.ERROR, error.message, error.hint)
    return SetupCheck("proxy", Level.OK, f"set: {', '.join(spellings)}" if spellings else "none set")


def check_signatures(verifier: SignatureVerifier | None) -> SetupCheck:
    """Return the check of the keys that may sign, and of the programs that judge their signatures."""
    name = "signatures"
    if verifier is None:
        return SetupCheck(name, Level.OK, "none are wanted: KAPSO_SYNC_VERIFY_FILE is not set")
    try:
        keys = verifier.check()
    except ConfigError as error:
        return SetupCheck(name, Level.ERROR, error.message, error.hint)
    found = [f"{counted(len(keys.signers), 'line')} of ssh keys"] if keys.signers else []
    found += ["a keyring of OpenPGP"] if keys.keyring else []
    return SetupCheck(name, Level.OK, f"KAPSO_SYNC_VERIFY_FILE has {' and '.join(found)}")


def check_state_folder(state: Path) -> SetupCheck:
    """Return the check whether state can be stored below a folder, which is not created."""
    there = next((folder for folder in (state, *state.parents) if folder.exists()), Path("/"))
    if not os.access(there, os.W_OK | os.X_OK):
        hint = "set KAPSO_SYNC_STATE_DIR to a folder that may be written"
        return SetupCheck("state folder", Level.ERROR, f"{state}: {there} is not writable", hint)
    free = shutil.disk_usage(there).free
    if free < FREE_BYTES:
        return SetupCheck("state folder", Level.WARNING, f"{state}: {free // 2**20} MiB free", "free some space")
    who = who_may_write_root(state)
    if who is not None:
        hint = "set KAPSO_SYNC_STATE_DIR to a folder that this user alone may write"
        return SetupCheck("state folder", Level.WARNING, f"{state}: {who}", hint)
    return SetupCheck("state folder", Level.OK, f"{state}, {free // 2**20} MiB free")


def _git_version() -> str | None:
    try:
        ran = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.removeprefix("git version ").strip() or None


def _esbuild(tools: ToolPlaces) -> SetupCheck:
    hint = f"`npm install esbuild@{VERSION}` beside kapso-sync, or KAPSO_SYNC_ESBUILD; plain scripts need none"
    try:
        found = next((path for path in tools.candidates() if path.is_file()), None)
    except ToolMissing as missing:
        return SetupCheck("esbuild", Level.WARNING, missing.message, missing.hint or hint)
    if found is None:
        return SetupCheck("esbuild", Level.WARNING, "not found: TypeScript, modules and imports stay blocked", hint)
    return SetupCheck("esbuild", Level.OK, str(found))


def _watches() -> SetupCheck:
    path = Path("/proc/sys/fs/inotify/max_user_watches")
    try:
        watches = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return SetupCheck("file events", Level.OK, "no limit is known here")
    if watches < WATCHES:
        hint = f"sysctl fs.inotify.max_user_watches={WATCHES}; otherwise changes are found by polling"
        return SetupCheck("file events", Level.WARNING, f"{watches} watches at most", hint)
    return SetupCheck("file events", Level.OK, f"{watches} watches at most")
