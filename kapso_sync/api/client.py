"""Client of the Functions API: one method for each endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from kapso_sync.aio import in_slices
from kapso_sync.api import wire
from kapso_sync.api.base_url import platform_base
from kapso_sync.api.references import Reference, users_in
from kapso_sync.api.transport import ApiRequest, Transport
from kapso_sync.errors import (
    AnswerTooLarge,
    ApiError,
    ApiGarbled,
    ApiNotFound,
    ApiRejected,
    ApiUnsupported,
    Call,
    LockVersionRefused,
    UsersUnknown,
)
from kapso_sync.model.functions import (
    CallBudget,
    FunctionList,
    Invocation,
    InvocationRecord,
    InvokeRequest,
    RemoteFunction,
    RemoteSecret,
    code_hash,
)
from kapso_sync.model.json_values import Json, canonical_json
from kapso_sync.model.names import is_id, is_secret_name
from kapso_sync.model.users import FoundUsers, UserKind, WhatsAppFlow

PAGE_SIZE = 100
"""Records to request in each page; larger pages are not documented."""

PAGES_AT_ONCE = 9
"""Pages of a list that are read at the same time, once the first one has said how many there are: with it, those of a thousand
functions."""

MAX_PAGES = 1000
MAX_RECORDS = 20_000
"""Most records of all pages: each of them is looked at in turn, while nothing else happens."""

_MIB = 1024 * 1024
MAX_LIST_BYTES = 48 * _MIB
"""Most bytes of all pages of the functions, code included. One page may hold all of it, which takes three times as much memory
while it is decoded: more would not fit into a container of 256 MiB.
"""

MAX_RECORD_BYTES = 8 * _MIB
"""Most bytes of an answer about one function: 1 MiB of code, of which JSON may make six times as much, and its fields."""

MAX_INVOKE_BYTES = _MIB
"""Most bytes of an invoked function's own answer."""

MAX_SECRETS_BYTES = _MIB
"""Most bytes of the names of one function's secrets."""

MAX_INVOCATIONS_BYTES = 16 * _MIB
"""Most bytes of the recent invocations of a function: at most 20, each with the bodies of a request and an answer."""

MAX_USERS_BYTES = 32 * _MIB
"""Most bytes of everything that may use a function: the lists of workflows, Flows and webhooks, and all definitions."""

DEFINITIONS_AT_ONCE = 8
"""Definitions of workflows that are read at the same time."""


_Record = TypeVar("_Record")


