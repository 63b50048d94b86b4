"""Reads the values of secrets: from the environment, from mounted files, or from the manifest itself.

Everybody who can push to the repository chooses these names, so they must not reach anything of ours: no ``KAPSO_…`` variable,
no file outside the secrets folder, and no file in it that holds one of our credentials.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from kapso_sync.credentials import MASK, looks_like_a_value
from kapso_sync.dataclass import dataclass
from kapso_sync.env_file import parse_env_file
from kapso_sync.files import read_beneath, read_small
from kapso_sync.model.desired import DotenvSecret, EnvSecret, FileSecret, GivenSecret, PlainSecret
from kapso_sync.model.json_values import MAX_JSON_DEPTH, Json, canonical_json, is_nested_within
from kapso_sync.mounted_files import BYTE_ORDER_MARK

OURS = "KAPSO_"
OF_THE_MACHINE = (
    *("PATH", "HOME", "USER", "SHELL", "LD_*", "DYLD_*", "PYTHON*", "*_PROXY", "SSL_*", "SSH_*", "GIT_*", "GPG_*"),
    *("AWS_*", "AZURE_*", "ARM_*", "GOOGLE_*", "GCLOUD_*", "GCP_*", "CLOUDSDK_*", "CLOUDFLARE_*", "CF_*", "DIGITALOCEAN_*"),
    *("GITHUB_*", "GH_*", "ACTIONS_*", "RUNNER_*", "GITLAB_*", "CI_*", "BITBUCKET_*", "GITEA_*", "FORGEJO_*", "CODEBERG_*"),
    *("KUBERNETES_*", "KUBE*", "VAULT_*", "DOCKER_*", "NPM_*", "NODE_AUTH_TOKEN", "PYPI_*", "TWINE_*", "CARGO_*"),
)
"""Variables that no pattern of ``KAPSO_SYNC_SECRET_ENV`` covers: whoever may push could send them to a function of theirs."""

OF_THE_POD = frozenset({"kubernetes.io", "eks.amazonaws.com"})
"""Folders below ``/run/secrets`` in which clusters mount the Pod's own tokens."""

MOUNTS_LIMIT = 4 * 1024 * 1024
_OCTAL = re.compile(r"\\([0-7]{3})")
SIZE_LIMIT = 64 * 1024
"""Maximum size of a value, and of a file with values, in bytes."""

MIN_DIGITS = 8
"""Minimum number of digits of a number in a JSON secret that is redacted: a shorter one is in every time and size."""

AS_TEXT = "; for bytes that are no text, take their base64"
"""End of the hint where a value is not UTF-8: Kapso's secrets are JSON texts."""

MAX_FILES = 1000
"""Most files with values that are read when no manifest says which."""


