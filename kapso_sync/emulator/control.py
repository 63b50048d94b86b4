"""The control API below ``/_emulator/``: shows requests and state, and changes them behind the client's back.

It takes no key: who may use it is decided in `access`. No answer has a secret's value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from kapso_sync.emulator.access import ControlCheck
from kapso_sync.emulator.answers import show_function
from kapso_sync.emulator.deps import EmulatorDeps
from kapso_sync.emulator.faults import Rule, read_rules, show_rule
from kapso_sync.emulator.options import BehaviourInvalid, EmulatorError
from kapso_sync.emulator.records import Function
from kapso_sync.emulator.values import Json, JsonObject, dump_json, is_int, is_number, parse_json
from kapso_sync.emulator.world import EmulatedProject, NoSuch, Rejected, Unprocessable

Endpoint = Callable[[Request], Awaitable[Response]]


class Control:
    """The endpoints. ``rules`` are the fault rules that a reset restores."""

    def __init__(self, parts: EmulatorDeps, rules: Sequence[Rule]) -> None:
        self._world = parts.world
        self._faults = parts.faults
        self._limiter = parts.limiter
        self._log = parts.log
        self._hangs = parts.hangs
        self._deployer = parts.deployer
        self._rules = tuple(rules)

    def app(self, token: str) -> ASGIApp:
        """Return the application that serves the routes to who has the token."""
        return ControlCheck(Router(self._routes()), token)

    def _routes(self) -> list[Route]:
        return [
            Route(path, _guarded(endpoint), methods=[method])
            for method, path, endpoint in (
                ("GET", "/requests", self.get_requests),
                ("DELETE", "/requests", self.delete_requests),
                ("GET", "/state", self.get_state),
                ("GET", "/faults", self.get_faults),
                ("PUT", "/faults", self.put_faults),
                ("GET", "/behaviour", self.get_behaviour),
                ("PUT", "/behaviour", self.put_behaviour),
                ("GET", "/world", self.get_behaviour),
                ("PATCH", "/world", self.put_behaviour),
                ("POST", "/functions", self.post_function),
                ("PATCH", "/functions/{ref}", self.patch_function),
                ("DELETE", "/functions/{ref}", self.delete_function),
                ("POST", "/workflows", self.post_workflow),
                ("DELETE", "/workflows/{id}", self.delete_workflow),
                ("POST", "/whatsapp/flows", self.post_flow),
                ("POST", "/whatsapp/webhooks", self.post_webhook),
                ("POST", "/release", self.post_release),
                ("POST", "/reset", self.post_reset),
            )
        ]

    async def get_requests(self, request: Request) -> Response:
        """Return the request log; ``?since=SEQ`` omits entries up to that number."""
        since = request.query_params.get("since", "0")
        if not (since.isascii() and since.isdigit()):
            raise _Bad(f"since: expected a number, got {since!r}")
        entries = [entry.to_json() for entry in self._log.entries if entry.seq > int(since)]
        return self._json({"requests": list(entries)})

    async def delete_requests(self, _: Request) -> Response:
        """Empty the request log."""
        self._log.clear()
        return Response(status_code=204)

    async def get_state(self, request: Request) -> Response:
        """Return the whole state: functions with their running code and the names of their secrets, deployments, workflows."""
        world = self._world
        origin = str(request.base_url).rstrip("/").removesuffix("/_emulator")
        return self._json(
            {
                "project_id": world.project_id,
                "functions": [_show(item, world, origin) for item in world.functions.values()],
                "deployments": [item.to_document() for item in world.deployments],
                "workflows": [item.to_document() for item in world.workflows.values()],
                "flows": list(world.flows.values()),
                "webhooks": list(world.webhooks.values()),
                "hanging": self._hangs.waiting,
            }
        )

    async def get_faults(self, _: Request) -> Response:
        """Return the fault rules in force."""
        return self._json({"faults": [show_rule(rule) for rule in self._faults.rules]})

    async def put_faults(self, request: Request) -> Response:
        """Replace the fault rules: ``{"faults": [rule…]}``."""
        self._faults.replace(read_rules(await _body(request)))
        return await self.get_faults(request)

    async def get_behaviour(self, _: Request) -> Response:
        """Return the behaviour, with ``deploy_delay`` and ``quota``."""
        delay = self._world.deploy_delay
        shown: JsonObject = parse_json(dump_json(asdict(self._world.behaviour)))  # type: ignore[assignment]  # an object
        return self._json(
            shown | {"deploy_delay": list(delay) if isinstance(delay, tuple) else delay, "quota": self._world.quota}
        )

    async def put_behaviour(self, request: Request) -> Response:
        """Change the named parts of the behaviour; the others stay."""
        body = await _body(request)
        changes = {name: value for name, value in body.items() if name not in ("deploy_delay", "quota")}
        behaviour = self._world.behaviour.changed(changes)
        delay = _delay(body["deploy_delay"]) if "deploy_delay" in body else self._world.deploy_delay
        quota = _quota(body["quota"]) if "quota" in body else self._world.quota
        self._world.behaviour, self._world.deploy_delay, self._world.quota = behaviour, delay, quota
        return await self.get_behaviour(request)

    async def post_function(self, request: Request) -> Response:
        """Seed a function: ``{"function": {…, "id"?}, "deployed"?: bool, "secrets"?: {name: value}}``."""
        body = await _body(request)
        attributes = _object(body, "function")
        secrets = _object(body, "secrets", {})
        function_id = attributes.get("id")
        function = self._world.create(attributes, function_id=str(function_id) if function_id else None)
        self._world.seed_secrets(function, secrets)
        if body.get("deployed"):
            await self._deployer.deploy(function, delay=0.0)
        return self._json(_show(self._world.function(function.id), self._world, ""), 201)

    async def patch_function(self, request: Request) -> Response:
        """Edit a function as the dashboard would: ``{"function": {…}, "deploy"?: bool}``; the slug may change too."""
        body = await _body(request)
        function = self._world.function(request.path_params["ref"])
        self._world.update(function, _object(body, "function", {}), may_rename=True)
        if body.get("deploy"):
            await self._deployer.deploy(function)
        return self._json(_show(function, self._world, ""))

    async def delete_function(self, request: Request) -> Response:
        """Delete a function as the dashboard would."""
        self._world.delete(self._world.function(request.path_params["ref"]))
        return Response(status_code=204)

    async def post_workflow(self, request: Request) -> Response:
        """Seed a workflow: ``{"workflow": {"name": …, "definition": {"nodes": […]}}}``."""
        attributes = _object(await _body(request), "workflow")
        name, status = str(attributes.get("name", "Workflow")), str(attributes.get("status", "active"))
        workflow = self._world.add_workflow(name, _object(attributes, "definition"), status=status)
        return self._json(workflow.to_document(), 201)

    async def delete_workflow(self, request: Request) -> Response:
        """Delete a workflow as the dashboard would."""
        workflow = self._world.workflows.get(request.path_params["id"])
        if workflow is None:
            raise NoSuch
        self._world.drop_workflow(workflow)
        return Response(status_code=204)

    async def post_flow(self, request: Request) -> Response:
        """Seed a WhatsApp Flow: ``{"flow": {"name": …, "function_id"?: …, "url"?: …}}``."""
        flow = _object(await _body(request), "flow")
        function_id, url = (str(flow[name]) if flow.get(name) else None for name in ("function_id", "url"))
        return self._json(self._world.add_flow(str(flow.get("name", "Flow")), function_id, url=url), 201)

    async def post_webhook(self, request: Request) -> Response:
        """Seed a webhook: ``{"webhook": {"url": …, "phone_number_id"?: …}}``."""
        webhook = _object(await _body(request), "webhook")
        number = webhook.get("phone_number_id")
        return self._json(
            self._world.add_webhook(str(webhook.get("url")), phone_number_id=str(number) if number else None), 201
        )

    async def post_release(self, _: Request) -> Response:
        """Close the connections of all requests that hang."""
        return self._json({"released": self._hangs.release()})

    async def post_reset(self, _: Request) -> Response:
        """Reset to the start: an empty project, the first behaviour and faults, an empty log, a full rate limit."""
        self._hangs.release()
        self._world.reset()
        self._faults.replace(self._rules)
        self._limiter.reset()
        if self._deployer.runtime is not None:
            self._deployer.runtime.forget()
        self._log.clear()
        return Response(status_code=204)

    def _json(self, value: Json, status: int = 200) -> Response:
        return _json(self._world.secret_mask.json(value), status)


class _Bad(EmulatorError):
    """A control request that cannot be read."""


def _guarded(endpoint: Endpoint) -> Endpoint:
    async def serve(request: Request) -> Response:
        try:
            return await endpoint(request)
        except NoSuch:
            return _json({"error": "Not found"}, 404)
        except EmulatorError as error:
            return _json({"error": error.message, "hint": error.hint}, 400)
        except Unprocessable as error:
            return _json({"error": error.message}, 422)
        except Rejected as error:
            return _json({"errors": {name: list(messages) for name, messages in error.errors.items()}}, 422)

    return serve


def _json(value: Json, status: int = 200) -> Response:
    return Response(dump_json(value), status, media_type="application/json")


async def _body(request: Request) -> JsonObject:
    try:
        body = parse_json(await request.body())
    except ValueError as error:
        raise _Bad(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise _Bad("the body is not a JSON object")
    return body


def _object(body: JsonObject, name: str, default: JsonObject | None = None) -> JsonObject:
    value = body.get(name, default)
    if not isinstance(value, dict):
        raise _Bad(f"{name}: expected an object, got {'nothing' if value is None else type(value).__name__}")
    return value


def _delay(value: Json) -> float | tuple[float, float]:
    if is_number(value) and value >= 0:
        return value
    if isinstance(value, list) and len(value) == 2:
        low, high = value
        if is_number(low) and is_number(high) and 0 <= low <= high:
            return low, high
    raise BehaviourInvalid(f"behaviour deploy_delay: expected seconds, or a range such as [10, 60], got {value!r}")


def _quota(value: Json) -> int | None:
    if value is None or (is_int(value) and value >= 0):
        return value
    raise BehaviourInvalid(f"behaviour quota: expected a whole number or null, got {value!r}")


def _show(function: Function, world: EmulatedProject, origin: str) -> JsonObject:
    return show_function(function, world, origin) | {
        "live_code": function.live_code,
        "live_fields": function.live_fields,
        "failure": function.failure,
        "secrets": function.described_secrets(),
    }
