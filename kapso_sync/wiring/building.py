"""Builds the objects that turn a source's files into functions."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import kapso_sync
from kapso_sync.build import Builder, Bundler, Esbuild, FolderPackages, PackageCopies, PackageSource, Target
from kapso_sync.build.packages import TARBALLS
from kapso_sync.errors import Notice
from kapso_sync.model.builds import BuildStore
from kapso_sync.model.source import DEFAULT_FOLDER, Snapshot
from kapso_sync.network import Network
from kapso_sync.reconcile.desired import DesiredBuilder, SecretValues, keyed_digest, secrets_digest
from kapso_sync.settings import Settings
from kapso_sync.sources.identity import find_work_tree
from kapso_sync.sources.secrets import SecretReader
from kapso_sync.sources.spec import SourceKind, SourceSpec
from kapso_sync.store.secretkey import LENGTH
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.tools import ToolPlaces, own_copies

FindPackages = Callable[[Snapshot], PackageSource | None]
"""Returns the npm packages of a snapshot, or None if its source has none."""


def make_desired_builder(
    settings: Settings,
    spec: SourceSpec,
    store: BuildStore,
    secret_values: SecretValues | None = None,
    notices: tuple[Notice, ...] = (),
    npm_packages: FindPackages | None = None,
) -> DesiredBuilder:
    """Return the builder of desired functions; builds are cached in ``store``, and ``notices`` shown in each plan.

    Without ``secret_values`` functions have no values of secrets. ``npm_packages`` are those of a git source, if it has any.
    """
    home = folder_of(spec)
    esbuild = Esbuild(tool_places(settings.esbuild, home))
    builder = Builder(Target(settings.contract), Bundler(esbuild), store)
    copies = PackageCopies()
    packages: FindPackages = npm_packages or (lambda snapshot: find_packages(spec, snapshot, copies))
    return DesiredBuilder(builder, (*settings.notices, *notices, *_source_notices(spec)), packages, secret_values, settings.env)


def _source_notices(spec: SourceSpec) -> tuple[Notice, ...]:
    if spec.given is None:
        return ()
    return (Notice("functions-folder", f"{spec.given} declares no function, so its folder {DEFAULT_FOLDER} is the source"),)


def find_npm_packages(
    settings: Settings, network: Network, spec: SourceSpec, folder: Path, reader: Path | None, *, online: bool = True
) -> FindPackages | None:
    """Return the npm packages of a git source, as `make_npm_packages` does."""
    if settings.npm_registry is None and not (folder / TARBALLS).is_dir():
        return None
    from kapso_sync.wiring.npm import make_npm_packages  # noqa: PLC0415 - few sources need it

    return make_npm_packages(settings, network, spec, folder, reader, online=online)


def make_secret_values(
    settings: Settings, redactor: Redactor, key: bytes | None, state: Path | None = None, *, required: bool = True
) -> SecretValues:
    """Return the reader of secret values; ``redactor`` learns each of them.

    Without ``key``, the state folder's, there is nothing to compare digests with. ``state`` is as in `make_secret_reader`.
    ``required``: a function that lacks a value fails.
    """
    reader = make_secret_reader(settings, redactor, state)
    digest = keyed_digest(key or secrets.token_bytes(LENGTH))
    return SecretValues(reader, digest, required, secrets_digest(settings.key) if settings.has_key else None)


def make_secret_reader(settings: Settings, redactor: Redactor, state: Path | None = None) -> SecretReader:
    """Return the reader of single values, each of which ``redactor`` learns; none is read from below ``state``, our folder."""
    return SecretReader(
        environment=settings.environment,
        env_file=settings.env_file_variables,
        allowed=tuple(pattern.strip() for pattern in (settings.secret_env or "").split(",") if pattern.strip()),
        folder=settings.secrets_dir,
        ours=(*settings.credential_files, *([state] if state is not None else [])),
        on_value=redactor.add,
    )


def tool_places(named: Path | None, source: Path | None) -> ToolPlaces:
    """Return the places to search for esbuild; ``source`` is the functions folder, or None for a git source."""
    foreign = []
    if source is not None:
        tree = find_work_tree(source)
        for root in (source, *([tree.root] if tree is not None else [])):
            foreign += [root.absolute(), Path(os.path.realpath(root))]
    own = own_copies(Path(kapso_sync.__file__).parent, Path(sys.prefix))
    return ToolPlaces(named, own, os.environ.get("PATH", os.defpath).split(os.pathsep), foreign)


def folder_of(spec: SourceSpec) -> Path | None:
    """Return the folder of a source, or None for a git source."""
    return Path(spec.location) if spec.kind is SourceKind.FOLDER else None


def find_packages(spec: SourceSpec, snapshot: Snapshot, copies: PackageCopies | None = None) -> FolderPackages | None:
    """Return where a snapshot's npm packages are, up to the root of its work tree; None for a git source."""
    folder = folder_of(spec)
    if folder is None:
        return None
    home = Path(os.path.realpath(folder / snapshot.path))
    tree = find_work_tree(folder)
    roots = [Path(os.path.realpath(root)) for root in ([tree.root, folder] if tree is not None else [folder])]
    return FolderPackages(home, next((root for root in roots if home.is_relative_to(root)), home), copies=copies)
