"""Runs git: with an environment of its own, a process group of its own, a deadline, and no credential on a command line."""

from __future__ import annotations

import base64
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kapso_sync.errors import ConfigError, SourceUnavailable, StateUnusable
from kapso_sync.permissions import make_private
from kapso_sync.process import run_process
from kapso_sync.sources.git_version import Version, heeds_settings, is_fixed, parse_git_version

_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "transfer.credentialsInUrl": "die",
}
"""Settings that override any configuration of a repository, a user or a machine."""

MIRROR = "mirror"
"""Name of the mirror in git's home folder."""

OUTPUT_LIMIT = 16 * 1024 * 1024
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class GitCredentials:
    """How to authenticate. ``password`` is called before each transfer, since mounted files change."""

    password: Callable[[], str | None] = field(default=lambda: None, repr=False)
    username: str | None = None
    ssh_key_file: Path | None = None
    known_hosts_file: Path | None = None


@dataclass(frozen=True, slots=True)
class GitFailed(Exception):
    """git ended with an error; ``text`` is its message, without credentials."""

    status: int
    text: str


class Git:
    """Runs git against one remote. ``home`` is a private, empty home folder; ``deadline`` is in seconds."""

    def __init__(self, *, protocol: str, location: str, home: Path, credentials: GitCredentials, deadline: float) -> None:
        self._protocol = protocol
        self._location = location
        self._home = home
        self._credentials = credentials
        self._deadline = deadline
        self._local = _local_folder(location) if protocol == "file" else None
        self._is_checked = False

    @property
    def home(self) -> Path:
        """The home folder, which holds the mirror too."""
        return self._home

    @property
    def ssh_key_file(self) -> Path | None:
        """The private key for an ssh remote, or None."""
        return self._credentials.ssh_key_file

    async def run(self, arguments: Sequence[str], *, network: bool = False) -> str:
        """Run ``git ARGUMENTS`` and return its standard output.

        Raises `GitFailed`, `SourceUnavailable` at the deadline (with the whole process group gone), `ConfigError` without git
        or with one that is too old.
        """
        environment = self.environment(network=network)
        if not self._is_checked:
            self._check(parse_git_version(await self._execute(["--version"], environment)))
            self._is_checked = True
        return await self._execute(arguments, environment)

    async def _execute(self, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
        try:
            ended = await run_process(["git", *arguments], environment=environment, cwd=self._home, deadline=self._deadline)
        except FileNotFoundError as error:
            raise ConfigError(
                "git is not installed, or not on PATH", hint="install git; reading a repository needs it"
            ) from error
        except TimeoutError:
            raise SourceUnavailable(
                f"git {arguments[0]} did not end within {self._deadline:g} s",
                hint="is the git server up? Try again; a daemon does so by itself",
            ) from None
        if ended.status:
            raise GitFailed(ended.status, self._clean(ended.errors))
        return ended.output[:OUTPUT_LIMIT].decode("utf-8", "replace")

    def _check(self, version: Version | None) -> None:
        """Raise `ConfigError` for a git that is not safe to use here; `git_version` has the reasons."""
        if version is None:
            return
        name = ".".join(map(str, version))
        if not heeds_settings(version):
            raise ConfigError(f"git {name} ignores the settings that make it safe", hint="install git 2.31 or newer")
        if self._local is None or is_fixed(version):
            return
        try:
            owner = self._local.stat().st_uid
        except OSError:
            return  # git says what is wrong with it
        if owner not in (0, os.geteuid()):
            raise ConfigError(
                f"git {name} may run programs of the repository {self._local}, which belongs to uid {owner}",
                hint="install git 2.39.4, 2.45.1 or newer; or read the repository over ssh or https; or as its owner",
            )

    def environment(self, *, network: bool = False) -> dict[str, str]:
        """Return git's environment: nothing is inherited but PATH; it holds credentials for network commands only."""
        config = dict(_CONFIG) | {f"protocol.{self._protocol}.allow": "always"}
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._home),
            "LC_ALL": "C",
            "GIT_ALLOW_PROTOCOL": self._protocol,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._global_config()),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_HTTP_LOW_SPEED_LIMIT": "100",
            "GIT_HTTP_LOW_SPEED_TIME": "20",
        }
        if network:
            for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
                if name in os.environ:
                    environment[f"GIT_{name.replace('SSL_CERT_FILE', 'SSL_CAINFO').replace('SSL_CERT_DIR', 'SSL_CAPATH')}"] = (
                        os.environ[name]
                    )
            config |= self._authentication()
            environment["GIT_SSH_COMMAND"] = self.ssh_command()
        environment["GIT_CONFIG_COUNT"] = str(len(config))
        for number, (key, value) in enumerate(sorted(config.items())):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        return environment

    def reading_environment(self, repository: Path) -> dict[str, str]:
        """Return the environment variables for a library, so that its git reads nothing but ``repository``."""
        inherited = dict.fromkeys((name for name in os.environ if name.startswith("GIT_")), "")
        places = {"GIT_DIR": "", "GIT_COMMON_DIR": "", "GIT_WORK_TREE": "", "GIT_OBJECT_DIRECTORY": "objects"}
        return inherited | self.environment() | {name: str(repository / below) for name, below in places.items()}

    def _global_config(self) -> Path:
        """Return a configuration file that lets git read our mirror and the source, whoever owns them, and nothing else.

        git takes this setting from a file alone. The file has the paths that are asked for as well as the real ones.
        """
        path = self._home / "gitconfig"
        places = [self._home / MIRROR, *(self._local / name for name in (".", ".git") if self._local)]
        names = dict.fromkeys(name for place in places for name in (str(place), os.path.realpath(place)))
        text = "[safe]\n" + "".join(f"\tdirectory = {_quoted(name)}\n" for name in names)
        try:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                make_private(self._home)
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StateUnusable(
                f"{self._home} cannot be written: {error.strerror}", hint="git needs a folder of its own for its mirror"
            ) from error
        return path

    def _authentication(self) -> Mapping[str, str]:
        password = self._credentials.password() if self._protocol in ("http", "https") else None
        if password is None:
            return {}
        pair = f"{self._credentials.username or 'x-access-token'}:{password}"
        header = base64.b64encode(pair.encode()).decode("ascii")
        return {f"http.{self._location}.extraHeader": f"Authorization: Basic {header}"}

    def ssh_command(self) -> str:
        """Return the ssh command: it never asks a question, accepts no unknown host, and uses only our key."""
        options = ["ssh", "-F", os.devnull, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20"]
        if self._credentials.ssh_key_file is not None:
            options += ["-i", str(self._credentials.ssh_key_file), "-o", "IdentitiesOnly=yes"]
        if self._credentials.known_hosts_file is not None:
            options += ["-o", f"UserKnownHostsFile={self._credentials.known_hosts_file}"]
        return shlex.join(options)

    def _clean(self, errors: bytes) -> str:
        text = " ".join(errors[-4000:].decode("utf-8", "replace").split())
        password = self._credentials.password()
        if password:
            text = text.replace(password, "[redacted]")
        return _USERINFO.sub("", text)[-600:]


def _local_folder(location: str) -> Path:
    """Return the folder of a source on this machine, which is named by a path or by a ``file://`` URL."""
    return Path(unquote(urlsplit(location).path) if location.startswith("file://") else location)


def _quoted(value: str) -> str:
    """Return a value as git's configuration spells it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
