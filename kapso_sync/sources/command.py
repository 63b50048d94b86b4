"""Runs git: with an environment of its own, a process group of its own, a deadline, and no credential on a command line."""

from __future__ import annotations

import base64
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kapso_sync.container_memory import memory_for_program
from kapso_sync.credentials import MASK, USERINFO
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError, SourceUnavailable, StateUnusable
from kapso_sync.network import Network
from kapso_sync.permissions import make_private
from kapso_sync.process import KILLED, Limits, run_process
from kapso_sync.sources.git_version import Version, heeds_settings, is_fixed, parse_git_version
from kapso_sync.sources.redirects import find_redirect

_HARMLESS = (
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "badTimezone",
    "gitattributesLineLength",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "multipleAuthors",
    "nulInCommit",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
)
"""Oddities, by their names in git, that no file's content hangs on: most are of old commits, which nobody can write again.

`fetch.fsckObjects` alone makes errors even of what git itself calls a warning. Source: https://git-scm.com/docs/git-fsck#_fsck_messages
"""

_CONFIG = {
    "core.bigFileThreshold": "1m",
    "core.deltaBaseCacheLimit": "16m",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.allow": "never",
    "transfer.credentialsInUrl": "die",
    **{f"fetch.fsck.{name}": "warn" for name in _HARMLESS},
}
"""Settings that override any configuration of a repository, a user or a machine.

Blobs above ``bigFileThreshold`` pass through git in pieces, and not whole through its memory; we read none that is larger.
Each thread would take 8 MiB of `MAX_MEMORY`, and the cache up to 96.
"""

OUT_OF_MEMORY = "git was killed: out of memory"
"""What is said of a git that the kernel killed, and that could say nothing itself."""

MIRROR = "mirror"
"""Name of the mirror in git's home folder."""
QUERY_TIMEOUT = 60.0
"""Most seconds for a question to the remote, in which nothing is transferred."""

MAX_MEMORY = 1024**3
"""Most bytes of memory that one process of git may take, or less where the container has less: it reads commits and lists of
files whole, and 150 MB of them are pushed as 150 KB. A shallow fetch takes about 100 bytes for each object."""

