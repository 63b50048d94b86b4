"""Build the desired functions from a snapshot: read the manifest, check and build the code, read secret values."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from typing import Protocol

from kapso_sync.aio import until_end
from kapso_sync.build import Builder, PackageSource
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Notice, Problem
from kapso_sync.manifest import read_manifest, unlisted_files
from kapso_sync.manifest.remote_map import read_project_id, read_remote_map
from kapso_sync.model.desired import Desired, DesiredFunction, GivenSecret, KeepSecret, Manifest, SecretValue, UnusableFunction
from kapso_sync.model.json_values import Json, canonical_json
from kapso_sync.model.source import CODE_SUFFIXES, Snapshot, SourceFile
from kapso_sync.model.state import ReconcilerState
from kapso_sync.sources.secrets import SecretMissing


class DesiredBuilder:
    """Builds the desired functions of a snapshot; keeps what its manifest declares until something of that changes."""

    def __init__(
        self,
        builder: Builder,
        notices: tuple[Notice, ...] = (),
        packages: Callable[[Snapshot], PackageSource | None] = lambda _snapshot: None,
        secrets: SecretValues | None = None,
        environment: str | None = None,
    ) -> None:
        """Create a builder.

        ``notices`` are warnings from other parts that every plan must show. ``packages`` returns the npm packages
        of a snapshot, or None if its source has none. ``secrets`` is None if no values are needed. ``environment`` is the name
        of the manifest's environment to use.
        """
        self._environment = environment
        self._builder = builder
        self._secrets = secrets
        self._notices = notices
        self._packages = packages
        self._known: tuple[object, Manifest] | None = None

    async def __call__(
        self, snapshot: Snapshot, state: ReconcilerState, on_manifest: Callable[[], None] = lambda: None
    ) -> Desired:
        """Return the desired functions; raises `ManifestInvalid` when nothing can be planned.

        ``on_manifest`` is called when the manifest is read: whatever is wrong with single functions, something can be planned.
        """
        manifest = await self._manifest(snapshot, expected=state.manifest_present)
        on_manifest()
        # A lock file may have megabytes, and a parser that holds the event loop for them.
        packages = await asyncio.to_thread(self._packages, snapshot)
        built = await self._builder.build(
            manifest.entries, snapshot.files, packages, above=snapshot.above, elsewhere=manifest.elsewhere
        )
        given = GivenSecrets(built.functions) if self._secrets is None else self._secrets.give(built.functions)
        broken = tuple(
            UnusableFunction(slug, None, problems, moved_from=manifest.moved_from.get(slug))
            for slug, problems in manifest.broken.items()
        )
        return Desired(
            source=snapshot.source,
            revision=snapshot.revision,
            functions=given.functions,
            unusable=tuple(sorted((*built.unusable, *given.lacking, *broken), key=lambda function: function.slug)),
            notices=(
                *self._notices,
                *manifest.notices,
                *built.notices,
                *given.notices,
                *unlisted_files(snapshot, built.used | manifest.unusable_files),
            ),
            manifest_present=manifest.present,
            rollout=manifest.rollout,
            misnamed=manifest.misnamed,
            remote_ids=read_remote_map(snapshot.remote_map).ids,
            project_id=read_project_id(snapshot.project_file),
            self_contained=built.self_contained,
        )

    async def _manifest(self, snapshot: Snapshot, *, expected: bool) -> Manifest:
        """Return what the snapshot declares; raises `ManifestInvalid`."""
        declaring = (snapshot.unread, {path: _declaring(file) for path, file in snapshot.files.items()})
        # That one is expected matters only where there is none.
        if self._known is None or self._known[0] != declaring or (expected and not self._known[1].present):
            self._known = None
            # Not on the event loop: a manifest may have a thousand entries.
            reading = asyncio.to_thread(read_manifest, snapshot, expected=expected, environment=self._environment)
            self._known = declaring, await until_end(reading)
        return self._known[1]


def _declaring(file: SourceFile) -> bytes | str | None:
    """Return what a manifest's meaning depends on: of a file the digest of its content, of code only whether it can be read."""
    if file.content is None:
        return file.problem
    return b"" if file.path.endswith(CODE_SUFFIXES) else hashlib.sha256(file.content).digest()


