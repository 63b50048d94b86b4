"""Load and validate the settings; a flag overrides the environment, then ``--env-file``, then the default.

No other module reads the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from kapso_sync.credentials import MASKED
from kapso_sync.env_file import EnvFile, parse_env_file
from kapso_sync.errors import ConfigError, Notice
from kapso_sync.model.policies import AdoptPolicy, Contract, DriftPolicy, MaxDelete, UnknownSecrets
from kapso_sync.mounted_files import header_value, read_mounted_text
from kapso_sync.units import parse_duration, parse_percentage

DEFAULT_BASE_URL = "https://app.kapso.ai/api/v1"
MAX_CREDENTIAL_BYTES = 64 * 1024
"""Maximum size of a file that holds one credential, in bytes."""

_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


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
    match = re.fullmatch(r"(\d{1,6})(%?)", str(value).strip())
    if match is None or (match[2] and not 1 <= int(match[1]) <= 100):
        raise ValueError("expected a number, or a percentage from 1% to 100%")
    return MaxDelete(int(match[1]), percent=bool(match[2]))


def _blank_is_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _parse_name(value: object) -> object:
    """Return a name that an ownership mark can hold, or None for no text; raises ValueError."""
    if not isinstance(value, str):
        return value
    name = value.strip()
    if not name.isprintable() or re.search(r"[\[\]\s]", name):
        raise ValueError("expected a name such as acme/flows, without white space, control characters and square brackets")
    return name or None


def _parse_header(value: object) -> object:
    """Return a text that an HTTP header can carry, or None for no text; raises ValueError."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("expected printable ASCII characters on one line")
    return text or None


def _parse_lease_name(value: object) -> object:
    """Return a name that a Kubernetes object can have, or None for no text; raises ValueError."""
    if isinstance(value, str) and value.strip() and not re.fullmatch(_OBJECT_NAME, value.strip()):
        raise ValueError("expected a name of lower-case letters, digits, - and ., such as kapso-sync")
    return value.strip() or None if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(parse_duration)]
Grace = Annotated[float | None, BeforeValidator(parse_grace)]
Boolean = Annotated[bool, BeforeValidator(parse_boolean)]
Share = Annotated[float, BeforeValidator(parse_share)]
Deletions = Annotated[MaxDelete, BeforeValidator(parse_max_delete)]
Text = Annotated[str | None, BeforeValidator(_blank_is_none)]
Name = Annotated[str | None, BeforeValidator(_parse_name)]
LeaseName = Annotated[str | None, BeforeValidator(_parse_lease_name)]
HeaderText = Annotated[str | None, BeforeValidator(_parse_header)]
OptionalPath = Annotated[Path | None, BeforeValidator(_blank_is_none)]
Secret = Annotated[SecretStr | None, BeforeValidator(_blank_is_none)]


ENV_FILE_LINE = "env-file-line"
"""Code of the warning about lines of an ``--env-file`` that are not ``NAME=value``."""