class KapsoClient:
    """Client of Kapso's Functions API; every method raises `ApiError`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._definition_slots = asyncio.Semaphore(DEFINITIONS_AT_ONCE)
        self._update_verbs = ["PATCH", "PUT"]
        self._takes_lock_version = True
        self._list_calls = 1

    @property
    def calls(self) -> int:
        """Number of requests that were sent so far, repeats included."""
        return self._transport.calls

    @property
    def takes_lock_version(self) -> bool:
        """Whether an update may send ``lock_version``; False once this base has refused it."""
        return self._takes_lock_version

    @property
    def budget(self) -> CallBudget:
        """What the list costs, and how many calls a second may be spent."""
        return CallBudget(self._list_calls, self._transport.calls_per_second)

    async def list_functions(self) -> tuple[RemoteFunction, ...]:
        """Return every function of the project; records that cannot be believed are left out. Raises like `list_records`."""
        return (await self.list_records()).functions

    async def list_records(self) -> FunctionList:
        """Return every function of the project, and the records that cannot be believed.

        Raises `ApiGarbled` when pages are missing or do not end: an incomplete list must never be used as the whole list.
        """
        call = Call("GET", "/functions")
        budget = _ByteBudget(MAX_LIST_BYTES)
        request = ApiRequest(call, "/functions", cut=True)
        records = await self._pages(request, budget, lambda record: wire.parse_record(record, call))
        self._list_calls = budget.answers
        return replace(wire.whole_list(records), digest=budget.digest)

    async def list_digest(self) -> str:
        """Return the digest that `list_records` would return now, without parsing the records. Raises like `list_records`."""
        budget = _ByteBudget(MAX_LIST_BYTES)
        await self._pages(ApiRequest(Call("GET", "/functions"), "/functions", cut=True), budget, lambda record: record)
        return budget.digest

    async def _pages(
        self, request: ApiRequest, budget: _ByteBudget, parse: Callable[[Json], _Record], *, until_empty: bool = False
    ) -> list[_Record]:
        """Return the parsed records of all pages; read them a second time if the list changed during the first time."""
        before = budget.left
        try:
            return await self._read_pages(request, budget, parse, until_empty=until_empty)
        except _PageMoved:
            budget.restart(before)
            try:
                return await self._read_pages(request, budget, parse, until_empty=until_empty)
            except _PageMoved as moved:
                raise ApiGarbled(
                    f"{request.call}: {moved}", call=request.call, hint="the next pass reads the list again"
                ) from None

    async def _read_within(self, request: ApiRequest, budget: _ByteBudget, share: int = 1) -> Json:
        """Return an answer that is one of several with a limit in common; raises `AnswerTooLarge` above it.

        It may take what is left of the limit, divided by ``share``.
        """
        try:
            value, body = await self._transport.json_and_bytes(replace(request, max_bytes=max(1, budget.left // share)))
        except AnswerTooLarge as error:
            if share > 1 or budget.left == budget.limit:
                raise
            raise AnswerTooLarge(
                f"{request.call} answered with more than {budget.limit // _MIB} MiB", call=request.call
            ) from error
        budget.take(body)
        return value

    async def _read_pages(
        self, request: ApiRequest, budget: _ByteBudget, parse: Callable[[Json], _Record], *, until_empty: bool
    ) -> list[_Record]:
        """Read pages until the answers say that there are no more; those that the first one announces are read together.

        A page is parsed while the next ones are on their way. If the answers do not say, the list ends with a page shorter than
        we asked for; with ``until_empty`` it ends with an empty or a repeated page, since a server may give shorter pages than
        we ask for.
        """
        call = request.call
        records: list[_Record] = []
        seen: set[str] = set()
        announced = 1
        async with _PagesAhead(self._read_within, request, budget) as ahead:
            for number in range(1, MAX_PAGES + 1):
                value = await ahead.answer(number, announced)
                page, paging = wire.parse_records(value, call), wire.parse_paging(value)
                if number == 1:
                    announced = paging.last_page(len(page))
                if len(records) + len(page) > MAX_RECORDS:
                    raise AnswerTooLarge(f"{call} answered with more than {MAX_RECORDS:,} records", call=call)
                identities = [_identity(record) for record in page]
                fresh = [record for record, identity in zip(page, identities, strict=True) if identity not in seen]
                missing = 0 if paging.total is None else paging.total - len(records) - len(fresh)
                if page and not fresh and missing <= 0:
                    return records
                if len(fresh) < len(page):
                    raise _PageMoved(f"page {number} repeats records of an earlier one")
                records += await in_slices(_parsed(fresh, parse))
                seen.update(identities)
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
        value = await self._transport.json(ApiRequest(call, _function(function_id), max_bytes=MAX_RECORD_BYTES))
        return _same(function_id, wire.parse_function(value, call), call)

    async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
        """Create a draft; the request is never repeated after Kapso may have acted on it."""
        call = Call("POST", "/functions")
        request = ApiRequest(call, "/functions", wire.encode_function(payload), repeatable=False, max_bytes=MAX_RECORD_BYTES)
        return wire.parse_function(await self._transport.json(request), call)

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
        request = ApiRequest(call, _function(function_id), wire.encode_function(payload), max_bytes=MAX_RECORD_BYTES)
        value = await self._transport.json(request)
        return _same(function_id, wire.parse_function(value, call), call)

    async def delete_function(self, function_id: str) -> None:
        """Delete a function and its secrets; this cannot be undone."""
        call = Call("DELETE", "/functions/{id}")
        await self._transport.send(ApiRequest(call, _function(function_id), max_bytes=MAX_RECORD_BYTES))

    async def deploy_function(self, function_id: str) -> None:
        """Request a deployment of the stored code; it runs in the background, and a second request does no harm."""
        call = Call("POST", "/functions/{id}/deploy")
        request = ApiRequest(call, f"{_function(function_id)}/deploy", max_bytes=MAX_RECORD_BYTES)
        wire.require_about(await self._transport.send(request), function_id, call)

    async def invoke_function(self, function_id: str, request: InvokeRequest, *, timeout: float) -> Invocation:
        """Invoke a function and return the function's own answer, with any status; ``timeout`` is in seconds."""
        call = Call("POST", "/functions/{id}/invoke")
        path = f"{_function(function_id)}/invoke"
        sent = ApiRequest(call, path, raw=request, repeatable=False, deadline=timeout, max_bytes=MAX_INVOKE_BYTES)
        answer = await self._transport.once(sent)
        return Invocation(answer.status, answer.headers.get("content-type", ""), answer.body.decode("utf-8", "replace"))

    async def list_secrets(self, function_id: str) -> tuple[RemoteSecret, ...]:
        """Return the names of a function's secrets, never their values; empty while the function is not deployed."""
        call = Call("GET", "/functions/{id}/secrets")
        request = ApiRequest(call, f"{_function(function_id)}/secrets", quotes=False, max_bytes=MAX_SECRETS_BYTES)
        value = await self._transport.json(request)
        wire.require_about(value, function_id, call)
        return wire.parse_secrets(value, call)

    async def set_secret(self, function_id: str, name: str, value: Json) -> None:
        """Set a secret of a deployed function; setting it twice does no harm.

        Raises `SecretNameTaken` if Kapso does not replace an existing secret. No error shows any text of the answer,
        because the answer may quote the value.
        """
        body: Json = {"secret": {"name": name, "value": value}}
        call, path = Call("POST", "/functions/{id}/secrets"), f"{_function(function_id)}/secrets"
        request = ApiRequest(call, path, body, quotes=False, max_bytes=MAX_RECORD_BYTES)
        wire.require_about(await self._transport.send(request), function_id, call)

    async def delete_secret(self, function_id: str, name: str) -> None:
        """Delete a secret of a deployed function."""
        call = Call("DELETE", "/functions/{id}/secrets/{name}")
        if not is_secret_name(name):
            raise ApiGarbled(f"a secret's name that cannot be: {ascii(name)[:100]}", call=call)
        path = f"{_function(function_id)}/secrets/{name}"
        await self._transport.send(ApiRequest(call, path, quotes=False, max_bytes=MAX_RECORD_BYTES))

    async def list_invocations(
        self, function_id: str, *, limit: int = 10, status: str | None = None
    ) -> tuple[InvocationRecord, ...]:
        """Return recent invocations, newest first.

        ``limit`` is from 1 to 20. ``status`` is ``success`` or ``failed``; None means both.
        """
        call = Call("GET", "/functions/{id}/invocations")
        query = {"limit": str(limit), **({"status": status} if status else {})}
        path = f"{_function(function_id)}/invocations"
        value = await self._transport.json(ApiRequest(call, path, query=query, max_bytes=MAX_INVOCATIONS_BYTES))
        wire.require_about(value, function_id, call)
        return wire.parse_invocations(value, call)

    async def find_users(self, functions: Sequence[RemoteFunction]) -> FoundUsers:
        """Return the users of each function: workflows of any status, WhatsApp Flows and webhooks.

        The Platform API is asked first, even if another base is set, because only the Platform API shows all of them. For
        workflows the older route ``/flows`` is asked next. The result says so when one kind cannot be read completely (401,
        402, 403, 5xx, or 404 on every route and base), and still holds the users that were found.
        """
        budget = _ByteBudget(MAX_USERS_BYTES)
        kinds = await asyncio.gather(
            self._workflows(budget),
            self._listed(UserKind.FLOW, "/whatsapp/flows", budget),
            self._listed(UserKind.WEBHOOK, "/whatsapp/webhooks", budget),
        )
        references = [reference for found, _ in kinds for reference in found]
        unknown = next((error for _, error in kinds if error is not None), None)
        return FoundUsers(users_in(references, functions), unknown)

    async def find_flow(self, flow_id: str) -> WhatsAppFlow | None:
        """Return a WhatsApp Flow, or None if the project has no such Flow; raises `UsersUnknown` if Flows cannot be listed."""
        _, _, records = await self._first_answer(UserKind.FLOW, ("/whatsapp/flows",), _ByteBudget(MAX_USERS_BYTES))
        found = next((item for item in records if isinstance(item, dict) and item.get("id") == flow_id), None)
        return None if found is None else wire.parse_flow(found, flow_id)

    async def attach_flow(self, flow_id: str, function_id: str) -> str | None:
        """Make a deployed function the data endpoint of a WhatsApp Flow; return Kapso's warning, or None.

        The Platform API is asked, whatever base is set: it alone shows Flows.
        """
        call = Call("PATCH", "/whatsapp/flows/{id}/data_endpoint")
        if not is_id(flow_id):
            raise ApiGarbled(f"an id of a WhatsApp Flow that cannot be: {ascii(flow_id)[:100]}", call=call)
        request = ApiRequest(
            call,
            f"/whatsapp/flows/{flow_id}/data_endpoint",
            {"function_id": function_id},
            base_url=platform_base(self._transport.base_url),
            max_bytes=MAX_RECORD_BYTES,
        )
        return wire.parse_warning(await self._transport.json(request))

    async def _workflows(self, budget: _ByteBudget) -> tuple[list[Reference], UsersUnknown | None]:
        try:
            route, base, records = await self._first_answer(UserKind.WORKFLOW, ("/workflows", "/flows"), budget)
        except UsersUnknown as error:
            return [], error
        known = [item for item in records if isinstance(item, dict) and is_id(item.get("id"))]
        unknown = None
        if len(known) < len(records):
            call = Call("GET", route)
            unknown = _unknown(UserKind.WORKFLOW, ApiGarbled(f"{call}: one has no id, or one that cannot be", call=call))
        contents = await asyncio.gather(*(self._definition(route, base, str(item["id"]), budget) for item in known))
        references = []
        for item, content in zip(known, contents, strict=True):
            if isinstance(content, UsersUnknown):
                unknown = unknown or content
            else:
                references.append(Reference(UserKind.WORKFLOW, str(item.get("name") or item["id"]), content))
        return references, unknown

    async def _definition(self, route: str, base: str, workflow_id: str, budget: _ByteBudget) -> Json | UsersUnknown:
        call = Call("GET", f"{route}/{{id}}/definition")
        async with self._definition_slots:
            try:
                return await self._read_within(ApiRequest(call, f"{route}/{workflow_id}/definition", base_url=base), budget)
            except ApiError as error:
                return _unknown(UserKind.WORKFLOW, error)

    async def _listed(self, kind: UserKind, route: str, budget: _ByteBudget) -> tuple[list[Reference], UsersUnknown | None]:
        try:
            _, _, records = await self._first_answer(kind, (route,), budget)
        except UsersUnknown as error:
            return [], error
        return [Reference(kind, _title(record), record) for record in records], None

    async def _first_answer(self, kind: UserKind, routes: Sequence[str], budget: _ByteBudget) -> tuple[str, str, list[Json]]:
        """Return the first route that one of the bases knows, that base, and the complete list."""
        bases = dict.fromkeys((platform_base(self._transport.base_url), self._transport.base_url))
        failure: ApiError | None = None
        for route in routes:
            for base in bases:
                try:
                    request = ApiRequest(Call("GET", route), route, base_url=base)
                    return route, base, await self._pages(request, budget, lambda record: record, until_empty=True)
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


