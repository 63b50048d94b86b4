"""Runs git: with an environment of its own, a process group of its own, a deadline, and no credential on a command line."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kapso_sync.credentials import USERINFO
from kapso_sync.errors import ConfigError, SourceUnavailable, StateUnusable
from kapso_sync.process import run_process

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

OUTPUT_LIMIT = 16 * 1024 * 1024


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

        Raises `GitFailed`, `SourceUnavailable` at the deadline (with the whole process group gone), `ConfigError` without git.
        """
        environment = self.environment(network=network)
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
        """Return a configuration file that lets git read repositories of other users; it takes the setting in no other way."""
        path = self._home / "gitconfig"
        try:
            if not path.exists():
                self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")
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
        """Return git's message on one line; it is scrubbed whole, and then shortened, so that no half of a password stays."""
        text = " ".join(errors.decode("utf-8", "replace").split())
        password = self._credentials.password()
        if password:
            text = text.replace(" ".join(password.split()), "[redacted]")
        return USERINFO.sub("", text)[-600:]
