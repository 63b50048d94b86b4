"""What stands between a company's machines and the world, on loopback: proxies that ask for a password, and TLS of its own."""

from __future__ import annotations

import base64
import contextlib
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

USER, PASSWORD = "ada", "pr0xy-s3cret-0123456789"


@dataclass(frozen=True)
class Authority:
    """A certificate authority that no system knows, and a certificate of its for ``*.acme.example`` and loopback."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The authority's own certificate."""
        return self.folder / "authority.pem"

    @property
    def directory(self) -> Path:
        """A folder with that certificate under the name that OpenSSL looks for."""
        return self.folder / "hashed"

    def server_context(self) -> ssl.SSLContext:
        """The TLS side of a server with its certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        return context


def make_authority(folder: Path) -> Authority:
    """Make an authority with openssl, which no Python package of ours can replace; skip where there is none."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates of this test, is not installed")
    folder.mkdir()

    def openssl(*arguments: str) -> str:
        return subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7")
    openssl("req", "-x509", *key, "-keyout", "authority.key", "-out", "authority.pem", "-subj", "/CN=Acme's own authority")
    (folder / "names").write_text("subjectAltName=DNS:*.acme.example,DNS:localhost,IP:127.0.0.1\n")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=acme.example")
    signing = ("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-days", "7", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
    (folder / "hashed").mkdir()
    name = openssl("x509", "-in", "authority.pem", "-noout", "-hash")
    shutil.copy(folder / "authority.pem", folder / "hashed" / f"{name}.0")
    return Authority(folder)


@dataclass
class Proxy:
    """A proxy that wants a password. ``routes`` leads host names to loopback ports; ``targets`` is what went through."""

    routes: dict[str, int] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    refused: int = 0
    port: int = 0

    def address(self, scheme: str = "http", password: str = PASSWORD) -> str:
        """The proxy as a variable names it."""
        return f"{scheme}://{USER}:{password}@127.0.0.1:{self.port}"

    def connect(self, host: str, port: int) -> socket.socket:
        """Open a connection for a client that may."""
        self.targets.append(f"{host}:{port}")
        return socket.create_connection(("127.0.0.1", self.routes[host]), timeout=20)


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Copy bytes both ways until both sides have ended, in one thread: OpenSSL cannot read and write one connection at once."""
    ends = {one: other, other: one}
    while ends:
        waiting = [source for source in ends if isinstance(source, ssl.SSLSocket) and source.pending()]
        readable = waiting or select.select(list(ends), [], [], 20)[0]
        if not readable:
            return
        for source in readable:
            source.settimeout(0)
            try:
                data = source.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            finally:
                source.settimeout(20)
            if data:
                ends[source].sendall(data)
                continue
            with contextlib.suppress(OSError):
                ends[source].shutdown(socket.SHUT_WR)
            del ends[source]


def _serve_http(proxy: Proxy, client: socket.socket) -> None:
    """Answer one client of an HTTP proxy: CONNECT, or a whole URL, after Basic credentials."""
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    while True:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(65536)
            if not data:
                return
            head += data
        lines, _, rest = head.partition(b"\r\n\r\n")
        first, *headers = lines.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        given = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
        if given.get("proxy-authorization") != f"Basic {pair}":
            proxy.refused += 1
            refusal = "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=acme\r\nContent-Length: 0\r\n\r\n"
            client.sendall(refusal.encode())
            continue
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            with proxy.connect(host, int(port)) as other:
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                _relay(client, other)
            return
        place, _, path = target.removeprefix("http://").partition("/")
        host, _, port = place.partition(":")
        kept = [line for line in headers if not line.lower().startswith("proxy-")]
        with proxy.connect(host, int(port or 80)) as other:
            other.sendall("\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "", ""]).encode("latin-1") + rest)
            _relay(client, other)
        return


def _serve_socks(proxy: Proxy, client: socket.socket) -> None:
    """Answer one client of a SOCKS5 proxy with user and password. Source: RFC 1928 and RFC 1929."""
    file = client.makefile("rb")
    file.read(file.read(2)[1])
    client.sendall(b"\x05\x02")
    file.read(1)
    user, password = (file.read(file.read(1)[0]).decode() for _ in range(2))
    if (user, password) != (USER, PASSWORD):
        proxy.refused += 1
        client.sendall(b"\x01\x01")
        return
    client.sendall(b"\x01\x00")
    kind = file.read(4)[3]
    host = file.read(file.read(1)[0]).decode() if kind == 3 else socket.inet_ntoa(file.read(4))
    with proxy.connect(host, int.from_bytes(file.read(2), "big")) as other:
        client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        _relay(client, other)


@contextlib.contextmanager
def _listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Answer connections on a loopback port, each in a thread; yields the port."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(20)
            with contextlib.suppress(OSError, IndexError):  # clients go away when they have seen enough
                answer(self.request)

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def proxying(routes: dict[str, int], kind: str = "http") -> Iterator[Proxy]:
    """Run a proxy of this kind: ``http`` or ``socks5``."""
    proxy = Proxy(routes)
    serve = _serve_socks if kind == "socks5" else _serve_http
    with _listening(lambda client: serve(proxy, client)) as proxy.port:
        yield proxy


@contextlib.contextmanager
def tls_before(authority: Authority, url: str) -> Iterator[int]:
    """Put TLS before an HTTP server on loopback; yields the port."""
    port = int(url.rpartition(":")[2])
    context = authority.server_context()

    def answer(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as secure, socket.create_connection(("127.0.0.1", port)) as plain:
            _relay(secure, plain)

    with _listening(answer) as front:
        yield front