class _PagesAhead:
    """Reads the pages of a list, several at the same time.

    ``read`` reads one, which may take what is left of the budget, divided by its last argument.
    """

    def __init__(
        self,
        read: Callable[[ApiRequest, _ByteBudget, int], Coroutine[Any, Any, Json]],
        request: ApiRequest,
        budget: _ByteBudget,
    ) -> None:
        self._read = read
        self._request = request
        self._budget = budget
        self._reading: deque[asyncio.Task[Json]] = deque()
        self._alone = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for every page, before an error is raised: to cancel a request would cost the pool a connection."""
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            for task in self._reading:
                task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def answer(self, number: int, last: int) -> Json:
        """Return the answer of the next page, which is ``number``; those after it are read meanwhile, as far as ``last``.

        Together they take no more memory than one: each may have its share of what is left. A larger one is read again, alone.
        """
        if not self._reading:
            count = max(1, min(last - number + 1, PAGES_AT_ONCE))
            self._alone = count == 1
            pages = [self._read(self._page(number + each), self._budget, count) for each in range(count)]
            self._reading.extend(map(asyncio.ensure_future, pages))
        try:
            return await self._reading.popleft()
        except AnswerTooLarge:
            if self._alone:
                raise
            await asyncio.gather(*self._reading, return_exceptions=True)
            return await self._read(self._page(number), self._budget, 1)

    def _page(self, number: int) -> ApiRequest:
        return replace(self._request, query={"page": str(number), "per_page": str(PAGE_SIZE), "limit": str(PAGE_SIZE)})


def _parsed(records: Iterable[Json], parse: Callable[[Json], _Record]) -> Generator[None, None, list[_Record]]:
    """Return the parsed records, and pause after each."""
    found = []
    for record in records:
        found.append(parse(record))
        yield
    return found


class _ByteBudget:
    """The bytes that may still be read of several answers together, and how many answers there were.

    ``digest`` is that of all of them in any order, since the same pages hold the same records.
    """

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit
        self._digests: list[bytes] = []

    @property
    def answers(self) -> int:
        """The number of answers."""
        return len(self._digests)

    @property
    def digest(self) -> str:
        """The digest of all answers, in hexadecimal digits."""
        return hashlib.blake2b(b"".join(sorted(self._digests)), digest_size=16).hexdigest()

    def take(self, body: bytes) -> None:
        """Count an answer."""
        self.left -= len(body)
        self._digests.append(hashlib.blake2b(body).digest())

    def restart(self, left: int) -> None:
        """Forget the answers so far; ``left`` is what was left before them."""
        self.left = left
        self._digests.clear()


def _function(function_id: str) -> str:
    """Return the URL path of a function; raises `ApiGarbled` for an id that could lead to another path."""
    if not is_id(function_id):
        call = Call("GET", "/functions/{id}")
        raise ApiGarbled(
            f"an id that cannot be: {ascii(function_id)[:100]}", call=call, hint="Kapso's ids are letters, digits, - and _"
        )
    return f"/functions/{function_id}"


def _same(function_id: str, record: RemoteFunction, call: Call) -> RemoteFunction:
    if record.id != function_id:
        raise ApiGarbled(f"{call} answered with another function than the one that was asked for", call=call)
    return record


def _identity(record: Json) -> str:
    """Return what tells a record from those of other pages: its id, or all of it where it has none that can be."""
    if isinstance(record, dict) and is_id(record.get("id")):
        return str(record["id"])
    return code_hash(canonical_json(record))
