"""A server on loopback that sends answers exactly as an input has them, whatever is asked for.

A section of the input is an answer: its head, an empty line, and its body. ``@here`` in it is the server's own address, and
``@elsewhere`` another name of the same server, which nobody may ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw
from tests.fuzz.promises import BrokenPromise

MAX_REQUESTS = 60
"""More requests than this for one input are a loop."""

STATUSES = (100, 200, 201, 204, 301, 302, 304, 307, 308, 400, 401, 403, 404, 408, 409, 422, 425, 429, 500, 502, 503, 599, 999)
HEADERS = (
    "Location: @here/again",
    "Location: @elsewhere/",
    "Location: //[",
    "Location: ",
    "Retry-After: inf",
    "Retry-After: -1e999",
    "Retry-After: nan",
    "Retry-After: Sun, 29 Nov 2026 06:00:30 GMT\nDate: Sun, 29 Nov 2026 06:00:00",
    "Content-Length: 3",
    "Content-Length: 99999999999999999999",
    "Content-Length: -1",
    "Transfer-Encoding: chunked",
    "Content-Encoding: gzip",
    "Content-Encoding: br, gzip",
    "Content-Type: application/json; charset=utf-7",
    "Set-Cookie: a=b",
    "X: \xff",
    ": x",
)


@dataclass
class Answering:
    """The server; the last answer is sent again and again. ``asked`` are the heads of all requests."""

    answers: Sequence[bytes]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            await reader.readexactly(int(length[1]) if length is not None else 0)
            self.asked.append(head.decode("latin-1"))
            writer.write(self._answer())
            await writer.drain()
        writer.close()

    def _answer(self) -> bytes:
        if not self.answers:
            return b""
        text = self.answers[min(len(self.asked), len(self.answers)) - 1]
        here = self.url.encode()
        text = text.replace(b"@here", here).replace(b"@elsewhere", here.replace(b"127.0.0.1", b"localhost"))
        head, _, body = text.partition(b"\n\n")
        return head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body

    def check(self, path: str) -> None:
        """Raise `BrokenPromise` if anybody asked for another host, for a path that does not match, or too often."""
        for head in self.asked:
            line = head.partition("\r\n")[0]
            if re.fullmatch(rf"[A-Z]+ {path} HTTP/1.1", line) is None:
                raise BrokenPromise(f"asks for {line[:300]!r}")
            if f"\r\nhost: {self.url.removeprefix('http://')}\r\n" not in head.lower():
                raise BrokenPromise(f"asks another host: {head[:300]!r}")
        if len(self.asked) > MAX_REQUESTS:
            raise BrokenPromise(f"asks {len(self.asked)} times")


@contextlib.asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[Answering]:
    """Serve the answers of an input."""
    served = Answering([content for _, content in unpack(data)])
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield served


def make_answers(draw: Draw, usual: Sequence[bytes]) -> bytes:
    """One to four answers, most of which have one of the ``usual`` bodies."""
    answers = {}
    for number in range(draw.random.randint(1, 4)):
        status = draw.pick((200, draw.pick(STATUSES)))
        head = [f"HTTP/1.1 {status} X", *draw.several(HEADERS, 2)]
        body = draw.pick(usual) if draw.chance(0.7) else draw.text().encode("utf-8", "surrogatepass")
        answers[str(number)] = "\n".join(head).encode("latin-1") + b"\n\n" + body
    return pack(answers)
