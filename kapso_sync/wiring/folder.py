"""Finds where a source and its state folder are, and builds the reader of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kapso_sync.api.base_url import parse_base_url
from kapso_sync.errors import ConfigError, Notice
from kapso_sync.model import events
from kapso_sync.permissions import describe_owner
from kapso_sync.settings import Settings
from kapso_sync.sources.folder import FolderSource
from kapso_sync.sources.identity import find_origin, find_work_tree, owner_of_folder, state_folder_name
from kapso_sync.sources.resolved import ResolvedSource
from kapso_sync.sources.spec import SourceKind, SourceSpec, parse_source
from kapso_sync.store.folder import require_private, who_may_write_root

STATE_ROOT_WRITABLE = (
    "the folder of the state folders {root} is not this user's alone: {who}. Whoever may write it can have the state replaced; "
    "set KAPSO_SYNC_STATE_DIR to a folder that this user alone may write"
)


def source_spec(settings: Settings) -> SourceSpec:
    """Return the parsed source of the settings; raises like `parse_source`, and `StateExposed` like `state_folder`."""
    where = settings.source or "."
    spec = parse_source(where, branch=settings.branch, ref=settings.ref, path=settings.path, cwd=Path.cwd())
    if spec.given is None:
        return spec
    itself = replace(spec, location=spec.given, given=None)
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    from kapso_sync.store.database import read_state  # noqa: PLC0415 - few sources need it

    before = read_state(state_folder(settings, base_url, itself))
    # A manifest that vanished from it is an error, and no reason to read another one.
    return itself if before.manifest_present or before.owned else spec


def find_state_folder(settings: Settings) -> Path:
    """Return the state folder of the settings' source and API base, without reading the source."""
    return state_folder(settings, parse_base_url(settings.api_base_url, allow_http=settings.allow_http), source_spec(settings))


def state_folder(settings: Settings, base_url: str, spec: SourceSpec) -> Path:
    """Return the state folder of a source and an API base; raises `StateExposed` if others may have written it."""
    parts = {"base": base_url, "source": spec.location, "path": spec.path, "env": settings.env, "branch": spec.branch}
    folder = state_root(settings) / state_folder_name(parts)
    require_private(folder)
    return folder


def state_root(settings: Settings) -> Path:
    """Return the folder that holds the state folders, absolute; raises `ConfigError` if there is none, or it is closed."""
    if settings.state_dir is not None:
        return _readable(settings.state_dir.absolute())  # git runs in another folder than this process
    import platformdirs  # noqa: PLC0415 - not needed where KAPSO_SYNC_STATE_DIR is set

    try:
        return _readable(platformdirs.user_state_path("kapso-sync"))
    except RuntimeError as error:
        raise ConfigError(
            f"the user {os.getuid()} has no home folder, so there is no place for the state",
            hint="set KAPSO_SYNC_STATE_DIR to a folder that this user may write, or HOME",
        ) from error


def _readable(root: Path) -> Path:
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise ConfigError(
            f"the state folder {root} cannot be read: {describe_owner(root)}",
            hint="run as its owner, or set KAPSO_SYNC_STATE_DIR to a folder that this user may write",
        )
    return root


def root_notices(root: Path) -> tuple[Notice, ...]:
    """Return a warning if others may put folders of theirs in place of the state folders."""
    who = who_may_write_root(root)
    return () if who is None else (Notice("state-root-writable", STATE_ROOT_WRITABLE.format(root=root, who=who)),)


def refuse_unverifiable(settings: Settings, spec: SourceSpec) -> None:
    """Raise `ConfigError` if signatures are wanted of a folder: it has none, and to read it all the same would deceive."""
    if settings.verify_file is None or spec.kind is not SourceKind.FOLDER:
        return
    raise ConfigError(
        f"KAPSO_SYNC_VERIFY_FILE is set, and nobody can sign the folder {spec.location}: its files need not be those of a "
        "commit, also where it is a work tree, or git-sync published it",
        hint="to deploy, name the repository by its URL: kapso-sync then fetches the commit and verifies it; "
        "leave KAPSO_SYNC_VERIFY_FILE unset for a folder that you work in",
    )


async def resolve_folder(settings: Settings, spec: SourceSpec, folder: Path, emit: events.Listener) -> ResolvedSource:
    """Return the reader of a folder and its owner; ``folder`` is its state folder. Raises `ConfigError`."""
    root = Path(spec.location)
    tree = find_work_tree(root)
    describe: Callable[[], str | None] = lambda: found.head if (found := find_work_tree(root)) else None  # noqa: E731
    source = FolderSource(root, spec.path, top=tree.root if tree else None, emit=emit, describe=describe)
    origin = await find_origin(tree) if tree is not None and not settings.owner else None
    owner, stable = owner_of_folder(root, tree, origin, source.home, named=settings.owner, env=settings.env)
    return ResolvedSource(spec, source, owner, folder, owner_is_stable=stable, home=source.home)
