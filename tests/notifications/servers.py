"""The receiving side: destinations of notifications and the forges' status endpoints, on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class ReceivedPost:
    """One POST as it was received."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Ear:
    """A server that accepts every POST. ``answers`` are sent in turn as (status, body, headers); ``hangs`` sends nothing."""

    url: str = ""
    heard: list[ReceivedPost] = field(default_factory=list)
    answers: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    hangs: threading.Event | None = None
    reached: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        """This server as apprise knows it."""
        return self.url.replace("http://", "json://")

    def titles(self) -> list[str]:
        return [str(heard.body["title"]) for heard in self.heard]


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, ear: Ear, *arguments: object) -> None:
        self._ear = ear
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._ear.heard.append(ReceivedPost(self.path, dict(self.headers), body))
        self._ear.reached.set()
        if self._ear.hangs is not None:
            self._ear.hangs.wait(20)
        status, text, headers = self._ear.answers.pop(0) if self._ear.answers else (201, "{}", {})
        content = text.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        with contextlib.suppress(BrokenPipeError):  # who was made to wait may be gone
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def listening(ear: Ear | None = None) -> Iterator[Ear]:
    """Listen on a loopback port."""
    ear = ear or Ear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, ear)) as server:
        server.daemon_threads = True
        ear.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            yield ear
        finally:
            if ear.hangs is not None:
                ear.hangs.set()
            server.shutdown()
            thread.join()