class Settings(BaseModel):
    """All settings, validated; durations are in seconds. A secret in a file is read again at every access."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    api_key: Secret = Field(default=None, description="The project's API key.")
    api_key_file: OptionalPath = Field(default=None, description="A file that holds the key; read again at every call.")
    api_base_url: str = Field(default=DEFAULT_BASE_URL, description="Kapso's API; a host alone gets `/platform/v1`.")
    allow_http: Boolean = Field(default=False, description="Allow `http://` to hosts other than loopback.")
    source: Text = Field(default=None, description="The folder or git repository. Default: the current folder.")
    path: Text = Field(default=None, description="The functions folder in a repository. Default: `functions`, else the root.")
    branch: Text = Field(default=None, description="The branch to follow. Default: the remote's own.")
    ref: Text = Field(default=None, description="A tag or a commit, in place of a branch.")
    env: Name = Field(default=None, description="The manifest's environment that holds; part of the owner.")
    state_dir: OptionalPath = Field(
        default=None, description="Where to remember; one sub-folder per API, source, path and env."
    )
    owner: Name = Field(default=None, description="Who owns the functions. Default: from the git remote and path.")
    prune: Boolean = Field(default=False, description="Delete owned functions that left git.")
    max_delete: Deletions = Field(
        default=MaxDelete(25, percent=True), description="Most deletions, and recreations, in a pass."
    )
    prune_grace: Grace = Field(
        default=None,
        description="How long a function must be absent from git to be deleted. Default: `10m` in the daemon, `0` in `sync`.",
    )
    allow_empty: Boolean = Field(default=False, description="Accept a source that lists no function.")
    drift: DriftPolicy = Field(default=DriftPolicy.CORRECT, description="`correct`, or `report`: never overwrite.")
    adopt: AdoptPolicy = Field(default=AdoptPolicy.IDENTICAL, description="Unowned functions.")
    interval: Duration = Field(default=300.0, description="How often the daemon reconciles to find drift, ±10 %.")
    git_interval: Duration = Field(default=60.0, description="How often the daemon asks the git remote for its head.")
    debounce: Duration = Field(default=0.3, description="Quiet time after a file event before the daemon reconciles.")
    listen: str = Field(default="127.0.0.1:8321", description="Health, metrics, status, webhook; empty: no server.")
    webhook_secret: Secret = Field(default=None, description="Secret of the push webhook; without it there is none.")
    webhook_secret_file: OptionalPath = Field(default=None, description="A file that holds it; read again at each push.")
    admin_token: Secret = Field(default=None, description="Token for people. Default: made, in the state folder.")
    admin_token_file: OptionalPath = Field(default=None, description="A file that holds it; read again at each request.")
    lease: LeaseName = Field(default=None, description="A Kubernetes Lease: of any number of replicas, its holder writes.")
    lease_namespace: LeaseName = Field(default=None, description="The Lease's namespace. Default: the Pod's own.")
    kube_api: Text = Field(default=None, description="The API server of Kubernetes. Default: the one of the Pod's cluster.")
    kube_token_file: OptionalPath = Field(
        default=None, description="A file with a token for it; read again at every call. Default: the service account's."
    )
    kube_ca_file: OptionalPath = Field(
        default=None, description="A file with its authority's certificate. Default: the service account's, else the system's."
    )
    contract: Contract = Field(
        default=Contract.AUTO, description="How code is uploaded that asks for nothing: `auto`, `script` or `module`."
    )
    esbuild: OptionalPath = Field(default=None, description="The esbuild to build with. Default: our own copy, else PATH.")
    npm_registry: Text = Field(
        default=None, description="The registry that a git source's npm packages are fetched from. Default: none are."
    )
    concurrency: int = Field(default=8, ge=1, le=64, description="API calls in flight.")
    deploying: int = Field(
        default=50, ge=1, le=1000, description="Deployments in flight; all of them are followed by the same list call."
    )
    rate_share: Share = Field(default=0.8, description="Share of the API's per-minute limit that is spent.")
    rate_window: Duration = Field(default=60.0, description="The API's rate limit window; for proxies and the emulator.")
    request_timeout: Duration = Field(
        default=30.0, description="Deadline of one API request, and of an npm package times four."
    )
    deploy_timeout: Duration = Field(default=180.0, description="Then a deployment counts as failed.")
    check_delay: Duration = Field(
        default=20.0, description="First check after a deployment: the edge may answer with old code."
    )
    check_window: Duration = Field(default=60.0, description="A failing check counts when so much time has passed.")
    secret_env: Text = Field(
        default=None,
        description="Globs of variables that `secrets: {env: …}` may read, besides those of the `--env-file`. Default: none.",
    )
    secrets_dir: OptionalPath = Field(
        default=None,
        description="`secrets: {file: …}` reads only below it. Default: no file; in the image `/run/function-secrets`.",
    )
    unknown_secrets: UnknownSecrets = Field(
        default=UnknownSecrets.AUTO,
        description="Deploying a function with secrets on Kapso whose values are not known here: `allow`, `block`, or `auto`.",
    )
    prune_idle: Grace = Field(
        default=24 * 3600.0, description="A function that was invoked within this time is not deleted; `0` turns this off."
    )
    user_agent: HeaderText = Field(default=None, description="The User-Agent of every request. Default: `kapso-sync/VERSION`.")
    deploy_poll: Duration = Field(
        default=2.0, description="First interval between polls of running deployments; grows fivefold."
    )
    log_format: Literal["auto", "json", "console"] = Field(default="auto", description="`auto`: console on a terminal.")
    log_level: Literal["debug", "info", "warning", "error", "off"] | None = Field(
        default=None, description="How much to log; `off`: nothing. Default: `info`; on a terminal `off`, except for `run`."
    )
    git_timeout: Duration = Field(default=600.0, description="Deadline of one transfer from a git remote.")
    git_token: Secret = Field(default=None, description="Password or token for an https remote.")
    git_token_file: OptionalPath = Field(default=None, description="A file that holds it; read again at every fetch.")
    git_username: Text = Field(default=None, description="User name for an https remote. Default: `x-access-token`.")
    git_ssh_key_file: OptionalPath = Field(default=None, description="Private key for an ssh remote.")
    git_known_hosts_file: OptionalPath = Field(default=None, description="Known hosts for an ssh remote.")
    verify_file: OptionalPath = Field(
        default=None,
        description="Allowed signers (ssh) or a keyring (OpenPGP): a revision that none of them signed is not read.",
    )
    public_url: Text = Field(default=None, description="Where people reach the status page; messages and commits link to it.")
    notify_urls_file: OptionalPath = Field(
        default=None,
        description="A file of Apprise addresses, one per line, that receive notifications; read again when it changes.",
    )
    notify_interval: Duration = Field(default=60.0, description="Least time between two messages to one address.")
    commit_status: Literal["auto", "github", "gitlab", "gitea", "off"] = Field(
        default="off", description="Set each commit's status at its forge: `auto` goes by the host; Forgejo is `gitea`."
    )
    commit_status_url: Text = Field(default=None, description="Base of the forge's API. Default: from the remote's host.")
    commit_status_token: Secret = Field(default=None, description="Token that may set statuses. Default: git's token.")
    commit_status_token_file: OptionalPath = Field(
        default=None, description="A file that holds it; read again at every status."
    )

    _notices: tuple[Notice, ...] = PrivateAttr(default=())
    _environment: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _env_file_variables: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _env_file: Path | None = PrivateAttr(default=None)
    _key_env_file: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Keep the variables that were loaded, and the warnings about them."""
        loaded = context or {}
        self._environment = loaded.get("environment", {})
        self._env_file_variables = loaded.get("env_file_variables", {})
        self._env_file = loaded.get("env_file")
        self._key_env_file = loaded.get("key_env_file")
        self._notices = (
            *loaded.get("notices", ()),
            *_unknown_variables({**self._env_file_variables, **self._environment}),
        )

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Warnings about variables that are set but have no meaning."""
        return self._notices

    def key(self) -> str:
        """Return the API key, read again at every call; raises `ConfigError` if there is no key."""
        return _secret("api_key", self.api_key, self.api_key_file) or self._missing_key()

    def _missing_key(self) -> str:
        wrong = "".join(f"; {notice.message}" for notice in self._notices if notice.code == ENV_FILE_LINE)
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
        return setting if self._key_env_file is None else f"{setting} in {self._key_env_file}"

    def webhook_key(self) -> str | None:
        """Return the webhook's secret, read again at every call, or None."""
        return _secret("webhook_secret", self.webhook_secret, self.webhook_secret_file)

    def admin_key(self) -> str | None:
        """Return the admin token, read again at every call, or None if a new token must be generated."""
        return _secret("admin_token", self.admin_token, self.admin_token_file)

    @property
    def environment(self) -> Mapping[str, str]:
        """The process's environment, for ``secrets: {env: …}``."""
        return self._environment

    @property
    def env_file_variables(self) -> Mapping[str, str]:
        """What the ``--env-file`` sets, for ``secrets: {env: …}``."""
        return self._env_file_variables

    @property
    def network_variables(self) -> Mapping[str, str]:
        """The variables for proxies and authorities: the environment, then the ``--env-file``; an empty one is not set."""
        return {**self._env_file_variables, **{name: value for name, value in self._environment.items() if value.strip()}}

    @property
    def credential_files(self) -> tuple[Path, ...]:
        """The files that contain kapso-sync's own credentials."""
        named = (getattr(self, name) for name in type(self).model_fields if name.endswith("_file"))
        return tuple(path for path in (*named, self._env_file) if path is not None)

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


