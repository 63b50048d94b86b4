"""Client of the Functions API: one method for each endpoint."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kapso_sync.api import wire
from kapso_sync.api.base_url import platform_base
from kapso_sync.api.envelope import require_about
from kapso_sync.api.pages import MAX_LIST_BYTES, ByteBudget, functions_request, read_pages, read_within
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
from kapso_sync.model.functions import (
    CallBudget,
    FunctionList,
    Invocation,
    InvocationRecord,
    InvokeRequest,
    RemoteFunction,
    RemoteSecret,
)
from kapso_sync.model.json_values import Json
from kapso_sync.model.names import is_id, is_secret_name
from kapso_sync.model.users import FoundUsers, UserKind, WhatsAppFlow

_MIB = 1024 * 1024
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

        Raises like `read_pages`.
        """
        request, budget = functions_request(), ByteBudget(MAX_LIST_BYTES)
        records = await read_pages(self._transport, request, budget, lambda record: wire.parse_record(record, request.call))
        self._list_calls = budget.answers
        return replace(wire.whole_list(records), digest=budget.digest)

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
        require_about(await self._transport.send(request), function_id, call)

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
        require_about(value, function_id, call)
        return wire.parse_secrets(value, call)

    async def set_secret(self, function_id: str, name: str, value: Json) -> None:
        """Set a secret of a deployed function; setting it twice does no harm.

        Raises `SecretNameTaken` if Kapso does not replace an existing secret. No error shows any text of the answer,
        because the answer may quote the value.
        """
        body: Json = {"secret": {"name": name, "value": value}}
        call, path = Call("POST", "/functions/{id}/secrets"), f"{_function(function_id)}/secrets"
        request = ApiRequest(call, path, body, quotes=False, max_bytes=MAX_RECORD_BYTES)
        require_about(await self._transport.send(request), function_id, call)

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
        require_about(value, function_id, call)
        return wire.parse_invocations(value, call)

    async def find_users(self, functions: Sequence[RemoteFunction]) -> FoundUsers:
        """Return the users of each function: workflows of any status, WhatsApp Flows and webhooks.

        The Platform API is asked first, even if another base is set, because only the Platform API shows all of them. For
        workflows the older route ``/flows`` is asked next. The result says so when one kind cannot be read completely (401,
        402, 403, 5xx, or 404 on every route and base), and still holds the users that were found.
        """
        budget = ByteBudget(MAX_USERS_BYTES)
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
        _, _, records = await self._first_answer(UserKind.FLOW, ("/whatsapp/flows",), ByteBudget(MAX_USERS_BYTES))
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

    async def _workflows(self, budget: ByteBudget) -> tuple[list[Reference], UsersUnknown | None]:
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

    async def _definition(self, route: str, base: str, workflow_id: str, budget: ByteBudget) -> Json | UsersUnknown:
        call = Call("GET", f"{route}/{{id}}/definition")
        async with self._definition_slots:
            try:
                return await read_within(
                    self._transport, ApiRequest(call, f"{route}/{workflow_id}/definition", base_url=base), budget
                )
            except ApiError as error:
                return _unknown(UserKind.WORKFLOW, error)

    async def _listed(self, kind: UserKind, route: str, budget: ByteBudget) -> tuple[list[Reference], UsersUnknown | None]:
        try:
            _, _, records = await self._first_answer(kind, (route,), budget)
        except UsersUnknown as error:
            return [], error
        return [Reference(kind, _title(record), record) for record in records], None

    async def _first_answer(self, kind: UserKind, routes: Sequence[str], budget: ByteBudget) -> tuple[str, str, list[Json]]:
        """Return the first route that one of the bases knows, that base, and the complete list."""
        bases = dict.fromkeys((platform_base(self._transport.base_url), self._transport.base_url))
        failure: ApiError | None = None
        for route in routes:
            for base in bases:
                try:
                    request = ApiRequest(Call("GET", route), route, base_url=base)
                    return (
                        route,
                        base,
                        await read_pages(self._transport, request, budget, lambda record: record, until_empty=True),
                    )
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
