"""Reads the values of secrets: from the environment, from mounted files, or from the manifest itself.

Everybody who can push to the repository chooses these names, so they must not reach anything of ours: no ``KAPSO_…`` variable,
no file outside the secrets folder, and no file in it that holds one of our credentials.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from kapso_sync.model.desired import DotenvSecret, EnvSecret, FileSecret, GivenSecret, PlainSecret
from kapso_sync.model.functions import Json, canonical_json, is_nested_within

OURS = "KAPSO_"
POD = "kubernetes.io"
"""The folder below ``/run/secrets`` in which Kubernetes mounts the Pod's own token."""
MAX_DEPTH = 100
"""Levels that a JSON secret may be nested."""

SIZE_LIMIT = 64 * 1024
"""Maximum size of a value, and of a file with values, in bytes."""


class SecretMissing(Exception):
    """A value is missing; ``message`` ends a sentence that names the secret, ``hint`` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class SecretReader:
    """Reads the values again at each call.

    ``allowed`` are globs of variables, ``folder`` holds files, ``ours`` are files and folders of our own credentials.
    ``on_value`` is called with every value that is not plain configuration, so that it can be redacted.
    """

    environment: Mapping[str, str] = field(repr=False)
    allowed: Sequence[str]
    folder: Path
    ours: Sequence[Path]
    on_value: Callable[[str], None]

    def read(self, source: GivenSecret) -> Json:
        """Return the value: text, or an object or a list if the source is marked as JSON; raises `SecretMissing`."""
        if isinstance(source, PlainSecret):
            return source.value
        value = self._value(source)
        if not value:
            raise SecretMissing("is empty", "give it a value")
        if "\0" in value:
            raise SecretMissing("holds a NUL character", "is it text?")
        self.on_value(value)
        return self._json(value) if isinstance(source, EnvSecret | FileSecret) and source.json else value

    def _json(self, text: str) -> Json:
        """Return the object or list of a JSON text; every text inside it is redacted as well."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise SecretMissing("is not JSON", "take `json: true` away, or write an object or a list") from None
        if not is_nested_within(value, MAX_DEPTH):
            raise SecretMissing(f"is JSON that is nested deeper than {MAX_DEPTH} levels", "is it the right file?")
        if not isinstance(value, dict | list):
            raise SecretMissing("is neither a JSON object nor a list", "take `json: true` away")
        for leaf in _texts(value):
            self.on_value(leaf)
        self.on_value(canonical_json(value))
        return value

    def _value(self, source: EnvSecret | FileSecret | DotenvSecret) -> str:
        if isinstance(source, EnvSecret):
            return self._variable(source.env)
        if isinstance(source, FileSecret):
            text = self._file(source.file).removeprefix("\ufeff")
            return text.removesuffix("\n").removesuffix("\r")
        if source.name.upper().startswith(OURS):
            raise SecretMissing(
                f"may not be {source.name} of {source.file}: it is kapso-sync's own", "give it a name of its own"
            )
        values = dotenv_values(stream=io.StringIO(self._file(source.file)), interpolate=False)
        value = values.get(source.name)
        if value is None:
            raise SecretMissing(f"is not in {source.file}", f"add a line {source.name}=… to it")
        return value

    def _variable(self, name: str) -> str:
        if name.upper().startswith(OURS):
            raise SecretMissing(f"may not be the variable {name}: it is kapso-sync's own", "give it a name of its own")
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.allowed):
            raise SecretMissing(f"may not be the variable {name}", "KAPSO_SYNC_SECRET_ENV says which ones may be read")
        if name not in self.environment:
            raise SecretMissing(
                f"needs the variable {name}, which is not set", "set it where kapso-sync runs, or in an --env-file"
            )
        return self.environment[name]

    def _file(self, name: str) -> str:
        if "\0" in name:
            raise SecretMissing(f"may not be the file {name}: no file has a NUL character in its name", "correct the name")
        folder = Path(os.path.realpath(self.folder))
        path = Path(os.path.realpath(folder / name))
        if not path.is_relative_to(folder) or path == folder:
            raise SecretMissing(f"may not be the file {name}: it is outside {self.folder}", "name a file below that folder")
        if path.relative_to(folder).parts[0] == POD:
            raise SecretMissing(f"may not be the file {name}: it is a credential of the Pod's", "use another file")
        try:
            found = path.stat()
            if any(_same(found, own) or path.is_relative_to(os.path.realpath(own)) for own in self.ours):
                raise SecretMissing(f"may not be the file {name}: it holds a credential of kapso-sync's", "use another file")
            if not stat.S_ISREG(found.st_mode):
                raise SecretMissing(f"needs {name} below {self.folder}, which is not a regular file", "mount the secret there")
            if found.st_size > SIZE_LIMIT:
                raise SecretMissing(f"is {found.st_size} bytes; {SIZE_LIMIT} are allowed", "is it the right file?")
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SecretMissing(
                f"needs {name} below {self.folder}, which is not UTF-8 text", "is it the right file?"
            ) from error
        except OSError as error:
            raise SecretMissing(
                f"needs {name} below {self.folder}: {error.strerror}", "mount it there; KAPSO_SYNC_SECRETS_DIR names the folder"
            ) from error


def _same(found: os.stat_result, other: Path) -> bool:
    try:
        return os.path.samestat(found, other.stat())
    except OSError:
        return False


def _texts(value: Json) -> Iterator[str]:
    """Return the texts inside a JSON value, keys left out."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
