"""The emulated project: its functions with their secrets and deployments, and its workflows; it has no HTTP code."""

from __future__ import annotations

import dataclasses
import random
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from kapso_sync.emulator.clock import Clock, rfc3339
from kapso_sync.emulator.deployments import Deployments
from kapso_sync.emulator.masking import SecretMask
from kapso_sync.emulator.options import EmulatorOptions
from kapso_sync.emulator.records import (
    BLANK,
    CLOUDFLARE,
    CLOUDFLARE_ONLY,
    INVALID,
    SECRET_NAME,
    TAKEN,
    Deployment,
    Errors,
    Function,
    Invocation,
    Live,
    Workflow,
    read_attributes,
    secret_type,
    slug_from,
)
from kapso_sync.emulator.storage import Storage
from kapso_sync.emulator.syntax import is_module, syntax_error
from kapso_sync.emulator.values import Json, JsonObject, dump_json

INVOCATIONS_KEPT = 200
ERROR_LENGTH = 512
"""Maximum length of an error that is kept with an invocation, in characters."""
NOT_DEPLOYED = "Function is not deployed"
TICK = timedelta(microseconds=1)


class NoSuch(Exception):
    """There is no such function, secret or workflow."""


class Unprocessable(Exception):
    """A rule forbids the change; ``message`` says which rule."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Rejected(Exception):
    """Some attributes are invalid; ``errors`` has the messages by attribute."""

    def __init__(self, errors: Errors) -> None:
        super().__init__(str(errors))
        self.errors = errors


class Conflict(Exception):
    """An update was sent with a ``lock_version`` that is not the newest."""


class EmulatedProject:
    """One emulated project; every access to it first ends the deployments that are due.

    ``behaviour``, ``deploy_delay`` and ``quota`` may be changed while the emulator runs. ``secret_mask`` knows all values of
    secrets. An example of a deployment's timing, with a ``deploy_delay`` of 5 seconds and nothing running in the background:

        12:00:00  `deploy`: the deployment keeps the present code, with ``ends_at`` 12:00:05
        12:00:03  `function`: the deployment is not due, so the former code and status stay
        12:00:09  `function`: the deployment is due; the status becomes "deployed", ``last_deployed_at`` is 12:00:05
    """

    def __init__(
        self,
        options: EmulatorOptions,
        *,
        clock: Clock,
        storage: Storage,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        draw: Callable[[float, float], float] = random.uniform,
        project_id: str | None = None,
    ) -> None:
        self._options = options
        self._clock = clock
        self._storage = storage
        self._new_id = new_id
        self._draw = draw
        self.behaviour = options.behaviour
        self.deploy_delay = options.deploy_delay
        self.quota = options.quota
        self.project_id, self.created_by_id = self._project(project_id)
        self._functions = {item.id: item for item in map(Function.from_document, storage.load("function"))}
        self.secret_mask = SecretMask()
        for function in self._functions.values():
            for value in function.secrets.values():
                self.secret_mask.learn(value)
        self._slugs = {item.slug: item.id for item in self._functions.values()}
        self._deployments = Deployments(storage)
        self._settling = threading.Lock()
        self._invocations: dict[str, list[Invocation]] = {}
        for document in storage.load("invocations"):
            items = [Invocation.from_document(item) for item in _objects(document["items"])]
            self._invocations[items[0].function_id] = items
        self.workflows = {item.id: item for item in map(Workflow.from_document, storage.load("workflow"))}
        self.flows = {str(item["id"]): item for item in storage.load("flow")}
        self.webhooks = {str(item["id"]): item for item in storage.load("webhook")}
        self.scripts = {str(item["name"]) for item in storage.load("script")}

    # Looking

    @property
    def functions(self) -> Mapping[str, Function]:
        """All functions by id, oldest first."""
        self._settle()
        return self._functions

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """The deployments in progress, oldest request first."""
        self._settle()
        return self._deployments.running

    def function(self, slug_or_id: str) -> Function:
        """Return a function by slug or id; raises NoSuch."""
        self._settle()
        function = self._functions.get(self._slugs.get(slug_or_id, slug_or_id))
        if function is None:
            raise NoSuch
        return function

    def by_id(self, function_id: str) -> Function:
        """Return a function by id alone, as the Functions API does; raises NoSuch."""
        try:
            return self.functions[function_id]
        except KeyError:
            raise NoSuch from None

    def live_code(self) -> dict[str, str | None]:
        """Return the code that really runs, by slug; None for a function that does not run."""
        return {item.slug: item.live_code for item in self.functions.values()}

    def serving(self, function: Function) -> Live | None:
        """Return the live code that answers an invocation of a function now, or None if it is not deployed."""
        return function.serving(self._clock.now())

    def invocations(self, function_id: str) -> list[Invocation]:
        """Return the recent invocations of a function, newest first."""
        return self._invocations.get(function_id, [])[::-1]

    # Changing

    def create(self, body: Mapping[str, Json], *, function_id: str | None = None, api: bool = False) -> Function:
        """Create a draft; a missing slug is made from the name. Raises Rejected.

        ``api``: by the API's rules, not the dashboard's.
        """
        self._settle()
        if api:
            body = self._taken_by_api(body, creating=True)
        values, errors = read_attributes({name: value for name, value in body.items() if name != "slug" or value})
        if api and self.behaviour.function_type_required and "function_type" not in values:
            errors["function_type"] = [BLANK]
        if api:
            errors |= self._too_long(values)
        errors |= {name: [BLANK] for name in ("name", "code") if name not in values}
        if "slug" not in values and "name" not in errors:
            values["slug"] = slug_from(str(values["name"]))
            if not values["slug"]:
                errors["slug"] = [BLANK]
        if function_id in self._functions:
            errors["id"] = [TAKEN]
        self._check(values, None, errors)
        now = self._clock.now()
        values["code"] = self._stored_code(str(values["code"]))
        function = Function(id=function_id or self._new_id(), created_at=now, updated_at=now, **values)  # type: ignore[arg-type]
        self._functions[function.id] = function
        self._slugs[function.slug] = function.id
        self._save(function)
        return function

    def update(
        self, function: Function, body: Mapping[str, Json], *, may_rename: bool | None = None, api: bool = False
    ) -> Function:
        """Save attributes; the live code does not change. Without a change, ``updated_at`` stays the same too.

        ``may_rename`` says if the slug may change; None: the behaviour decides. ``api``: by the API's rules, not the
        dashboard's. Raises Rejected, and Conflict for a stale ``lock_version``.
        """
        self._settle()
        if api:
            self._check_lock(function, body)
            self._check_function_type(function, body)
            body = self._taken_by_api(body, creating=False)
        if not (self.behaviour.slug_changes if may_rename is None else may_rename):
            body = {name: value for name, value in body.items() if name != "slug"}
        values, errors = read_attributes(body)
        if api:
            errors |= self._too_long(values)
        self._check(values, function, errors)
        if "code" in values:
            values["code"] = self._stored_code(str(values["code"]))
        changed = {name: value for name, value in values.items() if dump_json(getattr(function, name)) != dump_json(value)}
        if not changed:
            return function
        self._slugs.pop(function.slug)
        for name, value in changed.items():
            setattr(function, name, value)
        self._slugs[function.slug] = function.id
        function.lock_version += 1
        self._touch(function)
        return function

    def delete(self, function: Function) -> None:
        """Remove a function with its secrets and its script; its invocations stay, and workflows lose its id."""
        del self._functions[function.id]
        del self._slugs[function.slug]
        self._deployments.drop(function.id)
        self._storage.drop("function", function.id)
        if function.script is not None:
            self._drop_script(function.script)
        for workflow in [item for item in self.workflows.values() if function.id in dump_json(item.definition).decode()]:
            definition = _without_function(workflow.definition, function.id)
            self._keep_workflow(dataclasses.replace(workflow, definition=definition))

    def deploy(
        self,
        function: Function,
        *,
        delay: float | None = None,
        failure: str | None = None,
        ends: bool = True,
        held: bool = False,
    ) -> Deployment:
        """Start a deployment of the present code and fields; raises Unprocessable when the quota is used up.

        ``delay`` (in seconds) replaces the usual one; with ``failure`` the deployment ends with this error; with ``ends`` False
        it never ends. ``held``: a runtime calls `release` later and says if the code starts; otherwise only syntax is checked.
        """
        self._settle()
        over = self._over_quota(function) or self._over_cap(function)
        if over and self.behaviour.quota_answer == "refuse":
            raise Unprocessable(over)
        now = self._clock.now()
        deployment = Deployment(
            id=self._new_id(),
            function_id=function.id,
            code=function.code,
            fields=function.deployable_fields(),
            requested_at=now,
            ends_at=now + timedelta(seconds=self._delay() if delay is None else delay) if ends else None,
            failure=failure or over or self._style_failure(function) or (None if held else _syntax_failure(function)),
        )
        self._deployments.start(deployment, held=held)
        return deployment

    def release(self, deployment: Deployment, failure: str | None) -> None:
        """Let a held deployment end: with its own failure, else with ``failure``, else with success."""
        self._deployments.release(deployment, deployment.failure or failure, self._clock.now())

    def listed_secrets(self, function: Function) -> dict[str, str]:
        """Return the names of a function's secrets with their types; none while it does not run."""
        self._settle()
        if not function.running:
            return {}
        own = {name: secret_type(value) for name, value in function.secrets.items()}
        return dict.fromkeys(self.behaviour.inherited_secrets, "inherited") | own

    def set_secret(self, function: Function, name: Json, value: Json) -> None:
        """Set a secret of a deployed function; raises Unprocessable or Rejected."""
        self.secret_mask.learn(value)
        self._require_running(function)
        errors: Errors = {}
        if not isinstance(name, str) or not SECRET_NAME.match(name):
            errors["name"] = [INVALID]
        elif name in function.secrets and self.behaviour.post_of_existing == "refuse":
            errors["name"] = [TAKEN]
        if not isinstance(value, str | dict | list) or not value:
            errors["value"] = [BLANK]
        if errors:
            raise Rejected(errors)
        function.keep_secret(str(name), value, self._clock.now())
        self._save(function)

    def delete_secret(self, function: Function, name: str) -> None:
        """Remove a secret of a deployed function; raises Unprocessable or NoSuch."""
        self._require_running(function)
        if name not in function.secrets:
            raise NoSuch
        function.drop_secrets(name)
        self._save(function)

    def seed_secrets(self, function: Function, secrets: Mapping[str, Json]) -> None:
        """Give a function secrets, deployed or not."""
        for name, value in secrets.items():
            self.secret_mask.learn(value)
            function.keep_secret(name, value, self._clock.now())
        self._save(function)

    def record_invocation(  # noqa: PLR0913 - each is a column of the record
        self,
        function: Function,
        request: Json,
        status: int,
        *,
        response: Json = None,
        error: str | None = None,
        duration_ms: int = 0,
        console: Iterable[tuple[str, str]] = (),
    ) -> Invocation:
        """Record an invocation: the call, its answer, and the console output."""
        now = self._clock.now()
        invocation = Invocation(
            id=self._new_id(),
            function_id=function.id,
            status_code=status,
            duration_ms=duration_ms,
            request_body=request,
            response_body=response,
            error_message=error[:ERROR_LENGTH] if error else None,
            created_at=now,
            console_logs=tuple(
                {"level": level, "message": message, "logged_at": rfc3339(now), "stack": None} for level, message in console
            ),
        )
        items = self._invocations.setdefault(function.id, [])
        items.append(invocation)
        del items[:-INVOCATIONS_KEPT]
        self._storage.save("invocations", function.id, {"items": [item.to_document() for item in items]})
        return invocation

    def add_workflow(self, name: str, definition: JsonObject, *, status: str = "active") -> Workflow:
        """Add a workflow with its definition."""
        workflow = Workflow(self._new_id(), name, definition, self._clock.now(), status)
        self._keep_workflow(workflow)
        return workflow

    def drop_workflow(self, workflow: Workflow) -> None:
        """Remove a workflow."""
        del self.workflows[workflow.id]
        self._storage.drop("workflow", workflow.id)

    def _keep_workflow(self, workflow: Workflow) -> None:
        self.workflows[workflow.id] = workflow
        self._storage.save("workflow", workflow.id, workflow.to_document())

    def add_flow(self, name: str, function_id: str | None, *, url: str | None = None) -> JsonObject:
        """Add a WhatsApp Flow whose data endpoint is a function, by id or by URL."""
        flow: JsonObject = {"id": self._new_id(), "name": name, "status": "published", "has_data_endpoint": True}
        flow |= {"data_endpoint_function_id": function_id, "data_endpoint_url": url}
        self.flows[str(flow["id"])] = flow
        self._storage.save("flow", str(flow["id"]), flow)
        return flow

    def attach_flow(self, flow_id: str, function_id: str) -> JsonObject:
        """Let a WhatsApp Flow use another deployed function; raises NoSuch or Unprocessable."""
        flow = self.flows.get(flow_id)
        if flow is None:
            raise NoSuch
        self._require_running(self.by_id(function_id))
        flow["data_endpoint_function_id"] = function_id
        self._storage.save("flow", flow_id, flow)
        return flow

    def add_webhook(self, url: str, *, kind: str = "kapso", phone_number_id: str | None = None) -> JsonObject:
        """Add a webhook of the project, or of one of its numbers."""
        webhook: JsonObject = {"id": self._new_id(), "url": url, "active": True, "kind": kind}
        webhook |= {"phone_number_id": phone_number_id, "project_id": self.project_id}
        self.webhooks[str(webhook["id"])] = webhook
        self._storage.save("webhook", str(webhook["id"]), webhook)
        return webhook

    def reset(self) -> None:
        """Reset to an empty project with the first behaviour; the project's id stays."""
        self._storage.clear()
        self._storage.save("project", "project", {"id": self.project_id, "created_by_id": self.created_by_id})
        self._deployments.clear()
        for held in (self._functions, self._slugs, self._invocations, self.workflows, self.flows, self.webhooks):
            held.clear()
        self.scripts.clear()
        self.behaviour = self._options.behaviour
        self.deploy_delay = self._options.deploy_delay
        self.quota = self._options.quota

    # Inside

    def _project(self, given: str | None) -> tuple[str, str]:
        for document in self._storage.load("project"):
            return str(document["id"]), str(document["created_by_id"])
        project_id, created_by_id = given or self._new_id(), self._new_id()
        self._storage.save("project", "project", {"id": project_id, "created_by_id": created_by_id})
        return project_id, created_by_id

    def _settle(self) -> None:
        with self._settling:  # Who embeds the emulator may look from another thread than the server's.
            for ended_at, deployment in self._deployments.due(self._clock.now()):
                self._finish(self._functions[deployment.function_id], deployment, ended_at)
                self._deployments.end(deployment)

    def _finish(self, function: Function, deployment: Deployment, ended_at: datetime) -> None:
        moment = max(ended_at, function.updated_at + TICK)
        function.failure = deployment.failure
        if deployment.failure is None:
            self._keep_former(function, moment)
            function.status = "deployed"
            function.live_code, function.live_fields = deployment.code, deployment.fields
            function.live_deployment = deployment.id
            function.version += 1
            function.last_deployed_at = function.updated_at = moment
            self._deployed_script(function)
        else:
            function.status = "error"
            function.live_code = function.live_fields = function.live_deployment = function.former = None
            if self.behaviour.error_moves_updated_at:
                function.updated_at = moment
        self._save(function)

    def _deployed_script(self, function: Function) -> None:
        """Update the set of deployed scripts, and drop secrets if this behaviour drops them."""
        behaviour, script = self.behaviour, self._script_of(function)
        moved = function.script is not None and function.script != script
        if behaviour.secrets_on_deploy == "drop" or (moved and behaviour.slug_change_loses_secrets):
            function.drop_secrets(*function.secrets)
        if moved and function.script is not None and not behaviour.old_scripts_count:
            self._drop_script(function.script)
        function.script = script
        self.scripts.add(script)
        self._storage.save("script", script, {"name": script})
        function.lock_version += behaviour.lock_version == "deploy"

    def _drop_script(self, name: str) -> None:
        self.scripts.discard(name)
        self._storage.drop("script", name)

    def _script_of(self, function: Function) -> str:
        return f"prj-{self.project_id}__{function.slug}"

    def _over_cap(self, function: Function) -> str | None:
        cap, script = self.behaviour.script_cap, self._script_of(function)
        taken = self.scripts | {self._script_of(self._functions[item.function_id]) for item in self._deployments.running}
        if not cap or function.function_type != CLOUDFLARE or script in taken or len(taken) < cap:
            return None
        return f"This project already has {cap} distinct Worker scripts. Free projects can deploy up to {cap}."

    def _style_failure(self, function: Function) -> str | None:
        if function.function_type != CLOUDFLARE:
            return None
        module = is_module(function.code)
        broken = self.behaviour.module_code if module else self.behaviour.script_code
        return f"This world runs no {'modules' if module else 'scripts'}" if broken == "error" else None

    def _check_lock(self, function: Function, body: Mapping[str, Json]) -> None:
        if "lock_version" not in body or self.behaviour.lock_version == "absent":
            return
        if self.behaviour.lock_version == "refused":
            raise Unprocessable("lock_version is not permitted")
        if body["lock_version"] != function.lock_version:
            raise Conflict

    def _check_function_type(self, function: Function, body: Mapping[str, Json]) -> None:
        refused = self.behaviour.function_type_in_update == "refuse"
        if refused and body.get("function_type", function.function_type) != function.function_type:
            raise Rejected({"function_type": ["cannot be changed"]})

    def _taken_by_api(self, body: Mapping[str, Json], *, creating: bool) -> Mapping[str, Json]:
        """Return the attributes that the API accepts; it ignores the others without an error."""
        behaviour = self.behaviour
        dropped = set(behaviour.unknown_fields)
        if body.get("public_endpoint") is True and not behaviour.keeps_public_endpoint:
            dropped.add("public_endpoint")
        if not creating and behaviour.function_type_in_update == "ignore":
            dropped.add("function_type")
        if (creating and not behaviour.invoke_mode_in_create) or (
            body.get("invoke_response_mode") == "wrapped" and not behaviour.takes_wrapped
        ):
            dropped.add("invoke_response_mode")
        return {name: value for name, value in body.items() if name not in dropped}

    def _keep_former(self, function: Function, moment: datetime) -> None:
        former = function.serving(moment) if self.behaviour.edge_stale else None
        function.former = former.to_document() if former else None
        function.former_until = moment + timedelta(seconds=self.behaviour.edge_stale)

    def _check(self, values: Mapping[str, Json], function: Function | None, errors: Errors) -> None:
        slug = values.get("slug")
        owner = self._slugs.get(slug) if isinstance(slug, str) else None
        if owner is not None and (function is None or owner != function.id):
            errors["slug"] = [TAKEN]
        kind = values.get("function_type", function.function_type if function else CLOUDFLARE)
        public = values.get("public_endpoint", function.public_endpoint if function else False)
        if public is True and kind != CLOUDFLARE:
            errors["public_endpoint"] = [CLOUDFLARE_ONLY]
        if errors:
            raise Rejected(errors)

    def _too_long(self, values: Mapping[str, Json]) -> Errors:
        code = values.get("code")
        size = len(code.encode("utf-8", "surrogatepass")) if isinstance(code, str) else 0
        return {"code": ["is too long (maximum is 1 megabyte)"]} if size > self.behaviour.code_limit else {}

    def _stored_code(self, code: str) -> str:
        match self.behaviour.normalise_code:
            case "rstrip":
                return code.rstrip()
            case "newlines":
                return code.replace("\r\n", "\n")
            case _:
                return code

    def _over_quota(self, function: Function) -> str | None:
        if self.quota is None or function.running:
            return None
        taken = {item.id for item in self._functions.values() if item.running}
        taken |= {item.function_id for item in self._deployments.running if item.failure is None}
        if len(taken - {function.id}) < self.quota:
            return None
        return f"Worker limit reached: your plan allows {self.quota} deployed functions"

    def _delay(self) -> float:
        delay = self.deploy_delay
        return self._draw(*delay) if isinstance(delay, tuple) else delay

    def _require_running(self, function: Function) -> None:
        self._settle()
        if not function.running:
            raise Unprocessable(NOT_DEPLOYED)

    def _touch(self, function: Function) -> None:
        function.updated_at = max(self._clock.now(), function.updated_at + TICK)
        self._save(function)

    def _save(self, function: Function) -> None:
        self._storage.save("function", function.id, function.to_document())


def _syntax_failure(function: Function) -> str | None:
    """Return the code's syntax error, or None; Supabase runs TypeScript, which the JavaScript grammar cannot check."""
    return syntax_error(function.code) if function.function_type == CLOUDFLARE else None


def _without_function(value: Json, function_id: str) -> Any:
    """Return a definition in which the id of a deleted function is null."""
    if isinstance(value, dict):
        return {
            name: None if name == "function_id" and item == function_id else _without_function(item, function_id)
            for name, item in value.items()
        }
    return [_without_function(item, function_id) for item in value] if isinstance(value, list) else value


def _objects(value: Json) -> Iterable[JsonObject]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()
