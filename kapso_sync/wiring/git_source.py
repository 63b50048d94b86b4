"""Builds the reader of a git repository, and finds its owner; imported only if the source is one."""

from __future__ import annotations

import os
from pathlib import Path

from kapso_sync.model import events
from kapso_sync.network import Network
from kapso_sync.settings import Settings
from kapso_sync.sources.command import MIRROR, Git, GitCredentials
from kapso_sync.sources.git import GitSource
from kapso_sync.sources.identity import (
    find_origin,
    find_work_tree,
    origin_identity,
    owners_of_repository,
    remote_identity,
    with_environment,
)
from kapso_sync.sources.resolved import ResolvedSource
from kapso_sync.sources.signatures import SignatureVerifier
from kapso_sync.sources.spec import SourceSpec
from kapso_sync.store.database import read_owners


async def resolve_repository(
    settings: Settings, spec: SourceSpec, folder: Path, home: Path, network: Network, emit: events.Listener
) -> ResolvedSource:
    """Return the reader of a repository, its owner and its state folder; ``home`` is the folder of the mirror."""
    credentials = GitCredentials(
        settings.git_password, settings.git_username, settings.git_ssh_key_file, settings.git_known_hosts_file
    )
    git = Git(
        protocol=spec.protocol,
        location=spec.location,
        home=home,
        credentials=credentials,
        deadline=settings.git_timeout,
        network=network,
    )
    verifier = make_verifier(settings, home)
    if verifier is not None:
        verifier.check()
    source = GitSource(spec, home / MIRROR, git, emit, verifier)
    if settings.owner:
        return ResolvedSource(spec, source, with_environment(settings.owner, settings.env), folder)
    owners = owners_of_repository(await _repository_identity(spec, source), branch=spec.branch, env=settings.env)
    owner = owners.known(read_owners(folder))
    if owner is None:
        default = spec.branch is None or spec.branch == await _default_branch(spec, source)
        owner = owners.plain if default else owners.of_branch
    # Only who follows this branch ever wrote the owner of the branch; the plain one may be that of another branch's functions.
    others = frozenset({owners.of_branch} - {owner}) if owner == owners.plain else frozenset[str]()
    return ResolvedSource(spec, source, owner, folder, other_owners=others)


async def _repository_identity(spec: SourceSpec, source: GitSource) -> str:
    """Return the name of a repository and the functions folder in it; a work tree on this machine has that of its origin."""
    path = await source.home()
    tree = find_work_tree(Path(spec.location)) if Path(spec.location).is_absolute() else None
    origin = await find_origin(tree) if tree is not None and tree.root == Path(spec.location) else None
    if tree is None or origin is None:
        return remote_identity(spec.location, path)
    return origin_identity(tree, origin, path)


async def _default_branch(spec: SourceSpec, source: GitSource) -> str | None:
    """Return the default branch of the remote; what is checked out in a work tree here is not it."""
    tree = find_work_tree(Path(spec.location)) if Path(spec.location).is_absolute() else None
    cloned = tree.default_branch if tree is not None and tree.root == Path(spec.location) else None
    return cloned or await source.default_branch()


def make_verifier(settings: Settings, home: Path) -> SignatureVerifier | None:
    """Return what judges the source's signatures, in the folder ``home``; None if the settings want none."""
    if settings.verify_file is None:
        return None
    return SignatureVerifier(settings.verify_file.absolute(), home / "verify", path=os.environ.get("PATH", os.defpath))
