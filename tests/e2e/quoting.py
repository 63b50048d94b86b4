"""Servers that answer with what they were told: every header and the body of a request, in the spellings that servers use."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

Answer = tuple[int, dict[str, str], str]
"""Status, headers and body."""

JSON = {"Content-Type": "application/json"}

DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _in_header(said: str) -> str:
    """Only what a header can hold."""
    return re.sub(r"[^\x20-\x7e]", " ", said)


QUOTES: Mapping[str, Callable[[str], Answer]] = {
    "an error": lambda said: (422, JSON, json.dumps({"error": f"not accepted: {said}"})),
    "an error of many": lambda said: (422, JSON, json.dumps({"errors": [{"message": said}, {"code": said}]})),
    "an error without words": lambda said: (400, JSON, json.dumps({said: [said]})),
    "a refused key": lambda said: (401, JSON, json.dumps({"error": said})),
    "another project": lambda said: (404, JSON, json.dumps({"error": said}, ensure_ascii=False)),
    "a page of a proxy": lambda said: (502, {"Content-Type": "text/html"}, f"<h1>Bad gateway</h1><pre>{html.escape(said)}"),
    "too many calls": lambda said: (429, {"Retry-After": "0", "X-RateLimit-Limit": _in_header(said)}, said),
    "a redirect": lambda said: (307, {"Location": f"https://elsewhere.invalid/{quote(said)}"}, ""),
    "no JSON": lambda said: (200, JSON, said),
    "base64": lambda said: (400, JSON, json.dumps({"error": base64.b64encode(said.encode()).decode()})),
    "one long line": lambda said: (500, JSON, json.dumps({"error": " ".join(said.split())})),
    "the beginning": lambda said: (409, JSON, json.dumps({"error": said[:400]})),
    "other records": lambda said: (200, JSON, json.dumps({"data": [{"id": said, "slug": said, "name": said, "code": said}]})),
    "a status line": lambda said: (999, {"X-Said": _in_header(said)}, said),
}


@dataclass
class Quoting:
    """A server before another one. Calls that match ``method`` and ``path`` are answered by ``quote``, others by ``behind``.

    ``said`` is all that was quoted. Without ``behind`` every call is quoted. With ``keys``, a key that is valid
    here is replaced by that of the server behind; others are refused.
    """

    behind: str = ""
    quote: Callable[[str], Answer] | None = None
    method: str = ".*"
    path: str = ".*"
    said: list[str] = field(default_factory=list)
    keys: dict[str, str] | None = None
    url: str = ""

    def quotes(self, method: str, path: str) -> bool:
        """Tell whether a call is one to quote."""
        matches = re.fullmatch(self.method, method) and re.fullmatch(self.path, path.partition("?")[0])
        return self.quote is not None and matches is not None


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Quoting, *arguments: object) -> None:
        self._quoting = server
        super().__init__(*arguments)  # type: ignore[arg-type]

    def _answer_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._quoting.quotes(self.command, self.path) or not self._quoting.behind:
            assert self._quoting.quote is not None
            said = f"{self.command} {self.path}\n{self.headers}\n{body.decode(errors='replace')}"
            if (basic := self.headers.get("Authorization", "")).startswith("Basic "):
                said += base64.b64decode(basic.removeprefix("Basic ")).decode()
            self._quoting.said.append(said)
            status, headers, text = self._quoting.quote(said)
            self._send(status, headers, text.encode())
        else:
            self._send(*self._behind(body))

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer_any  # noqa: N815 - the library's names

    def _behind(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")}
        if self._quoting.keys is not None:
            key = self._quoting.keys.get(self.headers.get("X-API-Key", ""))
            if key is None:
                return 401, JSON, b'{"error": "Invalid or missing API key"}'
            headers = {name: value for name, value in headers.items() if name.lower() != "x-api-key"} | {"X-API-Key": key}
        request = urllib.request.Request(self._quoting.behind + self.path, body or None, headers, method=self.command)  # noqa: S310
        try:
            with DIRECTLY.open(request, timeout=20) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def _send(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response(status, "as you said")
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def quoting(server: Quoting) -> Iterator[Quoting]:
    """Listen on a loopback port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, server)) as listener:
        listener.daemon_threads = True
        server.url = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=partial(listener.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