OUTPUT_LIMIT = 16 * 1024 * 1024
MAX_ERROR_LENGTH = 600
"""Characters of what git prints about an error that are shown, at most."""


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
    """Runs git against one remote.

    ``home`` is a private, empty home folder; ``deadline``, in seconds, is that of one transfer. ``network`` says which proxy to
    go through, and which authorities to trust.
    """

    def __init__(
        self,
        *,
        protocol: str,
        location: str,
        home: Path,
        credentials: GitCredentials,
        deadline: float,
        network: Network | None = None,
    ) -> None:
        self._protocol = protocol
        self._location = location
        self._home = home
        self._credentials = credentials
        self._deadline = deadline
        self._local = _local_folder(location) if protocol == "file" else None
        self._is_checked = False
        self._network = network or Network()

    @property
    def location(self) -> str:
        """The remote's address: the configured one, or the one to which the server redirects."""
        return self._location

    def use_location(self, location: str) -> None:
        """Talk to this address from now on; it must be on the same host."""
        self._location = location

    async def find_redirect(self) -> str | None:
        """Return the address to which the server redirects, or None; raises `SourceUnavailable` for one on another host."""
        authorization = self._authorization()
        headers = {} if authorization is None else {"Authorization": authorization}
        return await find_redirect(self._location, headers, self._network, min(self._deadline, QUERY_TIMEOUT))

    @property
    def home(self) -> Path:
        """The home folder, which holds the mirror too."""
        return self._home

    @property
    def credentials(self) -> GitCredentials:
        """How to authenticate."""
        return self._credentials

    async def run(self, arguments: Sequence[str], *, network: bool = False, stdin: bytes | None = None) -> str:
        """Run ``git ARGUMENTS`` and return its standard output; ``stdin`` is what it reads, None: nothing.

        Only ``git fetch`` may take the whole deadline: everything else transfers nothing.

        Raises `GitFailed`, `SourceUnavailable` at the deadline (with the whole process group gone), `ConfigError` without git
        or with one that is too old.
        """
        environment = self.environment(network=network)
        if not self._is_checked:
            self._check(parse_git_version(await self._execute(["--version"], environment, min(self._deadline, QUERY_TIMEOUT))))
            self._is_checked = True
        transfers = _command(arguments) == "fetch"
        deadline = self._deadline if transfers or not network else min(self._deadline, QUERY_TIMEOUT)
        return await self._execute(arguments, environment, deadline, stdin)

    async def _execute(
        self, arguments: Sequence[str], environment: Mapping[str, str], deadline: float, stdin: bytes | None = None
    ) -> str:
        try:
            # A fetch is three processes, of which one takes much.
            limits = Limits(memory=memory_for_program(MAX_MEMORY, share=0.75))
            ended = await run_process(
                ["git", *arguments], environment=environment, cwd=self._home, deadline=deadline, stdin=stdin, limits=limits
            )
        except FileNotFoundError as error:
            raise ConfigError(
                "git is not installed, or not on PATH", hint="install git; reading a repository needs it"
            ) from error
        except TimeoutError:
            raise SourceUnavailable(
                f"git {_command(arguments)} did not end within {deadline:g} s",
                hint="is the line slow, or the repository large? A longer KAPSO_SYNC_GIT_TIMEOUT lets one transfer end"
                if _command(arguments) == "fetch"
                else "is the git server up? Try again; a daemon does so by itself",
            ) from None
        if ended.status:
            said = self._clean(ended.errors)
            raise GitFailed(ended.status, said or (OUT_OF_MEMORY if ended.status == KILLED else ""))
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
            environment |= self._network.git_environment(self._protocol)
            config |= self._http_config()
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

    def _http_config(self) -> Mapping[str, str]:
        if self._protocol not in ("http", "https"):
            return {}
        authorization, proxy = self._authorization(), self._network.proxy_for(self._location)
        config = {} if proxy is None else {"http.proxy": proxy}
        if authorization is not None:
            config[f"http.{self._location}.extraHeader"] = f"Authorization: {authorization}"
        return config

    def _authorization(self) -> str | None:
        password = self._credentials.password() if self._protocol in ("http", "https") else None
        if password is None:
            return None
        pair = f"{self._credentials.username or 'x-access-token'}:{password}"
        return f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"

    def credentials_version(self) -> tuple[object, ...]:
        """Return a value that changes when the credentials do. Raises `ConfigError` if the token's file cannot be read."""
        return self._authorization(), *map(
            _modified, (self._credentials.ssh_key_file, self._credentials.known_hosts_file, self._network.ssh_agent)
        )

    def ssh_command(self) -> str:
        """Return the ssh command: it never asks a question, accepts no unknown host, and uses only our key."""
        options = ["ssh", "-F", os.devnull, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20"]
        options += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
        if self._credentials.ssh_key_file is not None:
            options += ["-o", f"IdentityFile={_ssh_path(self._credentials.ssh_key_file)}", "-o", "IdentitiesOnly=yes"]
        if self._credentials.known_hosts_file is not None:
            options += ["-o", f"UserKnownHostsFile={_ssh_path(self._credentials.known_hosts_file)}"]
        return shlex.join(options)

    def _clean(self, errors: bytes) -> str:
        """Return git's message on one line; it is scrubbed whole, and then shortened, so that no half of a password stays."""
        text = _readable(errors.decode("utf-8", "replace"))
        password = self._credentials.password()
        if password:
            text = text.replace(" ".join(password.split()), MASK)
        return _shortened(USERINFO.sub("", text))


def _local_folder(location: str) -> Path:
    """Return the folder of a source on this machine, which is named by a path or by a ``file://`` URL."""
    return Path(unquote(urlsplit(location).path) if location.startswith("file://") else location)


def _quoted(value: str) -> str:
    """Return a value as git's configuration spells it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _ssh_path(path: Path) -> str:
    """Return a path as ssh's options spell it: it runs in another folder, splits at blanks, and replaces ``%h``."""
    escaped = str(path.expanduser().absolute()).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _command(arguments: Sequence[str]) -> str:
    return next((argument for argument in arguments if not argument.startswith("-")), "")


_MEASURED = re.compile(
    r" after \d+ (?:ms|milliseconds)\b"
    r"|(?: with)? \d+ (?:out of \d+ )?bytes (?:received|remaining to read|of body are still expected)\b"
)
"""How long git's library waited, and how much it got: with it, the same failure would be another one each time."""


def _readable(errors: str) -> str:
    """Return what git and ssh printed as one line, without the frames that ssh draws around its warnings, and what varies."""
    lines = (line.strip().strip("@").strip() for line in errors.replace("\0", "").splitlines())
    return _MEASURED.sub("", " ".join(" ".join(line.split()) for line in lines if line))


def _shortened(text: str) -> str:
    """Return the beginning and the end of a long text, each of whole words."""
    if len(text) <= MAX_ERROR_LENGTH:
        return text
    half = MAX_ERROR_LENGTH // 2
    return f"{text[:half].rpartition(' ')[0]} … {text[-half:].partition(' ')[2]}"


def _modified(path: Path | str | None) -> int | None:
    try:
        return None if path is None else Path(path).stat().st_mtime_ns
    except OSError:
        return None
