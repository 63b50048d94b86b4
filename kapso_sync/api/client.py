"""Client of the Functions API: one method for each endpoint."""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from collections.abc import Mapping, Sequence

from kapso_sync.api import wire
from kapso_sync.api.base_url import platform_base
from kapso_sync.api.references import Reference, users_in
from kapso_sync.api.transport import ApiRequest, Transport
from kapso_sync.errors import (
    ApiError,
    ApiGarbled,
    ApiNotFound,
    ApiRejected,
    ApiUnsupported,
    Call,
    LockVersionRefused,
    UsersUnknown,
)
from kapso_sync.model.functions import Invocation, InvocationRecord, Json, RemoteFunction, RemoteSecret
from kapso_sync.model.users import FoundUsers, UserKind

PAGE_SIZE = 100
"""Records to request in each page; larger pages are not documented."""

MAX_PAGES = 1000
MAX_INVOKE_BYTES = 1024 * 1024
"""Largest answer of an invoked function that is read, in bytes."""


class KapsoClient:
    """Client of Kapso's Functions API; every method raises `ApiError`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._update_verbs = ["PATCH", "PUT"]
        self._takes_lock_version = True

    @property
    def calls(self) -> int:
        """Number of requests that were sent so far, repeats included."""
        return self._transport.calls

    @property
    def takes_lock_version(self) -> bool:
        """Whether an update may send ``lock_version``; False once this base has refused it."""
        return self._takes_lock_version

    async def list_functions(self) -> tuple[RemoteFunction, ...]:
        """Return every function of the project.

        Raises `ApiGarbled` when pages are missing or do not end: an incomplete list must never be used as the whole list.
        """
        call = Call("GET", "/functions")
        records = await self._pages(call, "/functions")
        functions = {function.id: function for function in (wire.parse_function(record, call) for record in records)}
        return tuple(functions.values())

    async def _pages(self, call: Call, path: str, base: str | None = None, *, until_empty: bool = False) -> list[Json]:
        """Return the records of all pages; read them a second time if the list changed during the first time."""
        try:
            return await self._read_pages(call, path, base, until_empty=until_empty)
        except _PageMoved:
            try:
                return await self._read_pages(call, path, base, until_empty=until_empty)
            except _PageMoved as moved:
                raise ApiGarbled(f"{call}: {moved}", call=call, hint="the next pass reads the list again") from None

    async def _read_pages(self, call: Call, path: str, base: str | None, *, until_empty: bool) -> list[Json]:
        """Read pages until the answers say that there are no more.

        If they do not say, the list ends with a page shorter than we asked for; with ``until_empty`` it ends with an empty or a
        repeated page, since a server may give shorter pages than we ask for.
        """
        records: list[Json] = []
        seen: set[str] = set()
        for number in range(1, MAX_PAGES + 1):
            query = {"page": str(number), "per_page": str(PAGE_SIZE), "limit": str(PAGE_SIZE)}
            value = await self._transport.json(ApiRequest(call, path, query=query, base_url=base))
            page, paging = wire.parse_records(value, call), wire.parse_paging(value)
            fresh = [record for record in page if _identity(record) not in seen]
            missing = 0 if paging.total is None else paging.total - len(records) - len(fresh)
            if page and not fresh and missing <= 0:
                return records
            if len(fresh) < len(page):
                raise _PageMoved(f"page {number} repeats records of an earlier one")
            records += fresh
            seen |= {_identity(record) for record in fresh}
            more = paging.more(number)
            if more is None and paging.total is None:
                more = bool(page) if until_empty else len(page) >= PAGE_SIZE
            if missing <= 0 and not more:
                return records
            if not page:
                raise _PageMoved(f"page {number} is empty, and more was announced")
        raise ApiGarbled(f"{call}: more than {MAX_PAGES} pages", call=call)

    async def get_function(self, function_id: str) -> RemoteFunction:
        """Return one function with its code."""
        call = Call("GET", "/functions/{id}")
        return _same(
            function_id, wire.parse_function(await self._transport.json(ApiRequest(call, _function(function_id))), call), call
        )

    async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
        """Create a draft; the request is never repeated after Kapso may have acted on it."""
        call = Call("POST", "/functions")
        body = wire.encode_function(payload)
        return wire.parse_function(await self._transport.json(ApiRequest(call, "/functions", body, repeatable=False)), call)

    async def update_function(
        self, function_id: str, payload: Mapping[str, Json], *, lock_version: int | None = None
    ) -> RemoteFunction:
        """Save the given attributes with ``PATCH`` or ``PUT``; the client remembers which of them this base accepts.

        Raises `ApiConflict` when ``lock_version`` is not the newest. Raises `LockVersionRefused`, and remembers it, when the
        base refuses the field itself: without it, somebody else's edit would be overwritten.
        """
        if lock_version is None:
            return await self._update_by_verb(function_id, payload)
        try:
            return await self._update_by_verb(function_id, {**payload, "lock_version": lock_version})
        except ApiRejected as refused:
            if refused.status not in (400, 422) or not _REFUSES_LOCK.search(refused.message):
                raise
            self._takes_lock_version = False
            raise LockVersionRefused(refused.message, call=refused.call, status=refused.status) from None

    async def _update_by_verb(self, function_id: str, payload: Mapping[str, Json]) -> RemoteFunction:
        first, second = self._update_verbs
        try:
            return await self._update(first, function_id, payload)
        except (ApiNotFound, ApiUnsupported) as refused:
            try:
                record = await self._update(second, function_id, payload)
            except (ApiNotFound, ApiUnsupported):
                raise refused from None
            self._update_verbs = [second, first]
            return record

    async def _update(self, verb: str, function_id: str, payload: Mapping[str, Json]) -> RemoteFunction:
        call = Call(verb, "/functions/{id}")
        value = await self._transport.json(ApiRequest(call, _function(function_id), wire.encode_function(payload)))
        return _same(function_id, wire.parse_function(value, call), call)

    async def delete_function(self, function_id: str) -> None:
        """Delete a function and its secrets; this cannot be undone."""
        await self._transport.send(ApiRequest(Call("DELETE", "/functions/{id}"), _function(function_id)))

    async def deploy_function(self, function_id: str) -> None:
        """Request a deployment of the stored code; it runs in the background, and a second request does no harm."""
        await self._transport.send(ApiRequest(Call("POST", "/functions/{id}/deploy"), f"{_function(function_id)}/deploy"))

    async def invoke_function(self, function_id: str, body: Json, *, timeout: float) -> Invocation:
        """Invoke a function and return the function's own answer, with any status; ``timeout`` is in seconds."""
        call = Call("POST", "/functions/{id}/invoke")
        path = f"{_function(function_id)}/invoke"
        request = ApiRequest(call, path, body, repeatable=False, deadline=timeout, max_bytes=MAX_INVOKE_BYTES)
        answer = await self._transport.once(request)
        return Invocation(answer.status, answer.headers.get("content-type", ""), answer.body.decode("utf-8", "replace"))

    async def list_secrets(self, function_id: str) -> tuple[RemoteSecret, ...]:
        """Return the names of a function's secrets, never their values; empty while the function is not deployed."""
        call = Call("GET", "/functions/{id}/secrets")
        value = await self._transport.json(ApiRequest(call, f"{_function(function_id)}/secrets", quotes=False))
        return wire.parse_secrets(value, call)

    async def set_secret(self, function_id: str, name: str, value: Json) -> None:
        """Set a secret of a deployed function; setting it twice does no harm.

        Raises `SecretNameTaken` if Kapso does not replace an existing secret. No error shows any text of the answer,
        because the answer may quote the value.
        """
        body: Json = {"secret": {"name": name, "value": value}}
        call, path = Call("POST", "/functions/{id}/secrets"), f"{_function(function_id)}/secrets"
        await self._transport.send(ApiRequest(call, path, body, quotes=False))

    async def delete_secret(self, function_id: str, name: str) -> None:
        """Delete a secret of a deployed function; raises `ApiGarbled` for a name that could lead to another path."""
        if name in ("", ".", ".."):  # a dot is never escaped, and `secrets/..` is the function itself
            call = Call("DELETE", "/functions/{id}/secrets/{name}")
            raise ApiGarbled(f"a secret's name that cannot be: {name!r}", call=call)
        path = f"{_function(function_id)}/secrets/{urllib.parse.quote(name, safe='')}"
        await self._transport.send(ApiRequest(Call("DELETE", "/functions/{id}/secrets/{name}"), path, quotes=False))

    async def list_invocations(
        self, function_id: str, *, limit: int = 10, status: str | None = None
    ) -> tuple[InvocationRecord, ...]:
        """Return recent invocations, newest first.

        ``limit`` is from 1 to 20. ``status`` is ``success`` or ``failed``; None means both.
        """
        call = Call("GET", "/functions/{id}/invocations")
        query = {"limit": str(limit), **({"status": status} if status else {})}
        value = await self._transport.json(ApiRequest(call, f"{_function(function_id)}/invocations", query=query))
        return wire.parse_invocations(value, call)

    async def find_users(self, functions: Sequence[RemoteFunction]) -> FoundUsers:
        """Return the users of each function: workflows of any status, WhatsApp Flows and webhooks.

        The Platform API is asked first, even if another base is set, because only the Platform API shows all of them. For
        workflows the older route ``/flows`` is asked next. The result says so when one kind cannot be read completely (401,
        402, 403, 5xx, or 404 on every route and base), and still holds the users that were found.
        """
        kinds = await asyncio.gather(
            self._workflows(),
            self._listed(UserKind.FLOW, "/whatsapp/flows"),
            self._listed(UserKind.WEBHOOK, "/whatsapp/webhooks"),
        )
        references = [reference for found, _ in kinds for reference in found]
        unknown = next((error for _, error in kinds if error is not None), None)
        return FoundUsers(users_in(references, functions), unknown)

    async def _workflows(self) -> tuple[list[Reference], UsersUnknown | None]:
        try:
            route, base, records = await self._first_answer(UserKind.WORKFLOW, ("/workflows", "/flows"))
        except UsersUnknown as error:
            return [], error
        known = [item for item in records if isinstance(item, dict) and _ID.fullmatch(str(item.get("id")))]
        unknown = None
        if len(known) < len(records):
            text = f"GET {route}: one has no id, or one that cannot be"
            unknown = _unknown(UserKind.WORKFLOW, ApiGarbled(text, call=Call("GET", route)))
        contents = await asyncio.gather(*(self._definition(route, base, str(item["id"])) for item in known))
        references = []
        for item, content in zip(known, contents, strict=True):
            if isinstance(content, UsersUnknown):
                unknown = unknown or content
            else:
                references.append(Reference(UserKind.WORKFLOW, str(item.get("name") or item["id"]), content))
        return references, unknown

    async def _definition(self, route: str, base: str, workflow_id: str) -> Json | UsersUnknown:
        path = f"{route}/{urllib.parse.quote(workflow_id, safe='')}/definition"
        try:
            return await self._transport.json(ApiRequest(Call("GET", f"{route}/{{id}}/definition"), path, base_url=base))
        except ApiError as error:
            return _unknown(UserKind.WORKFLOW, error)

    async def _listed(self, kind: UserKind, route: str) -> tuple[list[Reference], UsersUnknown | None]:
        try:
            _, _, records = await self._first_answer(kind, (route,))
        except UsersUnknown as error:
            return [], error
        return [Reference(kind, _title(record), record) for record in records], None

    async def _first_answer(self, kind: UserKind, routes: Sequence[str]) -> tuple[str, str, list[Json]]:
        """Return the first route that one of the bases knows, that base, and the complete list."""
        bases = dict.fromkeys((platform_base(self._transport.base_url), self._transport.base_url))
        failure: ApiError | None = None
        for route in routes:
            for base in bases:
                try:
                    return route, base, await self._pages(Call("GET", route), route, base, until_empty=True)
                except (ApiNotFound, ApiUnsupported) as error:
                    failure = failure or error
                except ApiError as error:
                    raise _unknown(kind, error) from error
        if failure is None:
            raise AssertionError(routes)
        raise _unknown(kind, failure) from failure


