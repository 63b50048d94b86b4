"""The key-value store ``env.KV`` of functions: one for the project, in memory, behind workerd's own binding.

It is not documented whether Kapso has one store for a project or for a function; here it is one for the project. The binding
calls it over HTTP, as its implementation shows: https://github.com/cloudflare/workerd, ``src/workerd/api/kv.c++``.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kapso_sync.emulator.clock import Clock
from kapso_sync.emulator.serving import serving
from kapso_sync.emulator.values import Json, JsonObject, dump_json, parse_json

SHORTEST_LIFE = 60
"""Seconds; the limits are Cloudflare's: https://developers.cloudflare.com/kv/platform/limits/"""
LONGEST_KEY = 512
LARGEST_VALUE = 25 * 1024 * 1024
MOST_LISTED = 1000
MOST_AT_ONCE = 100
METADATA = "CF-KV-Metadata"


class Refused(Exception):
    """The store refuses a request; ``status`` is the answer's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a key: bytes, their JSON metadata, and the Unix time at which it expires."""

    content: bytes = field(repr=False)
    metadata: Json = None
    expiration: float | None = None


class KeyValues:
    """The key-value store; expired values are not returned."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: dict[str, Value] = {}

    def get(self, key: str) -> Value | None:
        """Return the value of a key, or None."""
        value = self._values.get(key)
        if value and value.expiration is not None and value.expiration <= self._now():
            del self._values[key]
            return None
        return value

    def put(self, key: str, value: Value, *, life: float | None = None) -> None:
        """Store a value, for ``life`` seconds if given; raises Refused."""
        if life is None and value.expiration is not None:
            life = value.expiration - self._now()
        if not key or len(key.encode()) > LONGEST_KEY:
            raise Refused(414, f"a key has 1 to {LONGEST_KEY} bytes")
        if len(value.content) > LARGEST_VALUE:
            raise Refused(413, f"a value has at most {LARGEST_VALUE} bytes")
        if life is not None and life < SHORTEST_LIFE:
            raise Refused(400, f"a value is kept for at least {SHORTEST_LIFE} seconds")
        self._values[key] = dataclasses.replace(value, expiration=None if life is None else self._now() + life)

    def delete(self, key: str) -> None:
        """Forget a key; one that is not there is no error."""
        self._values.pop(key, None)

    def keys(self, prefix: str = "", after: str = "") -> list[str]:
        """Return the keys that begin with ``prefix`` and come after ``after``, in order."""
        return [key for key in sorted(self._values) if key.startswith(prefix) and key > after and self.get(key)]

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()

    def _now(self) -> float:
        return self._clock.now().timestamp()


@contextlib.asynccontextmanager
async def serving_kv(values: KeyValues, path: Path) -> AsyncIterator[None]:
    """Serve a store on a Unix socket at ``path``."""
    door = _Door(values)
    routes = [
        Route("/", door.list_keys, methods=["GET"]),
        Route("/bulk/get", door.get_many, methods=["POST"]),
        Route("/{key:path}", door.get, methods=["GET"]),
        Route("/{key:path}", door.put, methods=["PUT"]),
        Route("/{key:path}", door.delete, methods=["DELETE"]),
    ]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        app = Starlette(routes=routes, exception_handlers={Refused: _refusal})
        async with serving(app, listener):
            yield


class _Door:
    def __init__(self, values: KeyValues) -> None:
        self._values = values

    async def get(self, request: Request) -> Response:
        value = self._values.get(_key(request))
        if value is None:
            return Response(status_code=404)
        headers = {} if value.metadata is None else {METADATA: json.dumps(value.metadata)}
        return Response(value.content, headers=headers, media_type="application/octet-stream")

    async def put(self, request: Request) -> Response:
        query, metadata = request.query_params, request.headers.get(METADATA)
        value = Value(
            await request.body(),
            parse_json(metadata.encode("latin-1")) if metadata else None,
            _number(query, "expiration"),
        )
        self._values.put(_key(request), value, life=_number(query, "expiration_ttl"))
        return Response()

    async def delete(self, request: Request) -> Response:
        self._values.delete(_key(request))
        return Response()

    async def get_many(self, request: Request) -> Response:
        asked = parse_json(await request.body())
        keys = asked.get("keys") if isinstance(asked, dict) else None
        if not isinstance(asked, dict) or not isinstance(keys, list) or len(keys) > MOST_AT_ONCE:
            raise Refused(400, f"at most {MOST_AT_ONCE} keys may be read at once")
        return Response(dump_json({str(key): self._one_of_many(str(key), asked) for key in keys}))

    async def list_keys(self, request: Request) -> Response:
        query = request.query_params
        limit = int(_number(query, "key_count_limit") or MOST_LISTED)
        after = base64.urlsafe_b64decode(query.get("cursor", "")).decode()
        keys = self._values.keys(query.get("prefix", ""), after)
        page = keys[: min(limit, MOST_LISTED)]
        answer: JsonObject = {"keys": [self._listed(key) for key in page], "list_complete": len(page) == len(keys)}
        if len(page) < len(keys):
            answer["cursor"] = base64.urlsafe_b64encode(page[-1].encode()).decode()
        return Response(dump_json(answer))

    def _one_of_many(self, key: str, asked: JsonObject) -> Json:
        value = self._values.get(key)
        if value is None:
            return None
        shown: Json = parse_json(value.content) if asked.get("type") == "json" else value.content.decode("utf-8", "replace")
        return {"value": shown, "metadata": value.metadata} if asked.get("withMetadata") else shown

    def _listed(self, key: str) -> JsonObject:
        value = self._values.get(key)
        assert value  # noqa: S101 - it was listed a moment ago
        listed: JsonObject = {"name": key}
        if value.expiration is not None:
            listed["expiration"] = int(value.expiration)
        if value.metadata is not None:
            listed["metadata"] = value.metadata
        return listed


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 - it is registered for that alone
    return Response(error.message, error.status, media_type="text/plain")


def _key(request: Request) -> str:
    """Return the key as it was sent: a parsed path would lose encoded characters."""
    raw: bytes = request.scope["raw_path"]
    return unquote(raw.decode("ascii").partition("?")[0].removeprefix("/"))


def _number(query: Mapping[str, str], name: str) -> float | None:
    try:
        return float(query[name]) if name in query else None
    except ValueError:
        raise Refused(400, f"{name} is not a number") from None
