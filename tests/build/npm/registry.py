"""A real npm registry on loopback, the tarballs that it serves, and the lock files that name them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Files = Mapping[str, str | bytes]
Send = Callable[[BaseHTTPRequestHandler], None]
ELSEWHERE = "https://registry.npmjs.org"
"""The host that lock files name; nothing listens there for a test."""


def tarball(files: Files, *more: tarfile.TarInfo, root: str = "package") -> bytes:
    """A package's tarball, the same bytes each time; ``more`` are members without content, such as links."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w|") as archive:
        for name, content in files.items():
            body = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(f"{root}/{name}" if root else name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
        for member in more:
            archive.addfile(member)
    return buffer.getvalue()


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member of a tarball that is no regular file."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def sri(content: bytes, algorithm: str = "sha512") -> str:
    """The integrity of some bytes, as lock files write it."""
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"


def package_files(name: str, code: str, version: str = "1.0.0", **about: object) -> dict[str, str | bytes]:
    """The files of a small package."""
    described = {"name": name, "version": version, "license": "MIT", "main": "main.js", **about}
    return {"package.json": json.dumps(described), "main.js": code}


@dataclass
class LoopbackRegistry:
    """Serves ``tarballs`` by their paths; ``sends`` replaces the answer of a path. ``asked`` are the paths of all requests."""

    url: str = ""
    tarballs: dict[str, bytes] = field(default_factory=dict)
    sends: dict[str, Send] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def add(self, name: str, content: Files | bytes, version: str = "1.0.0", /, **entry: object) -> dict[str, Any]:
        """Publish a package, and return its entry in a lock file, as npm writes it; ``entry`` has more of it."""
        body = content if isinstance(content, bytes) else tarball(content)
        path = f"/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        self.tarballs[path] = body
        return {"version": version, "resolved": f"{ELSEWHERE}{path}", "integrity": sri(body), "license": "MIT", **entry}


def lock(packages: Mapping[str, object], version: object = 3) -> bytes:
    """A lock file with these entries, by the folders of the packages."""
    return json.dumps({"name": "demo", "lockfileVersion": version, "packages": {"": {"name": "demo"}, **packages}}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, registry: LoopbackRegistry, *arguments: object) -> None:
        self._registry = registry
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._registry.asked.append(self.path)
        self._registry.headers.append(dict(self.headers))
        send = self._registry.sends.get(self.path)
        if send is not None:
            send(self)
            return
        content = self._registry.tarballs.get(self.path)
        answer(200 if content is not None else 404, content or b"{}")(self)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def answer(status: int, content: bytes = b"", **headers: str) -> Send:
    """Return how to send an answer."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return send


@contextmanager
def serving() -> Iterator[LoopbackRegistry]:
    """Run a registry."""
    registry = LoopbackRegistry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, registry))
    server.daemon_threads = True
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