class SecretMissing(Exception):
    """A value is missing; ``message`` ends a sentence that names the secret, ``hint`` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def is_of_the_machine(name: str) -> bool:
    """Return whether a variable by its name is a setting or a credential of the machine, the cluster or the CI job."""
    return any(fnmatch.fnmatchcase(name.upper(), pattern) for pattern in OF_THE_MACHINE)


def mounts_below(folder: Path) -> tuple[Path, ...]:
    """Return the mount points below a folder, itself left out; none where the system does not list them as Linux does."""
    try:
        lines = read_small(Path("/proc/self/mountinfo"), MOUNTS_LIMIT).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ()
    # The fifth field is the mount point; white space and backslashes in it are written as octal escapes.
    points = (_OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split(" ")[4]) for line in lines if line.count(" ") > 4)
    return tuple(path for path in map(Path, points) if path.is_relative_to(folder) and path != folder)


@dataclass(frozen=True, slots=True)
class SecretReader:
    """Reads the values again at each call.

    ``environment`` is the process's own, of which the globs ``allowed`` may be read; what the ``env_file`` sets may always be.
    ``folder`` holds files; None: there are none. ``ours`` are files and folders of our own credentials. ``mounts`` returns the
    mount points below a folder. ``on_value`` is called with every value that is not plain configuration, so that it can be
    redacted.
    """

    environment: Mapping[str, str] = field(repr=False)
    env_file: Mapping[str, str] = field(repr=False)
    allowed: Sequence[str]
    folder: Path | None
    ours: Sequence[Path]
    on_value: Callable[[str], None]
    mounts: Callable[[Path], Sequence[Path]] = mounts_below

    def read(self, source: GivenSecret) -> Json:
        """Return the value: text, or an object or a list if the source is marked as JSON; raises `SecretMissing`."""
        if isinstance(source, PlainSecret):
            return source.value
        try:
            value = self._value(source).removeprefix(BYTE_ORDER_MARK)
        except SecretMissing as missing:
            raise _without_values(missing, source) from None
        if not value:
            raise SecretMissing("is empty", "give it a value")
        if "\0" in value:
            raise SecretMissing("holds a NUL character", "is it text?")
        self.on_value(value)
        return self._json(value) if isinstance(source, EnvSecret | FileSecret) and source.json else value

    def learn_all(self) -> None:
        """Read every value that a manifest could name, for ``on_value`` alone: whoever has no manifest redacts them all."""
        known = [name for name in (*self.environment, *self.env_file) if not name.upper().startswith(OURS)]
        for name in known:
            self._learn(EnvSecret(name, json=True))
        for path in _files_below(self.folder) if self.folder is not None else ():
            self._learn(FileSecret(path, json=True))
            with contextlib.suppress(SecretMissing):
                for name in parse_env_file(self._file(path)).variables:
                    self._learn(DotenvSecret(path, name))

    def _learn(self, source: GivenSecret) -> None:
        with contextlib.suppress(SecretMissing):
            self.read(source)

    def _json(self, text: str) -> Json:
        """Return the object or list of a JSON text; the texts and long numbers inside it are redacted as well."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise SecretMissing("is not JSON", "take `json: true` away, or write an object or a list") from None
        if not is_nested_within(value, MAX_JSON_DEPTH):
            raise SecretMissing(f"is JSON that is nested deeper than {MAX_JSON_DEPTH} levels", "is it the right file?")
        if not isinstance(value, dict | list):
            raise SecretMissing("is neither a JSON object nor a list", "take `json: true` away")
        for leaf in _values(value):
            self.on_value(leaf)
        self.on_value(canonical_json(value))
        return value

    def _value(self, source: EnvSecret | FileSecret | DotenvSecret) -> str:
        if isinstance(source, EnvSecret):
            return self._variable(source.env)
        if isinstance(source, FileSecret):
            text = self._file(source.file)
            return text.removesuffix("\n").removesuffix("\r")
        if source.name.upper().startswith(OURS):
            raise SecretMissing(
                f"may not be {source.name} of {source.file}: it is kapso-sync's own", "give it a name of its own"
            )
        found = parse_env_file(self._file(source.file))
        value = found.variables.get(source.name)
        if value is None and found.wrong_lines:
            text = f"is not in {source.file}, or in what is not NAME=value there: {found.wrong}"
            raise SecretMissing(text, f"correct {found.wrong}, or add a line {source.name}=… to it")
        if value is None:
            raise SecretMissing(f"is not in {source.file}", f"add a line {source.name}=… to it")
        return value

    def _variable(self, name: str) -> str:
        """Return a variable's value: of the process where the list allows it, else of the ``--env-file``."""
        if name.upper().startswith(OURS):
            raise SecretMissing(f"may not be the variable {name}: it is kapso-sync's own", "give it a name of its own")
        if name in self.environment and (name in self.allowed or (self._is_listed(name) and not is_of_the_machine(name))):
            value = self.environment[name]
            if _holds_other_bytes(value):
                raise SecretMissing(f"needs the variable {name}, which is not UTF-8 text", f"set it as UTF-8{AS_TEXT}")
            return value
        if name in self.env_file:
            return self.env_file[name]
        if name in self.environment and is_of_the_machine(name):
            text = f"may not be the variable {name}: by its name it belongs to this machine, and not to functions"
            raise SecretMissing(
                text, f"give it another name, or spell it out in KAPSO_SYNC_SECRET_ENV: no pattern covers {name}"
            )
        setting = "" if self._is_listed(name) else f", with KAPSO_SYNC_SECRET_ENV={','.join((*self.allowed, name))}"
        if name in self.environment:
            text = f"may not be the variable {name}, which KAPSO_SYNC_SECRET_ENV does not list"
            raise SecretMissing(text, f"put it into an --env-file, or list it: {setting.removeprefix(', with ')}")
        text = f"needs the variable {name}, which is not set"
        raise SecretMissing(text, f"put it into an --env-file, or set it where kapso-sync runs{setting}")

    def _is_listed(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.allowed)

    def _file(self, name: str) -> str:
        if self.folder is None:
            text = f"may not be the file {name}: no folder holds files for functions"
            raise SecretMissing(text, "set KAPSO_SYNC_SECRETS_DIR to the folder that does, and put nothing else there")
        if "\0" in name:
            raise SecretMissing(f"may not be the file {name}: no file has a NUL character in its name", "correct the name")
        folder = Path(os.path.realpath(self.folder))
        path = Path(os.path.realpath(folder / name))
        if not path.is_relative_to(folder) or path == folder:
            raise SecretMissing(f"may not be the file {name}: it is outside {self.folder}", "name a file below that folder")
        inside = path.relative_to(folder)
        if inside.parts[0] in OF_THE_POD or any(mount in (path, *path.parents) for mount in self.mounts(folder)):
            text = f"may not be the file {name}: something else is mounted there, such as a token of the Pod's"
            raise SecretMissing(text, f"mount secrets of functions at {self.folder} itself")
        try:
            found = path.stat()
            if any(_same(found, own) or path.is_relative_to(os.path.realpath(own)) for own in self.ours):
                raise SecretMissing(f"may not be the file {name}: it holds a credential of kapso-sync's", "use another file")
            return read_beneath(folder, inside, SIZE_LIMIT).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SecretMissing(
                f"needs {name} below {self.folder}, which is not UTF-8 text", f"save it as UTF-8{AS_TEXT}"
            ) from error
        except OSError as error:
            raise SecretMissing(
                f"needs {name} below {self.folder}: {error.strerror}", "mount it there; KAPSO_SYNC_SECRETS_DIR names the folder"
            ) from error