VARIABLES: Mapping[str, str] = {variable(name): name for name in Settings.model_fields}
_CREDENTIALS = {variable(name) for name in Settings.model_fields if f"{name}_file" in Settings.model_fields}


def load_settings(
    overrides: Mapping[str, object], *, env_file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings; raises one `ConfigError` that lists every invalid setting, and never shows a secret's value.

    The keys of ``overrides`` are setting names (``state_dir``); those of ``environment`` (default: `os.environ`) are variables.
    """
    environment = os.environ if environment is None else environment
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
    context = {
        "environment": environment,
        "env_file_variables": file,
        "env_file": kept,
        "key_env_file": key_file,
        "notices": _env_file_notices(env_file, parsed),
    }
    try:
        return Settings.model_validate(merged, context=context)
    except ValidationError as error:
        raise _explain(error) from None


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
            import difflib  # noqa: PLC0415 - only a mistake needs it

            endings = {setting.removeprefix("KAPSO_SYNC_"): setting for setting in known}
            close = difflib.get_close_matches(name.removeprefix("KAPSO_SYNC_"), endings, n=1)
            hint = f"; did you mean {endings[close[0]]}?" if close else ""
            notices.append(Notice("unknown-setting", f"{name} is not a setting{hint}"))
    return tuple(notices)


def _env_file_notices(path: Path | None, parsed: EnvFile) -> tuple[Notice, ...]:
    if not parsed.wrong_lines:
        return ()
    verb = "is" if len(parsed.wrong_lines) == 1 else "are"
    return (Notice(ENV_FILE_LINE, f"--env-file {path}: {parsed.wrong} {verb} not NAME=value, and left out"),)


def _read_env_file(path: Path | None) -> EnvFile:
    if path is None:
        return EnvFile()
    text = read_mounted_text(f"--env-file {path}", path, missing="name a file of NAME=value lines", pipe=True)
    if "\0" in text:  # no file and no child process takes a value with it
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigError(f"--env-file {path} cannot be read: line {line} holds a NUL character", hint="is it a text file?")
    return parse_env_file(text)


def _secret(name: str, value: SecretStr | None, file: Path | None) -> str | None:
    """Return a credential that an HTTP header can carry, or None; raises `ConfigError`, which never shows the value."""
    if file is None:
        return header_value(variable(name), value.get_secret_value()) if value is not None else None
    if value is not None:
        raise ConfigError(f"both {variable(name)} and {variable(name)}_FILE are set", hint="keep one of them")
    place = f"{variable(name)}_FILE {file}"
    found = header_value(place, read_mounted_text(place, file, missing="mount the secret there", limit=MAX_CREDENTIAL_BYTES))
    if not found:
        raise ConfigError(f"{place} is empty", hint="write the secret into it")
    return found


def _explain(error: ValidationError) -> ConfigError:
    lines = []
    for item in error.errors(include_url=False):
        name = str(item["loc"][0])
        field = Settings.model_fields.get(name)
        secret = field is not None and field.annotation == SecretStr | None
        shown = "" if secret else f" is {MASKED.sub('[redacted]', repr(item['input']))}"
        lines.append(f"{variable(name)}{shown}: {_expected(item)}")
    first, *rest = lines
    return ConfigError(
        f"{first}" + "".join(f"; {line}" for line in rest),
        hint="flags and variables share these rules; `docs/settings.md` lists them all",
    )


_EXPECTATIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "literal_error": lambda context: f"expected {context['expected']}",
    "enum": lambda context: f"expected {context['expected']}",
    "int_parsing": lambda _: "expected a whole number",
    "greater_than_equal": lambda context: f"expected at least {context['ge']}",
    "less_than_equal": lambda context: f"expected at most {context['le']}",
}


def _expected(item: Mapping[str, Any]) -> str:
    explain = _EXPECTATIONS.get(str(item["type"]))
    if explain is not None:
        return explain(item.get("ctx", {}))
    return str(item["msg"]).removeprefix("Value error, ").lower().removeprefix("value error, ")
