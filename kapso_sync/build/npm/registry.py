"""Download tarballs from one npm registry: no other host is asked, whatever a lock file or a redirect says."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import httpx

from kapso_sync.build.npm.cache import TarballCache
from kapso_sync.build.npm.lock import LockedPackage
from kapso_sync.build.packages import Refusal
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.http_client import failure_reason
from kapso_sync.model.clock import Clock
from kapso_sync.retry import Backoff
from kapso_sync.urls import CarriesPassword, is_loopback, split_http_url, without_query

VARIABLE = "KAPSO_SYNC_NPM_REGISTRY"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429})

RETRY_BACKOFF = Backoff(initial=0.5, maximum=5.0)


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """Limits of downloads; times are in seconds.

    ``deadline`` is for one tarball, its attempts and redirects included, ``patience`` for all that one pass needs. What was
    loaded wrong is not loaded again for ``distrust``: the registry has to change, not the network.
    """

    max_bytes: int = 64 * 1024 * 1024
    deadline: float = 60.0
    patience: float = 300.0
    attempts: int = 3
    backoff: Backoff = RETRY_BACKOFF
    redirects: int = 3
    concurrency: int = 8
    distrust: float = 3600.0


def parse_registry_url(text: str, *, allow_http: bool = False) -> str:
    """Return the registry's URL without a slash at its end; raises `ConfigError` like `kapso_sync.api.parse_base_url`."""
    try:
        parts = split_http_url(text)
    except CarriesPassword as error:
        raise ConfigError(
            f"{VARIABLE} carries a user name or password", hint="name a registry, or a mirror, that can be read without"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{VARIABLE} {without_query(text)!r}: {error}", hint="an example: https://registry.npmjs.org"
        ) from error
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{VARIABLE} {text} is not encrypted", hint="use https://, or set KAPSO_SYNC_ALLOW_HTTP=1 if you must"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


class _Failed(Exception):
    """A download failed. ``transient``: it may work now; ``silent``: the registry did not answer at all."""

    def __init__(self, refusal: Refusal, *, transient: bool = False, silent: bool = False, lasting: bool = False) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal
        self.transient = transient
        self.silent = silent
        self.lasting = lasting


