"""Applies an environment to a manifest: it selects functions and overrides their keys.

An environment overrides the whole manifest: its ``defaults`` the manifest's, its functions' keys theirs. A mapping or list
replaces the other as a whole, except for ``secrets``, which are merged by name.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Problem
from kapso_sync.manifest.document import Document, Path
from kapso_sync.manifest.schema import EntryModel, EnvironmentModel, ManifestModel, SecretModel, SharedModel

_Model = TypeVar("_Model", bound=SharedModel)
Secrets = Mapping[str, SecretModel]


@dataclass(frozen=True, slots=True)
class Declared:
    """The manifest for one environment (or for none), with the positions of the keys in effect.

    ``left_out`` are slugs that this environment does not have.
    """

    document: Document
    model: ManifestModel
    left_out: frozenset[str] = frozenset()

    @property
    def entries(self) -> Mapping[str, EntryModel | None]:
        """The manifest's entries by slug."""
        return self.model.functions or {}


def declared(document: Document, model: ManifestModel, name: str | None) -> Declared:
    """Return the manifest for this environment, which must exist; None is the manifest without any."""
    plain = replace(document, problems=[])
    if name is None or not model.environments:
        return Declared(plain, model)
    given = model.environments[name]
    defaults = model.defaults if given.defaults is None else _above(model.defaults, given.defaults)
    entries: dict[str, EntryModel | None] = dict(model.functions or {})
    left_out = set()
    for slug, entry in (given.functions or {}).items():
        if not entry:
            left_out.add(slug)
            entries.pop(slug, None)
        else:
            entries[slug] = _above(entries.get(slug), entry, defaults.secrets if defaults is not None else None)
    above = ManifestModel(version=model.version, defaults=defaults, functions=entries)
    return Declared(
        replace(
            plain,
            places=ChainMap(_moved(plain.places, name), plain.places),
            key_places=ChainMap(_moved(plain.key_places, name), plain.key_places),
        ),
        above,
        frozenset(left_out),
    )


def _above(below: _Model | None, above: _Model, inherited: Secrets | None = None) -> _Model:
    """Return the merge of two models: a key of ``above`` wins, and secrets are merged by name.

    ``inherited`` are the secrets in effect below if ``below`` names none.
    """
    values = {} if below is None else below.given()
    secrets = values.get("secrets", inherited)
    values |= above.given()
    if secrets is not None and above.secrets is not None:
        values["secrets"] = {**secrets, **above.secrets}
    return msgspec.structs.replace(above, **values)


def _moved(places: Mapping[Path, tuple[int, int]], name: str) -> dict[Path, tuple[int, int]]:
    """Return the positions of an environment's keys as positions of the manifest's keys; overridden parts keep their own."""
    top: Path = ("environments", name)
    own = {path[2:]: place for path, place in places.items() if path[:2] == top and len(path) > 2}
    return {path: place for path, place in own.items() if len(path) > 2 or path not in places}


def environment_problems(document: Document, model: ManifestModel, folders: Collection[str]) -> list[Problem]:
    """Return the problems of the environments themselves, such as a left-out function that does not exist."""
    known = {*(model.functions or {}), *folders}
    return [
        document.problem(
            "unknown-function",
            f"environments.{name}.functions.{slug}: there is no such function to leave out",
            document.location(("environments", name, "functions", slug), key=True),
            "correct the name, or remove the line",
        )
        for name, environment in (model.environments or {}).items()
        for slug, entry in (environment.functions or {}).items()
        if not entry and slug not in known
    ]


def unknown_environment(document: Document, environments: Mapping[str, EnvironmentModel], name: str) -> Problem:
    """Return the error for an unknown environment, with the names of the known ones."""
    known = ", ".join(environments) or "none"
    return document.problem(
        "unknown-environment",
        f"there is no environment `{name}`; known: {known}",
        document.location(("environments",), key=True),
        "--env (KAPSO_SYNC_ENV) names one of them; without it, the manifest holds as it stands",
    )
