"""Builds what git wants from a snapshot: reads the manifest, checks and builds each entry's code, reads its secrets."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from kapso_sync.build import Builder, Packages
from kapso_sync.errors import Problem
from kapso_sync.manifest import Parsed, read_manifest, unlisted_files
from kapso_sync.manifest.remote_map import read_project_id, read_remote_map
from kapso_sync.model.desired import Desired, DesiredFunction, GivenSecret, KeepSecret, Notice, SecretValue, UnusableFunction
from kapso_sync.model.functions import Json, canonical_json
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import ReconcilerState
from kapso_sync.sources import SecretMissing


class DesiredBuilder:
    """Builds what git wants; keeps what it learned of unchanged files for the next time."""

    def __init__(
        self,
        builder: Builder,
        notices: tuple[Notice, ...] = (),
        packages: Callable[[Snapshot], Packages | None] = lambda _snapshot: None,
        secrets: SecretValues | None = None,
        environment: str | None = None,
    ) -> None:
        """``notices`` are warnings about something else, which everyone who reads a plan should see as well.

        ``packages`` returns where a snapshot's npm packages are, or None where its source has none. Without ``secrets`` nobody
        needs their values. ``environment`` names the one of the manifest's that counts.
        """
        self._environment = environment
        self._builder = builder
        self._secrets = secrets
        self._notices = notices
        self._packages = packages
        self._parsed: Parsed = {}

    async def __call__(self, snapshot: Snapshot, state: ReconcilerState) -> Desired:
        """Return what git wants; raises `ManifestInvalid` when nothing can be planned from it."""
        manifest = read_manifest(snapshot, expected=state.manifest_present, known=self._parsed, environment=self._environment)
        built = await self._builder.build(
            manifest.entries, snapshot.files, self._packages(snapshot), elsewhere=manifest.elsewhere
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
                *unlisted_files(snapshot, built.used),
            ),
            manifest_present=manifest.present,
            rollout=manifest.rollout,
            remote_ids=read_remote_map(snapshot.remote_map).ids,
            project_id=read_project_id(snapshot.project_file),
        )


Digest = Callable[[str, Json], str]
"""From a secret's name and value to a digest that only the holder of the key can make."""


class Reader(Protocol):
    """Where values come from."""

    def read(self, source: GivenSecret) -> Json:
        """Return the value: text, or a JSON object or list; raises `SecretMissing`."""
        ...


def keyed_digest(key: bytes) -> Digest:
    """Return the digest of this key; it begins with the key's name, so that digests of another key are known as such."""
    name_of_key = hashlib.sha256(b"name of the key\0" + key).hexdigest()[:8]

    def digest(name: str, value: Json) -> str:
        # No name has a `=`, and a text is told from the JSON that spells it.
        spelled = value if isinstance(value, str) else f"json:{canonical_json(value)}"
        text = f"{name}={spelled}".encode("utf-8", "surrogatepass")
        return f"{name_of_key}:{hmac.new(key, text, hashlib.sha256).hexdigest()}"

    return digest


@dataclass(frozen=True, slots=True)
class SecretValues:
    """Reads values and makes their digests.

    ``required``: a function that lacks a value fails; otherwise, as in a plan, that is only noted, and the function goes
    without it.
    """

    reader: Reader
    digest: Digest = field(repr=False)
    required: bool = True

    def give(self, functions: Iterable[DesiredFunction]) -> GivenSecrets:
        """Return the functions with their values, those that lack one, and what there is to note."""
        good, bad, notices = [], [], []
        for function in functions:
            values, problems = self._values(function)
            if problems and self.required:
                entry = function.entry
                bad.append(UnusableFunction(entry.slug, entry.file, problems, moved_from=entry.moved_from))
                continue
            notices += [
                Notice("missing-secret", f"{problem.message}; `sync` will need it", problem.location) for problem in problems
            ]
            good.append(replace(function, secrets=values))
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
                problems.append(Problem("missing-secret", text, entry.location, missing.hint))
            else:
                values[name] = SecretValue(value, self.digest(name, value))
        return values, tuple(problems)


@dataclass(frozen=True, slots=True)
class GivenSecrets:
    """Functions with the values of their secrets, those that lack one, and what a plan notes of missing values."""

    functions: tuple[DesiredFunction, ...]
    lacking: tuple[UnusableFunction, ...] = ()
    notices: tuple[Notice, ...] = ()
