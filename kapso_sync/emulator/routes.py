"""Implements the routes of the Functions API. Source: Kapso's public documentation, and public code that uses the API.

There are two bases. The older one updates with ``PUT`` and ``PATCH`` and answers a deployment with 200; the Platform API
updates with ``PATCH`` alone and answers 202.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from kapso_sync.emulator.answers import (
    Answer,
    data_answer,
    error_answer,
    json_answer,
    list_answer,
    paged_answer,
    positive,
    show_function,
)
from kapso_sync.emulator.deps import Deployer
from kapso_sync.emulator.faults import ROUTES, Rule
from kapso_sync.emulator.records import CLOUDFLARE, Function, Live
from kapso_sync.emulator.runtime import Call, Result
from kapso_sync.emulator.values import Json, JsonObject, dump_json, parse_json
from kapso_sync.emulator.world import NOT_DEPLOYED, Conflict, EmulatedProject, NoSuch, Rejected, Unprocessable

OLDER_BASE = "/api/v1"
PLATFORM_BASE = "/platform/v1"

INVOKE = "/functions/{id}/invoke"
REFERENCE_ROUTES = ("/workflows", "/flows", "/whatsapp")
"""Routes that list the users of functions."""
MAX_INVOCATIONS = 20
"""Maximum number of invocations in one answer."""

NO_CODE_RUNS = "This emulator does not run code"
NO_DENO = "This emulator does not run Supabase functions"
NOT_FOR_FUNCTIONS = ("x-api-key", "host", "connection", "content-length", "transfer-encoding")
"""Headers of an invoke request that the function does not get: the caller's key, and those of the connection."""

_PATTERNS = [(route, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route) + r"\Z")) for route in ROUTES]


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed path: the base, the template below it (None for an unknown path), and its parameters."""

    base: str | None
    template: str | None
    params: Mapping[str, str]


def find_route(path: str) -> Route:
    """Return the route of a path."""
    base = next((base for base in (OLDER_BASE, PLATFORM_BASE) if path.startswith(base + "/")), None)
    if base is not None:
        for template, pattern in _PATTERNS:
            match = pattern.match(path, len(base))
            if match:
                return Route(base, template, match.groupdict())
    return Route(base, None, {})


@dataclass(frozen=True, slots=True)
class Asking:
    """One request to the Functions API, read but not checked yet.

    ``url`` is its URL, and ``origin`` the scheme and host of that; the names of ``headers`` are in lower case.
    """

    method: str
    route: Route
    query: Mapping[str, str]
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    key_ok: bool
    url: str
    origin: str

    @property
    def json(self) -> Json:
        """The body as JSON, or None."""
        try:
            return parse_json(self.body)
        except ValueError:
            return None

    @property
    def recorded(self) -> Json:
        """The body as the record of an invocation shows it: JSON, or the text; None without a body."""
        return _value(self.body) if self.body else None

    def wrapped(self, name: str) -> JsonObject:
        """Return the attributes below ``name``; raises BadRequest if there are none."""
        try:
            body = parse_json(self.body)
        except ValueError as error:
            raise BadRequest(f"Request body is not valid JSON: {error}") from None
        attributes = body.get(name) if isinstance(body, dict) else None
        if not isinstance(attributes, dict) or not attributes:
            raise BadRequest(f"param is missing or the value is empty: {name}")
        return attributes


class BadRequest(Exception):
    """The request is malformed; ``message`` says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


Handler = Callable[[Asking, Rule | None], Awaitable[Answer]]


