"""Git servers on loopback: one that works, one that never answers."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.sources.repositories import command_lines


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class GitServer:
    """A git server's content, users and requests.

    ``redirect`` redirects every request to another server, ``moved`` from one path to another; ``status`` fails every request.
    ``cut`` ends an answer to a POST after so many bytes, and while ``stalls`` is not set, no fetch is answered. ``sent`` counts
    the bytes of all answers.
    ``commands`` are those of git's protocol, such as ``ls-refs`` and ``fetch``.
    """

    root: Path
    password: str | None = None
    username: str = "x-access-token"
    redirect: str | None = None
    status: int | None = None
    moved: dict[str, str] = field(default_factory=dict)
    moved_status: int = 301
    cut: int | None = None
    stalls: threading.Event = field(default_factory=_set_event)
    sent: int = 0
    paths: list[str] = field(default_factory=list)
    url: str = ""
    authorizations: list[str | None] = field(default_factory=list)
    processes: set[bytes] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)

    def admits(self, authorization: str | None) -> bool:
        """Tell whether a request may pass."""
        self.authorizations.append(authorization)
        pair = f"{self.username}:{self.password}".encode()
        return self.password is None or authorization == f"Basic {base64.b64encode(pair).decode()}"


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, seen: GitServer, *arguments: object) -> None:
        self._seen = seen
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        admitted = self._seen.admits(authorization)
        self._seen.processes.update(command_lines())
        self._seen.paths.append(self.path)
        moved = next((path for path in self._seen.moved if self.path.startswith(f"{path}/")), None)
        if moved is not None:
            target = self._seen.moved[moved] + self.path.removeprefix(moved)
            self._answer(self._seen.moved_status, {"Location": target})
        elif self._seen.redirect is not None:
            self._answer(302, {"Location": self._seen.redirect + self.path})
        elif self._seen.status is not None:
            self._answer(self._seen.status, {}, f"you said {authorization}".encode())
        elif not admitted:
            self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'})
        else:
            self._serve()

    def do_POST(self) -> None:
        self.do_GET()

    def _serve(self) -> None:
        """Run git http-backend as a CGI program, and pass on what it prints."""
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self._seen.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": "tests",
            "REMOTE_ADDR": "127.0.0.1",
        }
        body = self.rfile.read(length)
        if b"command=fetch" in body:
            self._seen.stalls.wait(20)
        self._seen.commands += re.findall(r"command=([a-z-]+)", body.decode("latin-1"))
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self._answer(int(headers.pop("Status", "200").split()[0]), headers, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = self._seen.cut if self.command == "POST" else None
        with contextlib.suppress(BrokenPipeError):  # who was made to wait may be gone
            self._seen.sent += self.wfile.write(content[:cut])

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(seen: GitServer) -> Iterator[GitServer]:
    """Serve repositories on a loopback port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, seen)) as server:
        seen.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def unresponsive_server() -> Iterator[tuple[str, int]]:
    """Accept connections on a loopback port, and never send a byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        yield str(host), int(port)