SecretsDigest = Callable[[Mapping[str, Json]], str]
"""A function from all values of a function, by name, to their digest in its mark."""


def secrets_digest(api_key: Callable[[], str]) -> SecretsDigest:
    """Return the digest of secrets in marks: two hex digits for a key, and six of an HMAC with that key.

    The key is derived from the API key: whoever has that can deploy code that reads the secrets anyway. Digests of two keys say
    nothing of each other. No key has the digits ``00``.
    """

    def digest(values: Mapping[str, Json]) -> str:
        key = hashlib.sha256(b"kapso-sync: secrets in ownership marks\0" + api_key().encode()).digest()
        key_id = hashlib.sha256(key).digest()[0] % 255 + 1
        text = canonical_json(dict(values)).encode("utf-8", "surrogatepass")
        return f"{key_id:02x}{hmac.new(key, text, hashlib.sha256).hexdigest()[:6]}"

    return digest


Digest = Callable[[str, Json], str]
"""A function from a secret's name and value to a digest that needs the key to compute."""


class Reader(Protocol):
    """Reads the values of secrets."""

    def read(self, source: GivenSecret) -> Json:
        """Return the value: text, or a JSON object or list; raises `SecretMissing`."""
        ...


def keyed_digest(key: bytes) -> Digest:
    """Return the digest function of ``key``.

    Each digest begins with an id of the key, so a digest made with another key is recognised.
    """
    name_of_key = hashlib.sha256(b"name of the key\0" + key).hexdigest()[:8]

    def digest(name: str, value: Json) -> str:
        # A name contains no `=`. The prefix keeps a JSON value apart from a text with the same characters.
        spelled = value if isinstance(value, str) else f"json:{canonical_json(value)}"
        text = f"{name}={spelled}".encode("utf-8", "surrogatepass")
        return f"{name_of_key}:{hmac.new(key, text, hashlib.sha256).hexdigest()}"

    return digest


@dataclass(frozen=True, slots=True)
class SecretValues:
    """Reads secret values and computes their digests; ``together`` is the one of all values of a function.

    If ``required`` is True, a function without one of its values fails. If it is False, as in a plan, the missing value is
    noted and the function is planned without it.
    """

    reader: Reader
    digest: Digest = field(repr=False)
    required: bool = True
    together: SecretsDigest | None = field(default=None, repr=False)

    def give(self, functions: Iterable[DesiredFunction]) -> GivenSecrets:
        """Return the functions with their values, the functions that lack a value, and notices."""
        good, bad, notices = [], [], []
        for function in functions:
            if not function.entry.secrets:
                good.append(function)
                continue
            values, problems = self._values(function)
            if problems and self.required:
                entry = function.entry
                bad.append(UnusableFunction(entry.slug, entry.file, problems, moved_from=entry.moved_from))
                continue
            said = "; `sync` will refuse the function"
            notices += [Notice("missing-secret", f"{problem.message}{said}", problem.location) for problem in problems]
            plain = {name: secret.value for name, secret in values.items()}
            digest = self.together(plain) if plain and not problems and self.together is not None else None
            good.append(replace(function, secrets=values, secrets_digest=digest))
        return GivenSecrets(tuple(good), tuple(bad), tuple(notices))

    def _values(self, function: DesiredFunction) -> tuple[dict[str, SecretValue], tuple[Problem, ...]]:
        entry = function.entry
        values, problems = {}, []
        for name, source in entry.secrets.items() if entry.deploy else ():
            if isinstance(source, KeepSecret):
                continue
            try:
                value = self.reader.read(source)
            except SecretMissing as missing:
                text = f"functions.{entry.slug}.secrets.{name} {missing.message}"
                problems.append(Problem("missing-secret", text, entry.secret_locations.get(name, entry.location), missing.hint))
            else:
                values[name] = SecretValue(value, self.digest(name, value))
        return values, tuple(problems)


@dataclass(frozen=True, slots=True)
class GivenSecrets:
    """Functions with their secret values, functions that lack a value, and notices about missing values."""

    functions: tuple[DesiredFunction, ...]
    lacking: tuple[UnusableFunction, ...] = ()
    notices: tuple[Notice, ...] = ()
