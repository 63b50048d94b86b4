"""Load and validate the settings; a flag overrides the environment, then ``--env-file``, then the default.

No other module reads the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from kapso_sync.closest import closest
from kapso_sync.credentials import MASK, MASKED
from kapso_sync.dataclass import dataclass
from kapso_sync.env_file import EnvFile, parse_env_file
from kapso_sync.errors import ConfigError, Notice
from kapso_sync.model.policies import AdoptPolicy, Contract, DriftPolicy, MaxDelete, UnknownSecrets
from kapso_sync.mounted_files import header_value, read_mounted_text
from kapso_sync.plurals import alternatives
from kapso_sync.units import parse_duration, parse_percentage

DEFAULT_BASE_URL = "https://app.kapso.ai/api/v1"
MAX_CREDENTIAL_BYTES = 64 * 1024
"""Maximum size of a file that holds one credential, in bytes."""

_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


_T = TypeVar("_T")
_Default = TypeVar("_Default")


def parse_grace(value: object) -> float | None:
    """Return seconds like `parse_duration`, 0.0 for ``0``, or None for no text; raises ValueError."""
    if value is None or isinstance(value, float):
        return value
    text = str(value).strip()
    return None if not text else 0.0 if text in ("0", "0s") else parse_duration(text)


def parse_boolean(value: object) -> bool:
    """Return a boolean from true or false, 1 or 0, yes or no; raises ValueError."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError("expected true or false")


def parse_share(value: object) -> float:
    """Return a fraction from ``80%``; raises ValueError."""
    return parse_percentage(value) / 100


def parse_max_delete(value: object) -> MaxDelete:
    """Return a limit from ``25%`` or ``5``; raises ValueError."""
    if isinstance(value, MaxDelete):
        return value
    match = re.fullmatch("([0-9]{1,6})(%?)", str(value).strip())
    if match is None or (match[2] and not 1 <= int(match[1]) <= 100):
        raise ValueError("expected a number, or a percentage from 1% to 100%")
    return MaxDelete(int(match[1]), percent=bool(match[2]))


def _number(low: int, high: int) -> Callable[[object], int]:
    """Return a parser of whole numbers between these, both included."""

    def parse(value: object) -> int:
        text = str(value).strip()
        try:
            number = int(text if text.isascii() else "")  # not every digit of Unicode is one that people take for it
        except ValueError:
            raise ValueError("expected a whole number") from None
        if number < low:
            raise ValueError(f"expected at least {low}")
        if number > high:
            raise ValueError(f"expected at most {high}")
        return number

    return parse


def _one_of(*choices: _T) -> Callable[[object], _T]:
    """Return a parser of these texts, with or without blanks around them."""

    def parse(value: object) -> _T:
        text = value.strip() if isinstance(value, str) else value
        for choice in choices:
            if text == choice:
                return choice
        spelled = [f"'{choice}'" for choice in choices]
        raise ValueError(f"expected {alternatives(spelled)}")

    return parse


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")  # noqa: TRY004 - what every parser here raises
    return value


def _path(value: object) -> Path:
    """Return a path; ``~`` and ``~user`` at its beginning, which no shell expands in a file, are home folders.

    Raises ValueError if the home folder is unknown.
    """
    if isinstance(value, Path):
        return Path(_without_tilde(str(value)))
    return Path(_without_tilde(_text(value)))


def _without_tilde(text: str) -> str:
    expanded = os.path.expanduser(text)  # noqa: PTH111 - a Path would take ./~name for the same as ~name
    if expanded.startswith("~"):
        raise ValueError("its home folder is not known; write the whole path, or ./~… for a name that begins with ~")
    return expanded


def _source(value: object) -> str:
    """Return a folder or the address of a repository; the folder may begin with ``~/``."""
    text = _text(value)
    return _without_tilde(text) if text == "~" or text.startswith("~/") else text


class _WrongUrl(ValueError):
    """A URL that cannot be used; ``shown`` is as much of it as a message may show, or None for one with a password."""

    def __init__(self, reason: str, shown: str | None) -> None:
        super().__init__(reason)
        self.shown = shown