class FunctionsApi:
    """Answers the requests to the Functions API, on both bases."""

    def __init__(self, world: EmulatedProject, deployer: Deployer) -> None:
        self._world = world
        self._deployer = deployer
        self._handlers: dict[str, dict[str, Handler]] = {
            "/functions": {"GET": self._list, "POST": self._create},
            "/functions/{id}": {"GET": self._get, "PATCH": self._update, "PUT": self._update, "DELETE": self._delete},
            "/functions/{id}/deploy": {"POST": self._deploy},
            INVOKE: {"POST": self._invoke},
            "/functions/{id}/secrets": {"GET": self._list_secrets, "POST": self._set_secret},
            "/functions/{id}/secrets/{name}": {"DELETE": self._drop_secret},
            "/functions/{id}/invocations": {"GET": self._list_invocations},
            "/workflows": {"GET": self._list_workflows},
            "/workflows/{id}/definition": {"GET": self._get_definition},
            "/flows": {"GET": self._list_workflows},
            "/flows/{id}/definition": {"GET": self._get_definition},
            "/whatsapp/flows": {"GET": self._list_flows},
            "/whatsapp/flows/{id}/data_endpoint": {"PATCH": self._attach_flow},
            "/whatsapp/webhooks": {"GET": self._list_webhooks},
        }

    async def answer(self, asking: Asking, fault: Rule | None = None) -> Answer:
        """Handle a request and return its answer. ``fault`` may change the list or the deployment that results."""
        template = asking.route.template
        if not asking.key_ok and template != INVOKE:
            return error_answer(401, "Invalid or missing API key")
        if template is None:
            return error_answer(404, "Not found")
        handlers = self._handlers[template]
        methods = [name for name in handlers if name != "PUT" or asking.route.base == OLDER_BASE]
        if asking.method not in methods:
            return json_answer(405, {"error": "Method not allowed"}, {"Allow": ", ".join(methods)})
        refusal = self._refused(asking, template)
        if refusal is not None:
            return refusal
        try:
            return await handlers[asking.method](asking, fault)
        except (NoSuch, Conflict, BadRequest, Unprocessable, Rejected) as error:
            return self._error(asking, error)

    def _error(self, asking: Asking, error: Exception) -> Answer:
        match error:
            case Conflict():
                return error_answer(409, "Attempted to update a stale object")
            case BadRequest():
                return error_answer(400, error.message)
            case Unprocessable():
                return error_answer(422, f"{error.message}{self._quote(asking)}")
            case Rejected():
                quote = self._quote(asking)
                errors: JsonObject = {name: [f"{text}{quote}" for text in texts] for name, texts in error.errors.items()}
                return json_answer(422, {"errors": errors})
            case _:
                return error_answer(404, "Not found")

    def _refused(self, asking: Asking, template: str) -> Answer | None:
        """Return this world's answer to a request that it refuses at once, or None."""
        behaviour = self._world.behaviour
        agent = asking.headers.get("user-agent", "")
        if behaviour.blocked_user_agents and re.search(behaviour.blocked_user_agents, agent):
            return Answer(403, b"error code: 1010", "text/plain; charset=UTF-8")
        if behaviour.secret_routes_fail and "/secrets" in template:
            return Answer(502, b"<html><head><title>502 Bad Gateway</title></head></html>", "text/html")
        if template.startswith(REFERENCE_ROUTES) and asking.route.base == OLDER_BASE and not self._on_older_base(template):
            return error_answer(404, "Not found")
        if template == "/functions/{id}" and asking.method in ("PUT", "PATCH") and asking.route.base == OLDER_BASE:
            return None if behaviour.older_update in ("both", asking.method) else error_answer(404, "Not found")
        return None

    def _on_older_base(self, template: str) -> bool:
        return self._world.behaviour.references_on == "both" or template.startswith("/flows")

    def _quote(self, asking: Asking) -> str:
        return f": {asking.body.decode('utf-8', 'replace')}" if self._world.behaviour.errors_quote else ""

    async def _list(self, asking: Asking, fault: Rule | None) -> Answer:
        world = self._world
        return list_answer(
            list(world.functions.values()),
            asking.query,
            world.behaviour,
            lambda item: show_function(item, world, asking.origin, code=world.behaviour.list_code),
            fault.what if fault else None,
        )

    async def _create(self, asking: Asking, _: Rule | None) -> Answer:
        function = self._world.create(asking.wrapped("function"), api=True)
        return data_answer(201, show_function(function, self._world, asking.origin), self._world.behaviour)

    async def _get(self, asking: Asking, _: Rule | None) -> Answer:
        function = self._world.by_id(asking.route.params["id"])
        return data_answer(200, show_function(function, self._world, asking.origin), self._world.behaviour)

    async def _update(self, asking: Asking, _: Rule | None) -> Answer:
        function = self._world.by_id(asking.route.params["id"])
        self._world.update(function, asking.wrapped("function"), api=True)
        return data_answer(200, show_function(function, self._world, asking.origin), self._world.behaviour)

    async def _delete(self, asking: Asking, _: Rule | None) -> Answer:
        self._world.delete(self._world.by_id(asking.route.params["id"]))
        return Answer(204)

    async def _deploy(self, asking: Asking, fault: Rule | None) -> Answer:
        function = self._world.by_id(asking.route.params["id"])
        what = fault.what if fault else None
        failure = fault.message if fault and what == "deploy_fails" else None
        await self._deployer.deploy(function, failure=failure, ends=what != "deploy_hangs")
        return json_answer(
            200 if asking.route.base == OLDER_BASE else 202,
            {"message": "Function deployment initiated", "function_id": function.id, "status": "deploying"},
        )

    async def _invoke(self, asking: Asking, _: Rule | None) -> Answer:
        function = self._world.by_id(asking.route.params["id"])
        live = self._world.serving(function)
        fields = live.fields if live else function.deployable_fields()
        if not asking.key_ok and not fields["public_endpoint"]:
            raise NoSuch
        if live is None:
            raise Unprocessable(NOT_DEPLOYED)
        runtime = self._deployer.runtime
        if runtime is None or live.fields["function_type"] != CLOUDFLARE:
            self._world.record_invocation(function, asking.recorded, 501)
            return error_answer(501, NO_CODE_RUNS if runtime is None else NO_DENO)
        call = Call(
            function_id=function.id,
            slug=function.slug,
            deployment=live.deployment,
            code=live.code,
            fields=live.fields,
            secrets={
                name: value if isinstance(value, str) else dump_json(value).decode() for name, value in function.secrets.items()
            },
            url=asking.url,
            headers={name: value for name, value in asking.headers.items() if self._reaches(name)},
            body=asking.body,
            ctx=self._world.behaviour.handler_ctx,
        )
        started = time.monotonic()
        result = await runtime.run(call)
        return self._invoked(asking, function, live, result, round((time.monotonic() - started) * 1000))

    def _reaches(self, header: str) -> bool:
        """Return whether the function gets a header of an invocation."""
        if not self._world.behaviour.invoke_headers:
            return header == "content-type"
        return header not in NOT_FOR_FUNCTIONS

    def _invoked(self, asking: Asking, function: Function, live: Live, result: Result, duration_ms: int) -> Answer:
        """Record an invocation and return its answer for the caller."""
        good = 200 <= result.status < 300 and not result.failed
        value = _value(result.body)
        error = (
            None
            if good
            else str(value.get("error"))
            if result.failed and isinstance(value, dict)
            else f"status {result.status}"
        )
        record = self._world.record_invocation(
            function,
            asking.recorded,
            result.status,
            response=value,
            error=error,
            duration_ms=duration_ms,
            console=result.console,
        )
        if not good and self._world.behaviour.invoke_failure == "envelope":
            envelope: JsonObject = {"error": "Function invocation failed", "detail": error, "invocation_id": record.id}
            return Answer(500, dump_json(envelope), console=result.console)
        if result.failed or live.fields["invoke_response_mode"] == "passthrough":
            return Answer(result.status, result.body, result.content_type, console=result.console)
        return Answer(result.status, dump_json({"data": value}), console=result.console)

    async def _list_secrets(self, asking: Asking, _: Rule | None) -> Answer:
        function = self._world.by_id(asking.route.params["id"])
        shown: list[Json] = [{"name": name, "type": kind} for name, kind in self._world.listed_secrets(function).items()]
        as_object = self._world.behaviour.secrets_shape == "object"
        return data_answer(200, {"secrets": shown} if as_object else shown, self._world.behaviour)

    async def _set_secret(self, asking: Asking, _: Rule | None) -> Answer:
        function = self._world.by_id(asking.route.params["id"])
        secret = asking.wrapped("secret")
        self._world.set_secret(function, secret.get("name"), secret.get("value"))
        return json_answer(201, {"message": "Secret created successfully"})

    async def _drop_secret(self, asking: Asking, _: Rule | None) -> Answer:
        function = self._world.by_id(asking.route.params["id"])
        self._world.delete_secret(function, asking.route.params["name"])
        return Answer(204)

    async def _list_invocations(self, asking: Asking, _: Rule | None) -> Answer:
        function = self._world.by_id(asking.route.params["id"])
        status = asking.query.get("status")
        limit = min(positive(asking.query.get("limit")) or 10, MAX_INVOCATIONS)
        items = [
            item
            for item in self._world.invocations(function.id)
            if status not in _SUCCEEDED or item.succeeded is _SUCCEEDED[status]
        ]
        shown: list[Json] = [item.shown() for item in items[:limit]]
        known: JsonObject = {"function_id": function.id, "function_name": function.name, "total": len(shown)}
        return data_answer(200, known | {"invocations": shown}, self._world.behaviour)

    async def _list_workflows(self, asking: Asking, fault: Rule | None) -> Answer:
        self._require_workflows(asking)
        workflows = sorted(self._world.workflows.values(), key=lambda item: item.created_at, reverse=True)
        return list_answer(
            workflows, asking.query, self._world.behaviour, lambda item: item.shown(), fault.what if fault else None
        )

    async def _get_definition(self, asking: Asking, _: Rule | None) -> Answer:
        self._require_workflows(asking)
        workflow = self._world.workflows.get(asking.route.params["id"])
        if workflow is None:
            raise NoSuch
        return data_answer(200, {"id": workflow.id, "definition": workflow.definition}, self._world.behaviour)

    def _require_workflows(self, asking: Asking) -> None:
        if not (asking.route.template or "").startswith(f"/{self._world.behaviour.workflows}"):
            raise NoSuch

    async def _list_flows(self, asking: Asking, fault: Rule | None) -> Answer:
        return self._list_of_whatsapp(asking, list(self._world.flows.values()), fault)

    async def _list_webhooks(self, asking: Asking, fault: Rule | None) -> Answer:
        return self._list_of_whatsapp(asking, list(self._world.webhooks.values()), fault)

    def _list_of_whatsapp(self, asking: Asking, items: list[JsonObject], fault: Rule | None) -> Answer:
        if not self._world.behaviour.whatsapp:
            raise NoSuch
        return paged_answer(items, asking.query, self._world.behaviour, fault.what if fault else None)

    async def _attach_flow(self, asking: Asking, _: Rule | None) -> Answer:
        body = asking.json
        function_id = body.get("function_id") if isinstance(body, dict) else None
        flow = self._world.attach_flow(asking.route.params["id"], str(function_id))
        trouble: JsonObject = {} if self._world.behaviour.flow_republish else {"warning": "The Flow could not be republished."}
        return data_answer(200, flow | trouble, self._world.behaviour)


_SUCCEEDED = {"success": True, "failed": False}


def _value(body: bytes) -> Json:
    try:
        return parse_json(body)
    except ValueError:
        return body.decode("utf-8", "replace")
