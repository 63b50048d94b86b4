"""Builds the npm packages of a git source; imported only if the settings name a registry, or did so once."""

from __future__ import annotations

from pathlib import Path

import httpx

import kapso_sync
from kapso_sync.build.npm import NpmPackages, Registry, RegistryLimits, TarballCache, parse_registry_url
from kapso_sync.build.packages import TARBALLS
from kapso_sync.clock import SystemClock
from kapso_sync.http_client import open_client
from kapso_sync.network import Network
from kapso_sync.settings import Settings
from kapso_sync.sources.spec import SourceKind, SourceSpec

REGISTRY_CONNECT_TIMEOUT = 10.0
"""Most seconds that a connection to the npm registry may take; one that takes longer holds a whole pass."""

TARBALL_TIMEOUT_FACTOR = 4
"""Factor by which the download of a package may take longer than an API request."""


def make_npm_packages(
    settings: Settings, network: Network, spec: SourceSpec, folder: Path, reader: Path | None, *, online: bool = True
) -> NpmPackages | None:
    """Return the npm packages of a git source; None for a folder, and where the settings name no registry.

    What is fetched is kept in the state folder ``folder``; a process that only reads keeps it in its own, ``reader``. Without
    ``online`` nothing is fetched. Raises `ConfigError` for a URL that no registry has.
    """
    tarballs = TarballCache(folder / TARBALLS) if reader is None else TarballCache(reader / TARBALLS, folder / TARBALLS)
    if reader is None:
        tarballs.drop_old(SystemClock().now())
    if settings.npm_registry is None:
        return None
    url = parse_registry_url(settings.npm_registry, allow_http=settings.allow_http)
    if spec.kind is SourceKind.FOLDER:
        return None

    timeout = httpx.Timeout(settings.request_timeout, connect=min(settings.request_timeout, REGISTRY_CONNECT_TIMEOUT))

    def new_client() -> httpx.AsyncClient:
        client = open_client(network, timeout=timeout, limits=httpx.Limits(), secure=url.startswith("https:"))
        client.headers["User-Agent"] = settings.user_agent or f"kapso-sync/{kapso_sync.__version__}"
        return client

    limits = RegistryLimits(deadline=settings.request_timeout * TARBALL_TIMEOUT_FACTOR)
    return NpmPackages(Registry(url, new_client, SystemClock(), limits), tarballs, online=online)