def _url(example: str) -> Callable[[object], str]:
    """Return a parser of http(s) URLs without a password, a query or a fragment."""

    def parse(value: object) -> str:
        from kapso_sync.urls import CarriesPassword, split_http_url, without_query  # noqa: PLC0415 - few settings need it

        text = _text(value).strip()
        try:
            split_http_url(text)
        except CarriesPassword as error:
            raise _WrongUrl(str(error), None) from error
        except ValueError as error:
            raise _WrongUrl(f"{error}; an example: {example}", without_query(text)) from error
        return text

    return parse


def _listen(value: object) -> str:
    """Return an address to listen on, or no text; raises ValueError."""
    from kapso_sync.urls import parse_listen  # noqa: PLC0415 - few settings need it

    text = _text(value).strip()
    if text:
        parse_listen(text)
    return text


def _credential(value: object) -> Credential:
    return Credential(_text(value))


def _name(value: object) -> str | None:
    """Return a name that an ownership mark can hold, or None for no text; raises ValueError."""
    name = _text(value).strip()
    if not name.isprintable() or re.search(r"[\[\]\s]", name):
        raise ValueError("expected a name such as acme/flows, without white space, control characters and square brackets")
    return name or None


def _header(value: object) -> str | None:
    """Return a text that an HTTP header can carry, or None for no text; raises ValueError."""
    text = _text(value).strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("expected printable ASCII characters on one line")
    return text or None


def _object_name(value: object) -> str | None:
    """Return a name that a Kubernetes object can have, or None for no text; raises ValueError."""
    name = _text(value).strip()
    if name and not _OBJECT_NAME.fullmatch(name):
        raise ValueError("expected a name of lower-case letters, digits, - and ., such as kapso-sync")
    return name or None


@dataclass(frozen=True, slots=True)
class Credential:
    """The text of a credential, which `repr` leaves out."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting: its parser, which raises ValueError with what it expected, its default, and what it is for."""

    parse: Callable[[object], object]
    default: object
    description: str


def _setting(parse: Callable[[object], _T], description: str, *, default: _Default) -> _T | _Default:
    """Return the dataclass field of a setting."""
    made: Any = field(default=default, metadata={"setting": Setting(parse, default, description)})
    return made  # type: ignore[no-any-return] # a field stands for its value, as in dataclasses' own `field`


def _optional(parse: Callable[[object], _T | None], description: str) -> _T | None:
    """Return the field of a setting that may be left out, as None and blank text are."""
    return _setting(
        lambda value: None if value is None or (isinstance(value, str) and not value.strip()) else parse(value),
        description,
        default=None,
    )


