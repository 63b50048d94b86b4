"""The Functions API: a method for each endpoint."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence

from kapso_sync.api import wire
from kapso_sync.api.transport import Request, Transport
from kapso_sync.errors import ApiGarbled, ApiNotFound, ApiUnsupported, Call
from kapso_sync.model.functions import Invocation, InvocationRecord, Json, RemoteFunction, RemoteSecret
from kapso_sync.model.users import FunctionUser, FunctionUsers, UserKind

PAGE = 100
"""Records asked for in each page; larger pages are not documented."""

MOST_PAGES = 1000


class KapsoClient:
    """Kapso's Functions API; every method raises `ApiError`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._update_verbs = ["PATCH", "PUT"]

    @property
    def calls(self) -> int:
        """How many requests were sent so far, repeats included."""
        return self._transport.calls

    async def list_functions(self) -> tuple[RemoteFunction, ...]:
        """Return every function of the project.

        Raises `ApiGarbled` when pages are missing or do not end: half a list must never pass for the whole.
        """
        call = Call("GET", "/functions")
        records = await self._pages(call, "/functions")
        functions = {function.id: function for function in (wire.parse_function(record, call) for record in records)}
        return tuple(functions.values())

    async def _pages(self, call: Call, path: str) -> list[Json]:
        """Return the records of all pages; one more attempt is made when the list moved while it was read."""
        try:
            return await self._read_pages(call, path)
        except _Moved:
            try:
                return await self._read_pages(call, path)
            except _Moved as moved:
                raise ApiGarbled(f"{call}: {moved}", call=call, hint="the next pass reads the list again") from None

    async def _read_pages(self, call: Call, path: str) -> list[Json]:
        records: list[Json] = []
        seen: set[str] = set()
        for number in range(1, MOST_PAGES + 1):
            query = {"page": str(number), "per_page": str(PAGE), "limit": str(PAGE)}
            value = await self._transport.json(Request(call, path, query=query))
            page, paging = wire.parse_records(value, call), wire.parse_paging(value)
            fresh = [record for record in page if _identity(record) not in seen]
            missing = 0 if paging.total is None else paging.total - len(records) - len(fresh)
            if page and not fresh and missing <= 0:
                return records
            if len(fresh) < len(page):
                raise _Moved(f"page {number} repeats records of an earlier one")
            records += fresh
            seen |= {_identity(record) for record in fresh}
            more = paging.more(number)
            if missing <= 0 and not (len(page) >= PAGE if more is None and paging.total is None else more):
                return records
            if not page:
                raise _Moved(f"page {number} is empty, and more was announced")
        raise ApiGarbled(f"{call}: more than {MOST_PAGES} pages", call=call)

    async def get_function(self, function_id: str) -> RemoteFunction:
        """Return one function, code included."""
        call = Call("GET", "/functions/{id}")
        return wire.parse_function(await self._transport.json(Request(call, _function(function_id))), call)

    async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
        """Create a draft; never sent again once it may have been acted on."""
        call = Call("POST", "/functions")
        body = wire.encode_function(payload)
        return wire.parse_function(await self._transport.json(Request(call, "/functions", body, repeatable=False)), call)

    async def update_function(
        self, function_id: str, payload: Mapping[str, Json], *, lock_version: int | None = None
    ) -> RemoteFunction:
        """Save the given attributes. Of ``PATCH`` and ``PUT`` the one that this base knows is found out, and remembered."""
        if lock_version is not None:
            payload = {**payload, "lock_version": lock_version}
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
        return wire.parse_function(
            await self._transport.json(Request(call, _function(function_id), wire.encode_function(payload))), call
        )

    async def delete_function(self, function_id: str) -> None:
        """Delete for ever, secrets included."""
        await self._transport.send(Request(Call("DELETE", "/functions/{id}"), _function(function_id)))

    async def deploy_function(self, function_id: str) -> None:
        """Ask for a deployment of what is stored; it runs in the background, so asking twice does no harm."""
        await self._transport.send(Request(Call("POST", "/functions/{id}/deploy"), f"{_function(function_id)}/deploy"))

    async def invoke_function(self, function_id: str, body: Json, *, patience: float) -> Invocation:
        """Call a function and return its own answer, whatever its status; ``patience`` in seconds."""
        call = Call("POST", "/functions/{id}/invoke")
        request = Request(call, f"{_function(function_id)}/invoke", body, repeatable=False, deadline=patience)
        answer = await self._transport.once(request)
        return Invocation(answer.status, answer.headers.get("content-type", ""), answer.body.decode("utf-8", "replace"))

    async def list_secrets(self, function_id: str) -> tuple[RemoteSecret, ...]:
        """Return the names of a function's secrets; values are never shown. Empty while it is not deployed."""
        call = Call("GET", "/functions/{id}/secrets")
        value = await self._transport.json(Request(call, f"{_function(function_id)}/secrets"))
        return wire.parse_secrets(value, call)

    async def set_secret(self, function_id: str, name: str, value: Json) -> None:
        """Give a deployed function a secret that it does not have; never sent again once it may have been acted on."""
        body: Json = {"secret": {"name": name, "value": value}}
        request = Request(Call("POST", "/functions/{id}/secrets"), f"{_function(function_id)}/secrets", body, repeatable=False)
        await self._transport.send(request)

    async def drop_secret(self, function_id: str, name: str) -> None:
        """Take a secret from a deployed function."""
        path = f"{_function(function_id)}/secrets/{urllib.parse.quote(name, safe='')}"
        await self._transport.send(Request(Call("DELETE", "/functions/{id}/secrets/{name}"), path))

    async def find_users(self, functions: Sequence[RemoteFunction]) -> FunctionUsers:
        """Return who uses each of the functions; raises `ApiError` when one kind of user cannot be looked up."""
        references = await self.workflow_references()
        if references is None:
            raise ApiUnsupported("this API base shows no workflows", call=Call("GET", "/workflows"))
        return {
            function.id: tuple(
                FunctionUser(UserKind.WORKFLOW, name)
                for key in (function.id, function.slug, function.name)
                for name in references.get(key, ())
            )
            for function in functions
        }

    async def list_invocations(
        self, function_id: str, *, limit: int = 10, status: str | None = None
    ) -> tuple[InvocationRecord, ...]:
        """Return recent invocations, newest first; ``limit`` 1 to 20; ``status`` ``success`` or ``failed``, or both."""
        raise NotImplementedError

    async def workflow_references(self) -> Mapping[str, tuple[str, ...]] | None:
        """Return the names of the workflows that use a function, by its id, slug or name; None where there are no workflows.

        Which words a workflow's status knows is not documented: all but archived ones count.
        """
        call = Call("GET", "/workflows")
        try:
            workflows = await self._pages(call, "/workflows")
        except (ApiNotFound, ApiUnsupported):
            return None
        users: dict[str, list[str]] = {}
        for workflow in workflows:
            if not isinstance(workflow, dict) or not isinstance(workflow.get("id"), str):
                raise ApiGarbled(f"{call} answered with a workflow that has no id", call=call)
            if str(workflow.get("status")).lower() == "archived":
                continue
            name = str(workflow.get("name") or workflow["id"])
            for reference in await self._references(str(workflow["id"])):
                users.setdefault(reference, []).append(name)
        return {reference: tuple(dict.fromkeys(names)) for reference, names in users.items()}

    async def _references(self, workflow_id: str) -> set[str]:
        call = Call("GET", "/workflows/{id}/definition")
        value = await self._transport.json(Request(call, f"/workflows/{urllib.parse.quote(workflow_id, safe='')}/definition"))
        found: set[str] = set()
        pending: list[Json] = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, dict):
                names = ("function_id", "function_slug", "function_name")
                found |= {reference for name in names if isinstance(reference := item.get(name), str) and reference}
                pending += item.values()
            elif isinstance(item, list):
                pending += item
        return found


class _Moved(Exception):
    """The list changed while its pages were read, or a page is missing."""


def _function(function_id: str) -> str:
    return f"/functions/{urllib.parse.quote(function_id, safe='')}"


def _identity(record: Json) -> str:
    if isinstance(record, dict) and isinstance(record.get("id"), str):
        return str(record["id"])
    return repr(record)
