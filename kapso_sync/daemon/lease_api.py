"""Reads and writes one Lease over Kubernetes' HTTP API: four calls, and no watch.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from kapso_sync.daemon.lease import Lease, new_lease
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError, LeaseConflict, LeaseError, LeaseForbidden, LeaseMissing
from kapso_sync.http_client import failure_reason
from kapso_sync.mounted_files import header_value, read_mounted, read_mounted_text
from kapso_sync.settings import Settings
from kapso_sync.urls import is_loopback
from kapso_sync.visible import visible

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a Pod finds its token, its namespace and the authority of the API server.
Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/"""

MAX_BYTES = 1024 * 1024
"""Bytes of an answer that are read, at most; a Lease has a few hundred."""

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch"}
_EXAMPLE = "an example: https://10.0.0.1:6443"
_IN_CLUSTER = "in a Pod, mount a service account's token; elsewhere, set KAPSO_SYNC_KUBE_API and KAPSO_SYNC_KUBE_TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class KubeAccess:
    """How to reach one Lease. ``token_file`` and ``ca_file`` are read again at each call, because Kubernetes rotates them."""

    url: str
    namespace: str
    name: str
    token_file: Path | None = None
    ca_file: Path | None = None


def find_access(settings: Settings, service_account: Path = SERVICE_ACCOUNT) -> KubeAccess | None:
    """Return the access to the settings' Lease, completed from the Pod's service account; None: the settings name no Lease.

    Raises `ConfigError` if something is missing, or if the token would travel in the clear.
    """
    if settings.lease is None:
        return None
    return KubeAccess(
        _find_url(settings),
        settings.lease_namespace or _mounted_namespace(service_account, settings.lease),
        settings.lease,
        settings.kube_token_file or _mounted(service_account / "token"),
        settings.kube_ca_file or _mounted(service_account / "ca.crt"),
    )


def _find_url(settings: Settings) -> str:
    url = settings.kube_api
    if url is None:
        host = settings.environment.get("KUBERNETES_SERVICE_HOST", "")
        if not host:
            raise ConfigError("KAPSO_SYNC_LEASE is set, and there is no Kubernetes here", hint=_IN_CLUSTER)
        url = f"https://{f'[{host}]' if ':' in host else host}:{settings.environment.get('KUBERNETES_SERVICE_PORT', '443')}"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"KAPSO_SYNC_KUBE_API {url!r}: {error}", hint=_EXAMPLE) from None
    if parsed.scheme not in ("https", "http") or not parsed.host or parsed.userinfo:
        raise ConfigError(
            f"KAPSO_SYNC_KUBE_API is not an https address without user and password: {parsed.host!r}", hint=_EXAMPLE
        )
    if parsed.scheme == "http" and not (settings.allow_http or is_loopback(parsed.host)):
        raise ConfigError(
            f"KAPSO_SYNC_KUBE_API {url} would send the token in the clear", hint="use https://, or set KAPSO_SYNC_ALLOW_HTTP=1"
        )
    return url.rstrip("/")


def _mounted_namespace(service_account: Path, name: str) -> str:
    try:
        return (service_account / "namespace").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"the namespace of the Lease {name} is not known", hint="set KAPSO_SYNC_LEASE_NAMESPACE") from None


def _mounted(file: Path) -> Path | None:
    return file if file.exists() else None