ENV_FILE_LINE = "env-file-line"
"""Code of the warning about lines of an ``--env-file`` that are not ``NAME=value``."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings came from: those that are ``given``, the variables, and the files that set or hold the key."""

    given: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    env_file_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    env_file: Path | None = None
    key_env_file: Path | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Settings:
    """All settings, validated; durations are in seconds. A secret in a file is read again at every access."""

    api_key: Credential | None = _optional(_credential, "The project's API key.")
    api_key_file: Path | None = _optional(_path, "A file that holds the key; read again at every call.")
    api_base_url: str = _setting(
        _url(DEFAULT_BASE_URL), "Kapso's API; a host alone gets `/platform/v1`.", default=DEFAULT_BASE_URL
    )
    allow_http: bool = _setting(parse_boolean, "Allow `http://` to hosts other than loopback.", default=False)
    source: str | None = _optional(_source, "The folder or git repository. Default: the current folder.")
    path: str | None = _optional(_text, "The functions folder in a repository. Default: `functions`, else the root.")
    branch: str | None = _optional(_text, "The branch to follow. Default: the remote's own.")
    ref: str | None = _optional(_text, "A tag or a commit, in place of a branch.")
    env: str | None = _optional(_name, "The manifest's environment that holds; part of the owner.")
    state_dir: Path | None = _optional(_path, "Where to remember; one sub-folder per API, source, path and env.")
    owner: str | None = _optional(_name, "Who owns the functions. Default: from the git remote and path.")
    prune: bool = _setting(parse_boolean, "Delete owned functions that left git.", default=False)
    max_delete: MaxDelete = _setting(
        parse_max_delete, "Most deletions, and recreations, in a pass.", default=MaxDelete(25, percent=True)
    )
    prune_grace: float | None = _setting(
        parse_grace,
        "How long a function must be absent from git to be deleted. Default: `10m` in the daemon, `0` in `sync`.",
        default=None,
    )
    allow_empty: bool = _setting(parse_boolean, "Accept a source that lists no function.", default=False)
    drift: DriftPolicy = _setting(
        _one_of(*DriftPolicy), "`correct`, or `report`: never overwrite.", default=DriftPolicy.CORRECT
    )
    adopt: AdoptPolicy = _setting(_one_of(*AdoptPolicy), "Unowned functions.", default=AdoptPolicy.IDENTICAL)
    interval: float = _setting(parse_duration, "How often the daemon reconciles to find drift, ±10 %.", default=300.0)
    git_interval: float = _setting(parse_duration, "How often the daemon asks the git remote for its head.", default=60.0)
    debounce: float = _setting(parse_duration, "Quiet time after a file event before the daemon reconciles.", default=0.3)
    listen: str = _setting(_listen, "Health, metrics, status, webhook; empty: no server.", default="127.0.0.1:8321")
    webhook_secret: Credential | None = _optional(_credential, "Secret of the push webhook; without it there is none.")
    webhook_secret_file: Path | None = _optional(_path, "A file that holds it; read again at each push.")
    admin_token: Credential | None = _optional(_credential, "Token for people. Default: made, in the state folder.")
    admin_token_file: Path | None = _optional(_path, "A file that holds it; read again at each request.")
    lease: str | None = _optional(_object_name, "A Kubernetes Lease: of any number of replicas, its holder writes.")
    lease_namespace: str | None = _optional(_object_name, "The Lease's namespace. Default: the Pod's own.")
    kube_api: str | None = _optional(
        _url("https://10.0.0.1:6443"), "The API server of Kubernetes. Default: the one of the Pod's cluster."
    )
    kube_token_file: Path | None = _optional(
        _path, "A file with a token for it; read again at every call. Default: the service account's."
    )
    kube_ca_file: Path | None = _optional(
        _path, "A file with its authority's certificate. Default: the service account's, else the system's."
    )
    contract: Contract = _setting(
        _one_of(*Contract), "How code is uploaded that asks for nothing: `auto`, `script` or `module`.", default=Contract.AUTO
    )
    esbuild: Path | None = _optional(_path, "The esbuild to build with. Default: our own copy, else PATH.")
    npm_registry: str | None = _optional(
        _url("https://registry.npmjs.org"), "The registry that a git source's npm packages are fetched from. Default: none are."
    )
    concurrency: int = _setting(_number(1, 64), "API calls in flight.", default=8)
    deploying: int = _setting(
        _number(1, 1000), "Deployments in flight; all of them are followed by the same list call.", default=50
    )
    rate_share: float = _setting(parse_share, "Share of the API's per-minute limit that is spent.", default=0.8)
    rate_window: float = _setting(parse_duration, "The API's rate limit window; for proxies and the emulator.", default=60.0)
    request_timeout: float = _setting(
        parse_duration, "Deadline of one API request, and of an npm package times four.", default=30.0
    )
    deploy_timeout: float = _setting(parse_duration, "Then a deployment counts as failed.", default=180.0)
    check_delay: float = _setting(
        parse_duration, "First check after a deployment: the edge may answer with old code.", default=20.0
    )
    check_window: float = _setting(parse_duration, "A failing check counts when so much time has passed.", default=60.0)
    secret_env: str | None = _optional(
        _text, "Globs of variables that `secrets: {env: …}` may read, besides those of the `--env-file`. Default: none."
    )
    secrets_dir: Path | None = _optional(
        _path, "`secrets: {file: …}` reads only below it. Default: no file; in the image `/run/function-secrets`."
    )
    unknown_secrets: UnknownSecrets = _setting(
        _one_of(*UnknownSecrets),
        "Deploying a function with secrets on Kapso whose values are not known here: `allow`, `block`, or `auto`.",
        default=UnknownSecrets.AUTO,
    )
    prune_idle: float | None = _setting(
        parse_grace, "A function that was invoked within this time is not deleted; `0` turns this off.", default=24 * 3600.0
    )
    user_agent: str | None = _optional(_header, "The User-Agent of every request. Default: `kapso-sync/VERSION`.")
    deploy_poll: float = _setting(
        parse_duration, "First interval between polls of running deployments; grows fivefold.", default=2.0
    )
    log_format: Literal["auto", "json", "console"] = _setting(
        _one_of("auto", "json", "console"), "`auto`: console on a terminal.", default="auto"
    )
    log_level: Literal["debug", "info", "warning", "error", "off"] | None = _optional(
        _one_of("debug", "info", "warning", "error", "off"),
        "How much to log; `off`: nothing. Default: `info`; on a terminal `off`, except for `run`.",
    )
    git_timeout: float = _setting(parse_duration, "Deadline of one transfer from a git remote.", default=600.0)
    git_token: Credential | None = _optional(_credential, "Password or token for an https remote.")
    git_token_file: Path | None = _optional(_path, "A file that holds it; read again at every fetch.")
    git_username: str | None = _optional(_text, "User name for an https remote. Default: `x-access-token`.")
    git_ssh_key_file: Path | None = _optional(_path, "Private key for an ssh remote.")
    git_known_hosts_file: Path | None = _optional(_path, "Known hosts for an ssh remote.")
    verify_file: Path | None = _optional(
        _path, "Allowed signers (ssh) or a keyring (OpenPGP): a revision that none of them signed is not read."
    )
    public_url: str | None = _optional(
        _url("https://kapso-sync.example.com"), "Where people reach the status page; messages and commits link to it."
    )
    notify_urls_file: Path | None = _optional(
        _path, "A file of Apprise addresses, one per line, that receive notifications; read again when it changes."
    )
    notify_interval: float = _setting(parse_duration, "Least time between two messages to one address.", default=60.0)
    commit_status: Literal["auto", "github", "gitlab", "gitea", "off"] = _setting(
        _one_of("auto", "github", "gitlab", "gitea", "off"),
        "Set each commit's status at its forge: `auto` goes by the host; Forgejo is `gitea`.",
        default="off",
    )
    commit_status_url: str | None = _optional(
        _url("https://github.example.com/api/v3"), "Base of the forge's API. Default: from the remote's host."
    )
    commit_status_token: Credential | None = _optional(_credential, "Token that may set statuses. Default: git's token.")
    commit_status_token_file: Path | None = _optional(_path, "A file that holds it; read again at every status.")
    origin: Origin = field(default=Origin(), repr=False, hash=False)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Warnings about variables that are set but have no meaning."""
        return self.origin.notices

    def key(self) -> str:
        """Return the API key, read again at every call; raises `ConfigError` if there is no key."""
        return _secret("api_key", self.api_key, self.api_key_file) or self._missing_key()

    def _missing_key(self) -> str:
        wrong = "".join(f"; {notice.message}" for notice in self.origin.notices if notice.code == ENV_FILE_LINE)
        where = "Kapso's dashboard, Project settings, API keys"
        raise ConfigError(
            f"no API key{wrong}", hint=f"set KAPSO_API_KEY, or KAPSO_API_KEY_FILE to a file that holds it ({where})"
        )

    @property
    def has_key(self) -> bool:
        """Return whether the settings name an API key, by value or by file."""
        return self.api_key is not None or self.api_key_file is not None

    @property
    def key_source(self) -> str:
        """The setting that the key comes from, with the file that sets or holds it, for error messages."""
        setting = "KAPSO_API_KEY" if self.api_key_file is None else f"KAPSO_API_KEY_FILE ({self.api_key_file})"
        return setting if self.origin.key_env_file is None else f"{setting} in {self.origin.key_env_file}"

    def webhook_key(self) -> str | None:
        """Return the webhook's secret, read again at every call, or None."""
        return _secret("webhook_secret", self.webhook_secret, self.webhook_secret_file)

    def admin_key(self) -> str | None:
        """Return the admin token, read again at every call, or None if a new token must be generated."""
        return _secret("admin_token", self.admin_token, self.admin_token_file)

    @property
    def environment(self) -> Mapping[str, str]:
        """The process's environment, for ``secrets: {env: …}``."""
        return self.origin.environment

    @property
    def env_file_variables(self) -> Mapping[str, str]:
        """What the ``--env-file`` sets, for ``secrets: {env: …}``."""
        return self.origin.env_file_variables

    @property
    def network_variables(self) -> Mapping[str, str]:
        """The variables for proxies and authorities: the environment, then the ``--env-file``; an empty one is not set."""
        return {
            **self.origin.env_file_variables,
            **{name: value for name, value in self.origin.environment.items() if value.strip()},
        }

    @property
    def credential_files(self) -> tuple[Path, ...]:
        """The files that contain kapso-sync's own credentials."""
        named = (getattr(self, name) for name in SETTINGS if name.endswith("_file"))
        return tuple(path for path in (*named, self.origin.env_file) if path is not None)

    def git_password(self) -> str | None:
        """Return the git token, read again at every call, or None."""
        return _secret("git_token", self.git_token, self.git_token_file)

    def commit_status_key(self) -> str:
        """Return the token for commit statuses, read again at every call; raises `ConfigError` if there is no token."""
        own = _secret("commit_status_token", self.commit_status_token, self.commit_status_token_file)
        token = own or self.git_password()
        if token is None:
            raise ConfigError(
                "KAPSO_SYNC_COMMIT_STATUS needs a token, and there is none",
                hint="set KAPSO_SYNC_COMMIT_STATUS_TOKEN_FILE, or KAPSO_SYNC_GIT_TOKEN_FILE to one that may set statuses",
            )
        return token


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"KAPSO_{name.upper()}" if name in ("api_key", "api_key_file", "api_base_url") else f"KAPSO_SYNC_{name.upper()}"


