"""The Lease API of Kubernetes on loopback, in a thread: real HTTP, optimistic locking, tokens that rotate, and faults.

From the API's documentation and not from the client: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import contextlib
import copy
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFIX = "/apis/coordination.k8s.io/v1/namespaces/"
TOKEN = "token-of-the-service-account"

Fault = Callable[[str, str], int | None]
"""From method and client (its User-Agent) to the status to answer with; 0: no answer until the server stops; None: no fault."""


@dataclass
class LeaseServer:
    """The Leases by ``namespace/name``, the requests so far, and the faults that hold now."""

    leases: dict[str, dict[str, Any]] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset({"apps"})
    token: str = TOKEN
    fault: Fault = lambda _method, _client: None
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    versions: int = 100
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def lease(self) -> dict[str, Any]:
        """The only Lease, a copy."""
        with self.lock:
            (found,) = self.leases.values()
            return copy.deepcopy(found)

    @property
    def holder(self) -> str:
        """The holder of the only Lease; empty: nobody, or there is no Lease."""
        with self.lock:
            return next((lease["spec"].get("holderIdentity") or "" for lease in self.leases.values()), "")

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations of the only Lease."""
        found: dict[str, str] = self.lease["metadata"].get("annotations") or {}
        return found

    def methods(self, client: str | None = None) -> list[str]:
        """The methods that were asked for, by one client or by all."""
        return [method for method, asked_by, _ in self.requests if client in (None, asked_by)]

    def store(self, name: str, lease: dict[str, Any]) -> dict[str, Any]:
        """Store a Lease under a new resourceVersion; the caller holds the lock."""
        self.versions += 1
        stored = copy.deepcopy(lease)
        stored["metadata"]["resourceVersion"] = str(self.versions)
        self.leases[name] = stored
        return stored

    def annotate(self, key: str, text: str) -> None:
        """Do what `kubectl annotate` does."""
        with self.lock:
            ((name, lease),) = self.leases.items()
            lease["metadata"].setdefault("annotations", {})[key] = text
            self.store(name, lease)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        namespace, _, rest = path.removeprefix(PREFIX).partition("/leases")
        name = f"{namespace}{rest}"
        with self.lock:
            known = self.leases.get(name)
            if not path.startswith(PREFIX) or (method != "POST" and known is None) or namespace not in self.namespaces:
                return status(404, f'leases.coordination.k8s.io "{rest.strip("/")}" not found')
            if method == "GET":
                return 200, copy.deepcopy(known)
            if method == "POST":
                return self._create(namespace, body)
            return self._patch(name, body) if method == "PATCH" else self._put(name, body)

    def _create(self, namespace: str, body: Any) -> tuple[int, Any]:
        name = f"{namespace}/{body['metadata']['name']}"
        if name in self.leases:
            return status(409, f'leases.coordination.k8s.io "{name}" already exists')
        if "resourceVersion" in body["metadata"]:
            return status(400, "resourceVersion should not be set on objects to be created")
        return 201, self.store(name, body)

    def _put(self, name: str, body: Any) -> tuple[int, Any]:
        version = body["metadata"].get("resourceVersion")
        if version is None:
            return status(422, "metadata.resourceVersion: Invalid value: must be specified for an update")
        if version != self.leases[name]["metadata"]["resourceVersion"]:
            return status(409, "the object has been modified; please apply your changes to the latest version and try again")
        if body["spec"].get("leaseDurationSeconds", 1) < 1:
            return status(422, "spec.leaseDurationSeconds: must be greater than 0")
        return 200, self.store(name, body)

    def _patch(self, name: str, body: Any) -> tuple[int, Any]:
        return 200, self.store(name, merged(copy.deepcopy(self.leases[name]), body))


def merged(into: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A merge patch. Source: RFC 7396."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            into[key] = merged(into.get(key) or {}, value)
        else:
            into[key] = value
    return into


def status(code: int, message: str) -> tuple[int, Any]:
    """An error as Kubernetes answers it."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def _handler(server: LeaseServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            client = self.headers.get("User-Agent", "")
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(text) if text else None
            server.requests.append((self.command, client, body))
            fault = server.fault(self.command, client)
            if fault == 0:
                server.stopped.wait()
                self.close_connection = True
                return
            if fault is not None:
                code, document = status(fault, "a fault of this test")
            elif self.headers.get("Authorization") != f"Bearer {server.token}":
                code, document = status(401, "Unauthorized")
            else:
                code, document = server.answer(self.command, self.path, body)
            content = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                super().handle()

    return Handler


@contextlib.contextmanager
def lease_server(tls: ssl.SSLContext | None = None) -> Iterator[LeaseServer]:
    """Serve it on a free port of loopback until the block ends."""
    server = LeaseServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    server.url = f"http{'s' if tls is not None else ''}://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), name="lease-api", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        http.shutdown()
        http.server_close()
        thread.join(20)