class Registry:
    """The registry at ``url``, a result of `parse_registry_url`; ``new_client`` must not follow redirects."""

    def __init__(
        self,
        url: str,
        new_client: Callable[[], httpx.AsyncClient],
        clock: Clock,
        limits: RegistryLimits = RegistryLimits(),
    ) -> None:
        self.url = url
        # Some registries have a token in their path.
        self._host = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self._new_client = new_client
        self._clock = clock
        self._limits = limits
        self._distrusted: dict[tuple[str, tuple[str, ...]], tuple[float, Refusal]] = {}

    async def fetch(self, packages: Sequence[LockedPackage], cache: TarballCache) -> dict[str, Refusal]:
        """Download packages into the cache, and return why others could not be had, by location."""
        refused: dict[str, Refusal] = {}
        async with self._session() as session:
            try:
                async with asyncio.timeout(self._limits.patience), asyncio.TaskGroup() as group:
                    for package in packages:
                        group.create_task(self._obtain(session, package, cache, refused))
            except TimeoutError:
                late = Refusal(
                    f"{self._host} did not send all packages within {self._limits.patience:g} s",
                    "the next pass goes on with it",
                )
                refused |= {
                    package.location: late
                    for package in packages
                    if package.location not in refused and package.location not in session.done
                }
        return refused

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        async with self._new_client() as client:
            yield _Session(client, asyncio.Semaphore(self._limits.concurrency), set())

    async def _obtain(
        self, session: _Session, package: LockedPackage, cache: TarballCache, refused: dict[str, Refusal]
    ) -> None:
        async with session.slots:
            refusal = self._known_refusal(package) or session.silence
            if refusal is None:
                try:
                    await self._download(session.client, package, cache)
                except _Failed as failed:
                    refusal = failed.refusal
                    if failed.silent:
                        session.silence = refusal
                    if failed.lasting:
                        self._distrusted[package.download] = (self._clock.monotonic() + self._limits.distrust, refusal)
            if refusal is None:
                session.done.add(package.location)
            else:
                refused[package.location] = refusal

    def _known_refusal(self, package: LockedPackage) -> Refusal | None:
        until, refusal = self._distrusted.get(package.download, (0.0, None))
        return refusal if refusal is not None and self._clock.monotonic() < until else None

    async def _download(self, client: httpx.AsyncClient, package: LockedPackage, cache: TarballCache) -> None:
        """Download a tarball; raises `_Failed`."""
        try:
            async with asyncio.timeout(self._limits.deadline):
                for attempt in range(1, self._limits.attempts + 1):
                    try:
                        await self._attempt(client, package, cache)
                    except _Failed as failed:
                        if not failed.transient or attempt == self._limits.attempts:
                            raise
                    else:
                        return
                    await self._clock.sleep(self._limits.backoff.delay(attempt))
        except TimeoutError as error:
            text = f"{self._host} did not send {package.shown} within {self._limits.deadline:g} s"
            raise _Failed(Refusal(text, _NEXT_PASS)) from error

    async def _attempt(self, client: httpx.AsyncClient, package: LockedPackage, cache: TarballCache) -> None:
        try:
            with cache.new() as file:
                digest = await self._load(client, package, file)
                if digest not in package.digests:
                    text = f"what {self._host} sends as {package.shown} is not what the lock file pins: its sha512 is another"
                    hint = "somebody changed the package or the lock file: compare both before you write the lock file anew"
                    raise _Failed(Refusal(text, hint), lasting=True)
                await asyncio.to_thread(cache.keep, file, digest)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            slow = isinstance(error, httpx.ConnectTimeout)
            silent = slow or isinstance(error, httpx.ConnectError)
            text = f"{package.shown} cannot be fetched from {self._host}: {failure_reason(error)}"
            raise _Failed(Refusal(text, _NEXT_PASS), transient=not slow, silent=silent) from error
        except OSError as error:
            text = f"{package.shown} cannot be kept in the state folder: {error.strerror or error}"
            raise _Failed(Refusal(text, "is its disk full?")) from error

    async def _load(self, client: httpx.AsyncClient, package: LockedPackage, file: BinaryIO) -> str:
        """Write a tarball to a file, and return its sha512 in hex; raises `_Failed` and httpx's own errors."""
        url = f"{self.url}/{package.tarball}"
        headers = {"Accept": "application/octet-stream, */*;q=0.5", "Accept-Encoding": "identity"}
        for _ in range(self._limits.redirects + 1):
            async with client.stream("GET", url, headers=headers) as answer:
                if answer.status_code in _REDIRECTS:
                    url = self._same_host(package, url, answer.headers.get("location", ""))
                    continue
                if answer.status_code != httpx.codes.OK:
                    raise self._refused(package, answer.status_code)
                digest, size = hashlib.sha512(), 0
                async for chunk in answer.aiter_raw():
                    size += len(chunk)
                    if size > self._limits.max_bytes:
                        most = self._limits.max_bytes // (1024 * 1024)
                        text = f"{package.shown} has more than {most} MiB, and no larger package is fetched"
                        raise _Failed(Refusal(text, "import something smaller, or sync from a checkout"), lasting=True)
                    digest.update(chunk)
                    file.write(chunk)
                return digest.hexdigest()
        raise _Failed(Refusal(f"{self._host} redirects {package.shown} again and again", _NEXT_PASS))

    def _same_host(self, package: LockedPackage, url: str, location: str) -> str:
        """Return where a redirect leads; raises `_Failed` if that is another host, port or scheme."""
        try:
            target = urljoin(url, location)
            same = bool(location) and urlsplit(target)[:2] == urlsplit(url)[:2]
        except ValueError:
            target, same = "", False
        if not same:
            text = f"{self._host} redirects {package.shown} to another host, and no other host is asked"
            hint = f"set {VARIABLE} to a registry that sends packages itself"
            raise _Failed(Refusal(text, hint))
        return target

    def _refused(self, package: LockedPackage, status: int) -> _Failed:
        text = f"{self._host} answers {status} for {package.shown} at /{package.tarball}"
        if status in (401, 403):
            return _Failed(Refusal(text, "kapso-sync sends no token: the registry must let it read packages without"))
        if status == httpx.codes.NOT_FOUND:
            hint = f"does the registry of {VARIABLE} have this version? Only packages of a registry can be fetched"
            return _Failed(Refusal(text, hint))
        return _Failed(Refusal(text, _NEXT_PASS), transient=status in _TRANSIENT or status >= 500)


_NEXT_PASS = f"is {VARIABLE} right, and the registry up? The next pass tries again"


@dataclass(slots=True)
class _Session:
    """The downloads of one pass; ``silence`` is set once the registry cannot be reached at all."""

    client: httpx.AsyncClient
    slots: asyncio.Semaphore
    done: set[str]
    silence: Refusal | None = None