def _without_values(missing: SecretMissing, source: EnvSecret | FileSecret | DotenvSecret) -> SecretMissing:
    """Return the error without what looks like a credential that somebody wrote in place of a name."""
    names = [source.env if isinstance(source, EnvSecret) else source.file]
    names += [source.name] if isinstance(source, DotenvSecret) else []
    values = [*filter(looks_like_a_value, names)]
    if not values:
        return missing
    message = missing.message
    for value in values:
        message = message.replace(value, MASK)
    hint = "name the place of the value; this looks like the value itself: replace a credential that git has seen"
    return SecretMissing(message, hint)


def _files_below(folder: Path) -> list[str]:
    """Return the paths of the files in a folder and in its sub-folders, at most `MAX_FILES`."""
    found: list[str] = []
    for root, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(root, name), folder) for name in names]  # noqa: PTH118
        if len(found) >= MAX_FILES:
            break
    return found[:MAX_FILES]


def _holds_other_bytes(value: str) -> bool:
    """Return whether a variable holds bytes that are not UTF-8: Python keeps each as a lone surrogate."""
    return any("\ud800" <= character <= "\udfff" for character in value)


def _same(found: os.stat_result, other: Path) -> bool:
    try:
        return os.path.samestat(found, other.stat())
    except OSError:
        return False


def _values(value: Json) -> Iterator[str]:
    """Yield the texts inside a JSON value, keys left out, and its numbers of `MIN_DIGITS` digits as JSON writes them."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif sum(map(str.isdigit, number := json.dumps(item))) >= MIN_DIGITS:
            yield number
