"""Answers of the services besides Kapso, as raw HTTP: forges, the npm registry, the Lease API, and destinations of messages."""

from __future__ import annotations

import asyncio
import hashlib
import json
import warnings
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from kapso_sync.build.npm import RegistryLimits, TarballCache
from kapso_sync.build.npm.lock import LockedPackage
from kapso_sync.build.npm.registry import Registry
from kapso_sync.daemon.lease import Lease
from kapso_sync.daemon.lease_api import KubeAccess, KubeLeaseApi
from kapso_sync.errors import LeaseError
from kapso_sync.notifications.apprise_process import send_with_apprise
from kapso_sync.notifications.commit_status import CommitState, CommitStatus
from kapso_sync.notifications.commit_status_client import CommitStatusClient
from kapso_sync.notifications.forges import Forge, Repository
from tests.clock import VirtualClock
from tests.fuzz.answering import HEADERS, answering, make_answers
from tests.fuzz.grammar import Draw, dumps
from tests.fuzz.kit import print_error, workspace
from tests.fuzz.promises import BrokenPromise, check_printed
from tests.fuzz.target import Target
from tests.fuzz.targets.lease import make as make_lease

TOKEN = "token-0123456789"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
COMMIT = "a" * 40
CONTENT = b"the bytes of a tarball\n"
PACKAGE = LockedPackage("node_modules/zod", "zod", "1.0.0", "zod/-/zod-1.0.0.tgz", (hashlib.sha512(CONTENT).hexdigest(),))


def _check_said(text: str) -> None:
    check_printed(text, own="")
    if TOKEN in text or "\n" in text or len(text) > 1000:
        raise BrokenPromise(f"says the token, several lines, or no end of text: {text[:400]!r}")


def run_forge(data: bytes) -> None:
    """Set a status at each forge: one request, and a result with a sentence, whatever is answered."""

    async def post(forge: Forge) -> None:
        async with answering(data) as server:
            client = CommitStatusClient(Repository(forge, server.url, "acme/flows"), "kapso-sync", lambda: TOKEN, deadline=5.0)
            result = await client.post(CommitStatus(COMMIT, CommitState.SUCCESS, "in sync"))
            _check_said(f"{result.error} {result.hint}")
            server.check(rf"/(?:repos/acme/flows|projects/acme%2Fflows)/statuses/{COMMIT}")
            if len(server.asked) != 1:
                raise BrokenPromise(f"asks {len(server.asked)} times")

    for forge in Forge:
        asyncio.run(post(forge))


def run_registry(data: bytes) -> None:
    """Fetch a package: what is pinned is kept, or the refusal says why; no other host is asked, and nothing else is left."""

    async def fetch(folder: Path) -> None:
        async with answering(data) as server:
            limits = RegistryLimits(max_bytes=1 << 16, deadline=5.0)
            registry = Registry(
                f"{server.url}/npm", lambda: httpx.AsyncClient(timeout=20, trust_env=False), VirtualClock(), limits
            )
            cache = TarballCache(folder)
            refused = await registry.fetch([PACKAGE], cache)
            for refusal in refused.values():
                _check_said(f"{refusal.reason} {refusal.hint}".replace(server.url, ""))
            names = [path.name for path in folder.iterdir()]
            if names != ([] if refused else [f"{PACKAGE.digests[0]}.tgz"]):
                raise BrokenPromise(f"keeps {names}")
            for file in folder.iterdir():
                if file.read_bytes() != CONTENT:
                    raise BrokenPromise("keeps what is not pinned")
            server.check(r"\S+")

    with workspace() as root:
        asyncio.run(fetch(root / "packages"))


def run_lease_api(data: bytes) -> None:
    """Make each call of the Lease: a Lease comes back, or a `LeaseError`, and no other object is asked for."""

    async def ask(root: Path) -> None:
        token = root / "token"
        token.write_text(TOKEN, encoding="utf-8")
        async with answering(data) as server:
            api = KubeLeaseApi(KubeAccess(server.url, "apps", "flows", token), "fuzz")
            found: list[Lease] = []

            async def called(call: Awaitable[Lease | None]) -> None:
                try:
                    lease = await call
                except LeaseError as error:
                    _check_said(error.message)
                    print_error(error)
                else:
                    found.extend([lease] if lease is not None else [])

            await called(api.read(5.0))
            await called(api.create(lambda lease: lease.claimed("pod-1", NOW, 15.0), 5.0))
            await called(api.annotate({"kapso-sync/webhook": "x"}, 5.0))
            for lease in tuple(found):
                await called(api.replace(lease.claimed("pod-1", NOW, 15.0), 5.0))
            await api.close()
            server.check(r"/apis/coordination\.k8s\.io/v1/namespaces/apps/leases(?:/flows)?")

    with workspace() as root:
        asyncio.run(ask(root))


def run_messages(data: bytes) -> None:
    """Send a message to destinations of several kinds: the error quotes neither their address nor their answer."""

    async def send(scheme: str) -> None:
        async with answering(data) as server:
            url = f"{scheme}://{TOKEN}:{TOKEN}@{server.url.removeprefix('http://')}/topic"
            try:
                with warnings.catch_warnings(action="ignore"):  # Apprise's, which the suite makes errors
                    error = await asyncio.to_thread(send_with_apprise, url, "title", "body", "info")
            except Exception:  # noqa: BLE001 - Apprise's own; `main` makes a sentence of it
                error = None
            if error is not None:
                _check_said(error)
                if error != "it cannot be reached, or refused the message" and not error.startswith("it answered "):
                    raise BrokenPromise(f"quotes what was answered: {error[:200]!r}")
            if not server.asked:
                raise BrokenPromise("sends nothing")
            if any(f"\r\nhost: {server.url.removeprefix('http://')}\r\n" not in head.lower() for head in server.asked):
                raise BrokenPromise("follows a redirect to another host")

    for scheme in ("json", "ntfy"):
        asyncio.run(send(scheme))


def make_forge(draw: Draw) -> bytes:
    """Answers of a forge."""
    return make_answers(draw, (b'{"message": "Cannot transition status via :enqueue"}', b"{}", dumps(draw.json())))


def make_registry(draw: Draw) -> bytes:
    """Answers of a registry."""
    return make_answers(draw, (CONTENT, CONTENT * 2, b"", b'{"error": "not found"}', b"x" * (1 << 17)))


def make_lease_api(draw: Draw) -> bytes:
    """Answers of the API server."""
    said: dict[str, Any] = {"kind": "Status", "message": draw.text, "code": 403}
    odd = json.dumps({"kind": "Lease", "metadata": draw.pick((None, [], "x", {"resourceVersion": 1})), "spec": 1}).encode()
    return make_answers(draw, (make_lease(draw), make_lease(draw), odd, dumps(draw.object(said))))


TOKENS = (*tuple(header.encode("latin-1") for header in HEADERS), b"HTTP/1.1 200 OK", b"HTTP/1.0 302 Found", b"HTTP/2 200")
TARGETS = (
    Target("forge", run_forge, make_forge, TOKENS, share=0.5),
    Target("registry", run_registry, make_registry, TOKENS, share=0.5),
    Target("lease_api", run_lease_api, make_lease_api, (*TOKENS, b'"kind": "Lease"', b'"metadata": null'), share=0.5),
    Target("messages", run_messages, make_forge, TOKENS, share=0.5),
)