class KubeLeaseApi:
    """The API server, for one Lease; every method raises `LeaseError`. ``user_agent`` shows in the server's audit log."""

    def __init__(self, access: KubeAccess, user_agent: str) -> None:
        self._access = access
        self._user_agent = user_agent
        self._folder = f"/apis/coordination.k8s.io/v1/namespaces/{access.namespace}/leases"
        self._client: tuple[str | None, httpx.AsyncClient] | None = None

    @property
    def name(self) -> str:
        """``namespace/name`` of the Lease."""
        return f"{self._access.namespace}/{self._access.name}"

    async def read(self, timeout: float) -> Lease | None:
        """Return the Lease, or None if there is none; ``timeout`` is in seconds."""
        try:
            return await self._ask("GET", f"{self._folder}/{self._access.name}", None, timeout)
        except LeaseMissing:
            return None

    async def create(self, change: Callable[[Lease], Lease], timeout: float) -> Lease:
        """Create the Lease that ``change`` makes of one that nobody holds. Raises `LeaseConflict` if there is one."""
        lease = change(new_lease(self._access.name, self._access.namespace))
        try:
            return await self._ask("POST", self._folder, lease.document, timeout)
        except LeaseMissing:
            raise LeaseError(
                f"there is no namespace {self._access.namespace}, or it knows no Leases",
                hint="look at KAPSO_SYNC_LEASE_NAMESPACE and KAPSO_SYNC_KUBE_API",
            ) from None

    async def replace(self, lease: Lease, timeout: float) -> Lease:
        """Store a Lease. Its resourceVersion goes along, so that this fails if it was written since it was read.

        Raises `LeaseConflict` and `LeaseMissing`.
        """
        if not lease.version:
            raise LeaseError("the API server gave the Lease no resourceVersion, so it cannot be updated safely")
        return await self._ask("PUT", f"{self._folder}/{self._access.name}", lease.document, timeout)

    async def annotate(self, annotations: Mapping[str, str | None], timeout: float) -> Lease:
        """Set annotations, or remove those that are None; no other field changes. Raises `LeaseMissing`."""
        return await self._ask(
            "PATCH", f"{self._folder}/{self._access.name}", {"metadata": {"annotations": dict(annotations)}}, timeout
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client[1].aclose()
            self._client = None

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> Lease:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if self._access.token_file is not None:
            headers["Authorization"] = f"Bearer {_token(self._access.token_file)}"
        content = None
        if body is not None:
            content = json.dumps(body).encode("ascii")
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        what = f"{_VERBS[method]} of the Lease {self.name}"
        try:
            async with asyncio.timeout(timeout):
                client = await self._connection()
                async with client.stream(method, path, content=content, headers=headers) as answer:
                    text = await _body(answer)
        except TimeoutError:
            await self.close()  # a cancelled request never releases its place in httpx's pool
            raise LeaseError(f"{what}: no answer within {timeout:.1f} s", hint=self._look) from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, ValueError) as error:
            raise LeaseError(f"{what}: {failure_reason(error)}", hint=self._look) from error
        return self._lease(method, what, answer.status_code, text)

    @property
    def _look(self) -> str:
        return f"is the API server at {self._access.url} up, and may this Pod reach it?"

    def _lease(self, method: str, what: str, status: int, text: bytes) -> Lease:
        document = _decoded(text)
        if status in (200, 201) and document is not None and document.get("kind") == "Lease":
            return Lease(document)
        said = document.get("message") if document is not None else None
        message = f"{what} answered {status}" + (f": {visible(' '.join(said.split()))[:300]}" if isinstance(said, str) else "")
        match status:
            case 401:
                raise LeaseForbidden(message, hint=f"the token is not accepted: look at {self._access.token_file}")
            case 403:
                hint = (
                    f"let the Role in {self._access.namespace} allow `{_VERBS[method]}` of `leases` in `coordination.k8s.io`"
                    f" (the name: {self._access.name}), and bind it to this Pod's service account"
                )
                raise LeaseForbidden(message, hint=hint)
            case 404:
                raise LeaseMissing(message, hint=self._look)
            case 409:
                raise LeaseConflict(message)
            case _:
                raise LeaseError(message, hint=self._look)

    async def _connection(self) -> httpx.AsyncClient:
        """Return the client, a new one if the authority's file was replaced."""
        ca_file = self._access.ca_file
        authority = None if ca_file is None else _authority(ca_file)
        if self._client is not None and self._client[0] == authority:
            return self._client[1]
        await self.close()
        client = httpx.AsyncClient(
            base_url=self._access.url,
            verify=_ssl_context(authority, ca_file) if self._access.url.startswith("https:") else False,
            timeout=30.0,  # `_ask` has the deadline
            trust_env=False,
        )
        self._client = (authority, client)
        return client


def _authority(file: Path) -> str:
    """Return the certificates of a PEM file, without comments and a byte order mark."""
    place = f"the authority of Kubernetes' API, {file},"
    try:
        return read_mounted(place, file, missing="mount it there").decode("ascii", "ignore")
    except ConfigError as error:
        raise LeaseError(error.message, hint=error.hint) from error


def _ssl_context(authority: str | None, file: Path | None) -> ssl.SSLContext:
    """Return a TLS context that trusts this authority, or else the system's.

    Python 3.13 checks certificates strictly, which those of many clusters do not pass: they lack a key identifier.
    """
    try:
        # Without any text Python would trust the system's authorities in its place.
        context = ssl.create_default_context(cadata=authority if authority is None else f"{authority}\n")
    except (ssl.SSLError, ValueError) as error:
        text = f"the authority of Kubernetes' API, {file}, holds no certificate that can be read"
        raise LeaseError(text, hint="it is a file in PEM format") from error
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _token(file: Path) -> str:
    place = f"the token of Kubernetes' API, {file},"
    try:
        return header_value(place.removesuffix(","), read_mounted_text(place, file, missing="mount it there"))
    except ConfigError as error:
        raise LeaseError(error.message, hint=error.hint) from error


async def _body(answer: httpx.Response) -> bytes:
    parts, size = list[bytes](), 0
    async for part in answer.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise ValueError(f"the answer has more than {MAX_BYTES} bytes")
    return b"".join(parts)


def _decoded(text: bytes) -> Mapping[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