SETTINGS: Mapping[str, Setting] = {each.name: each.metadata["setting"] for each in fields(Settings) if each.metadata}
"""Each setting, by its name, in the order of the code."""

VARIABLES: Mapping[str, str] = {variable(name): name for name in SETTINGS}
_CREDENTIALS = {variable(name) for name in SETTINGS if f"{name}_file" in SETTINGS}


def load_settings(
    overrides: Mapping[str, object], *, env_file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings; raises one `ConfigError` that lists every invalid setting, and never shows a secret's value.

    The keys of ``overrides`` are setting names (``state_dir``); those of ``environment`` (default: `os.environ`) are variables.
    """
    environment = os.environ if environment is None else environment
    env_file = _env_file_path(env_file)
    parsed = _read_env_file(env_file)
    file = parsed.variables
    merged: dict[str, object] = {}
    for layer in (file, environment):
        merged |= {VARIABLES[name]: value for name, value in layer.items() if name in VARIABLES and _is_set(name, value)}
    for name, value in overrides.items():
        if isinstance(value, str) and not _is_set(variable(name), value):
            merged.pop(name, None)  # a flag without a value, as a script's empty variable makes it: the default holds
        else:
            merged[name] = value
    kept = env_file if _CREDENTIALS & file.keys() else None
    keys = ("KAPSO_API_KEY", "KAPSO_API_KEY_FILE")
    outside = any(_is_set(name, environment.get(name, "")) for name in keys) or "api_key" in overrides
    key_file = None if outside or not any(name in file for name in keys) else env_file
    origin = Origin(
        frozenset(merged),
        environment,
        file,
        kept,
        key_file,
        (*_env_file_notices(env_file, parsed), *_unknown_variables({**file, **environment})),
    )
    values, mistakes = {}, []
    for name, value in merged.items():
        try:
            values[name] = SETTINGS[name].parse(value)
        except ValueError as error:
            mistakes.append((name, value, error))
    if mistakes:
        raise _explain(sorted(mistakes, key=lambda mistake: list(SETTINGS).index(mistake[0])))
    made: Any = Settings
    return made(**values, origin=origin)  # type: ignore[no-any-return] # each parser returns the type of its field


def _is_set(name: str, value: str) -> bool:
    """Return whether a variable counts as set; an empty one, as compose files and CI systems write it, does not.

    The only exception is an empty address to listen on, which means: no server.
    """
    return bool(value.strip()) or VARIABLES[name] == "listen"


def _unknown_variables(environment: Mapping[str, str]) -> tuple[Notice, ...]:
    """Return a warning for each ``KAPSO_SYNC_…`` variable that is not a setting."""
    known = VARIABLES.keys()
    notices = []
    for name in sorted(environment):
        if name.startswith("KAPSO_SYNC_") and name not in known:
            endings = {setting.removeprefix("KAPSO_SYNC_"): setting for setting in known}
            close = closest(name.removeprefix("KAPSO_SYNC_"), endings)
            hint = f"; did you mean {endings[close]}?" if close else ""
            notices.append(Notice("unknown-setting", f"{name} is not a setting{hint}"))
    return tuple(notices)


def _env_file_notices(path: Path | None, parsed: EnvFile) -> tuple[Notice, ...]:
    if not parsed.wrong_lines:
        return ()
    verb = "is" if len(parsed.wrong_lines) == 1 else "are"
    return (Notice(ENV_FILE_LINE, f"--env-file {path}: {parsed.wrong} {verb} not NAME=value, and left out"),)


def _env_file_path(path: Path | None) -> Path | None:
    try:
        return None if path is None else _path(path)
    except ValueError as error:
        raise ConfigError(f"--env-file {path}: {error}", hint="name a file of NAME=value lines") from error


def _read_env_file(path: Path | None) -> EnvFile:
    if path is None:
        return EnvFile()
    text = read_mounted_text(f"--env-file {path}", path, missing="name a file of NAME=value lines", pipe=True)
    if "\0" in text:  # no file and no child process takes a value with it
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigError(f"--env-file {path} cannot be read: line {line} holds a NUL character", hint="is it a text file?")
    return parse_env_file(text)


def _secret(name: str, value: Credential | None, file: Path | None) -> str | None:
    """Return a credential that an HTTP header can carry, or None; raises `ConfigError`, which never shows the value."""
    if file is None:
        return header_value(variable(name), value.text) if value is not None else None
    if value is not None:
        raise ConfigError(f"both {variable(name)} and {variable(name)}_FILE are set", hint="keep one of them")
    place = f"{variable(name)}_FILE {_shown(file)}"
    found = header_value(place, read_mounted_text(place, file, missing="mount the secret there", limit=MAX_CREDENTIAL_BYTES))
    if not found:
        raise ConfigError(f"{place} is empty", hint="write the secret into it")
    return found


def _shown(file: Path) -> str:
    """Return a credential's file for a message, which does not show what may be the credential in place of its file."""
    text = str(file)
    return f"({len(text)} characters)" if _MAY_BE_CREDENTIAL.fullmatch(text) and not file.exists() else text


_MAY_BE_CREDENTIAL = re.compile(r"[^/.]{16,}|[^/]{40,}")
"""What hardly names a file: long, in no folder and without a suffix, or very long."""


def _explain(mistakes: Sequence[tuple[str, object, ValueError]]) -> ConfigError:
    """Return one error of all mistakes: the setting's name, its value unless it is a credential, and what was expected."""
    lines = []
    for name, value, error in mistakes:
        visible = error.shown if isinstance(error, _WrongUrl) else None if f"{name}_file" in SETTINGS else value
        shown = "" if visible is None else f" is {MASKED.sub(MASK, repr(visible))}"
        lines.append(f"{variable(name)}{shown}: {error}")
    return ConfigError("; ".join(lines), hint="flags and variables share these rules; `docs/settings.md` lists them all")