def _unknown(kind: UserKind, error: ApiError) -> UsersUnknown:
    message = f"which {kind}s there are could not be read: {error.message}"
    return UsersUnknown(message, call=error.call, status=error.status, hint=error.hint)


def _title(record: Json) -> str:
    if not isinstance(record, dict):
        return "?"
    return next((str(record[name]) for name in ("name", "url", "id") if record.get(name)), "?")


_REFUSES_LOCK = re.compile(r"lock_version(?!\w|\\*[\"']?\s*(?::|=))")
"""The field's name in a refusal, but not as a key of a request that the refusal quotes."""


class _PageMoved(Exception):
    """The list changed while its pages were read, or a page is missing."""


_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


def _function(function_id: str) -> str:
    """Return the URL path of a function; raises `ApiGarbled` for an id that could lead to another path."""
    if not _ID.fullmatch(function_id):
        call = Call("GET", "/functions/{id}")
        raise ApiGarbled(
            f"an id that cannot be: {function_id[:100]!r}", call=call, hint="Kapso's ids are letters, digits, - and _"
        )
    return f"/functions/{function_id}"


def _same(function_id: str, record: RemoteFunction, call: Call) -> RemoteFunction:
    if record.id != function_id:
        raise ApiGarbled(f"{call} answered with another function than the one that was asked for", call=call)
    return record


def _identity(record: Json) -> str:
    if isinstance(record, dict) and isinstance(record.get("id"), str):
        return str(record["id"])
    return repr(record)
