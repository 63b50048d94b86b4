"""The project on the other side: its functions, their secrets and deployments, its workflows. Knows nothing of HTTP."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from kapso_sync.emulator import attributes as attrs
from kapso_sync.emulator.clock import Clock
from kapso_sync.emulator.deployments import Deployments
from kapso_sync.emulator.options import EmulatorOptions
from kapso_sync.emulator.records import CLOUDFLARE, Deployment, Function, Invocation, Live, Workflow
from kapso_sync.emulator.storage import Storage
from kapso_sync.emulator.syntax import syntax_error
from kapso_sync.emulator.values import Json, JsonObject, dump_json

INVOCATIONS_KEPT = 200
NOT_DEPLOYED = "Function is not deployed"
TICK = timedelta(microseconds=1)


class NoSuch(Exception):
    """There is no such function, secret or workflow."""


class Unprocessable(Exception):
    """A rule forbids it; ``message`` says which."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Rejected(Exception):
    """Some attributes are wrong; ``errors`` holds the messages by attribute."""

    def __init__(self, errors: attrs.Errors) -> None:
        super().__init__(str(errors))
        self.errors = errors


class World:
    """One project. Every look at it first lets the deployments end whose time has come.

    ``behaviour``, ``deploy_delay`` and ``quota`` may be changed while it runs.
    """

    def __init__(
        self,
        options: EmulatorOptions,
        *,
        clock: Clock,
        storage: Storage,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._options = options
        self._clock = clock
        self._storage = storage
        self._new_id = new_id
        self._draw = draw
        self.behaviour = options.behaviour
        self.deploy_delay = options.deploy_delay
        self.quota = options.quota
        self.project_id, self.created_by_id = self._project()
        self._functions = {item.id: item for item in map(Function.from_document, storage.load("function"))}
        self._slugs = {item.slug: item.id for item in self._functions.values()}
        self._deployments = Deployments(storage)
        self._invocations: dict[str, list[Invocation]] = {}
        for document in storage.load("invocations"):
            items = [Invocation.from_document(item) for item in _objects(document["items"])]
            self._invocations[items[0].function_id] = items
        self.workflows = {item.id: item for item in map(Workflow.from_document, storage.load("workflow"))}

    # Looking

    @property
    def functions(self) -> Mapping[str, Function]:
        """All functions by id, oldest first."""
        self._settle()
        return self._functions

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """The deployments under way, oldest request first."""
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
        """Return what answers an invocation of a function now, or None for one that is not deployed."""
        return function.serving(self._clock.now())

    def invocations(self, function_id: str) -> list[Invocation]:
        """Return the recent invocations of a function, newest first."""
        return self._invocations.get(function_id, [])[::-1]

    # Changing

    def create(self, body: Mapping[str, Json], *, function_id: str | None = None) -> Function:
        """Make a draft; a slug that is missing comes from the name. Raises Rejected."""
        self._settle()
        values, errors = attrs.read_attributes({name: value for name, value in body.items() if name != "slug" or value})
        errors |= {name: [attrs.BLANK] for name in ("name", "code") if name not in values}
        if "slug" not in values and "name" not in errors:
            values["slug"] = attrs.slug_from(str(values["name"]))
            if not values["slug"]:
                errors["slug"] = [attrs.BLANK]
        if function_id in self._functions:
            errors["id"] = [attrs.TAKEN]
        self._check(values, None, errors)
        now = self._clock.now()
        values["code"] = self._stored_code(str(values["code"]))
        function = Function(id=function_id or self._new_id(), created_at=now, updated_at=now, **values)  # type: ignore[arg-type]
        self._functions[function.id] = function
        self._slugs[function.slug] = function.id
        self._save(function)
        return function

    def update(self, function: Function, body: Mapping[str, Json], *, may_rename: bool | None = None) -> Function:
        """Save attributes; what runs stays as it is. Without a change, ``updated_at`` stays too. Raises Rejected.

        ``may_rename`` None leaves it to the behaviour whether a slug is taken.
        """
        self._settle()
        if not (self.behaviour.slug_changes if may_rename is None else may_rename):
            body = {name: value for name, value in body.items() if name != "slug"}
        values, errors = attrs.read_attributes(body)
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
        function.version += "code" in changed
        self._touch(function)
        return function

    def delete(self, function: Function) -> None:
        """Remove a function with its secrets, deployments and invocations."""
        del self._functions[function.id]
        del self._slugs[function.slug]
        self._deployments.drop(function.id)
        self._invocations.pop(function.id, None)
        self._storage.drop("function", function.id)
        self._storage.drop("invocations", function.id)

    def deploy(
        self,
        function: Function,
        *,
        delay: float | None = None,
        failure: str | None = None,
        ends: bool = True,
        held: bool = False,
    ) -> Deployment:
        """Begin a deployment of the code and fields as they are now; raises Unprocessable when the quota is used up.

        ``delay`` seconds instead of the usual ones; ``failure`` dooms it; ``ends`` False lets it run for ever.
        ``held``: a runtime says later, with `release`, whether the code starts; otherwise its syntax is all that is looked at.
        """
        self._settle()
        over = self._over_quota(function)
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
            failure=failure or over or (None if held else _syntax_failure(function)),
        )
        self._deployments.start(deployment, held=held)
        return deployment

    def release(self, deployment: Deployment, failure: str | None) -> None:
        """Let a deployment that was held end: as it was doomed to, with ``failure``, or well."""
        self._deployments.release(deployment, deployment.failure or failure, self._clock.now())

    def set_secret(self, function: Function, name: Json, value: Json) -> None:
        """Add a secret to a deployed function; raises Unprocessable or Rejected."""
        self._require_running(function)
        errors: attrs.Errors = {}
        if not isinstance(name, str) or not attrs.SECRET_NAME.match(name):
            errors["name"] = [attrs.INVALID]
        elif name in function.secrets:
            errors["name"] = [attrs.TAKEN]
        if not isinstance(value, str) or not value:
            errors["value"] = [attrs.BLANK]
        if errors:
            raise Rejected(errors)
        function.secrets[str(name)] = str(value)
        self._save(function)

    def drop_secret(self, function: Function, name: str) -> None:
        """Remove a secret of a deployed function; raises Unprocessable or NoSuch."""
        self._require_running(function)
        if name not in function.secrets:
            raise NoSuch
        del function.secrets[name]
        self._save(function)

    def seed_secrets(self, function: Function, secrets: Mapping[str, str]) -> None:
        """Give a function secrets, deployed or not."""
        function.secrets.update(secrets)
        self._save(function)

    def record_invocation(self, function: Function, request: Json, response_status: int) -> Invocation:
        """Remember that a function was called, and how it answered."""
        invocation = Invocation(
            id=self._new_id(),
            function_id=function.id,
            status="success" if response_status < 400 else "failed",
            response_status=response_status,
            request=request,
            created_at=self._clock.now(),
        )
        items = self._invocations.setdefault(function.id, [])
        items.append(invocation)
        del items[:-INVOCATIONS_KEPT]
        self._storage.save("invocations", function.id, {"items": [item.to_document() for item in items]})
        return invocation

    def add_workflow(self, name: str, definition: JsonObject) -> Workflow:
        """Add a workflow with its definition."""
        workflow = Workflow(self._new_id(), name, definition, self._clock.now())
        self.workflows[workflow.id] = workflow
        self._storage.save("workflow", workflow.id, workflow.to_document())
        return workflow

    def reset(self) -> None:
        """Go back to an empty project with the behaviour it started with; its id stays."""
        self._storage.clear()
        self._storage.save("project", "project", {"id": self.project_id, "created_by_id": self.created_by_id})
        self._deployments.clear()
        for held in (self._functions, self._slugs, self._invocations, self.workflows):
            held.clear()
        self.behaviour = self._options.behaviour
        self.deploy_delay = self._options.deploy_delay
        self.quota = self._options.quota

    # Inside

    def _project(self) -> tuple[str, str]:
        for document in self._storage.load("project"):
            return str(document["id"]), str(document["created_by_id"])
        project_id, created_by_id = self._new_id(), self._new_id()
        self._storage.save("project", "project", {"id": project_id, "created_by_id": created_by_id})
        return project_id, created_by_id

    def _settle(self) -> None:
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
            function.last_deployed_at = function.updated_at = moment
        else:
            function.status = "error"
            function.live_code = function.live_fields = function.live_deployment = function.former = None
            if self.behaviour.error_moves_updated_at:
                function.updated_at = moment
        self._save(function)

    def _keep_former(self, function: Function, moment: datetime) -> None:
        former = function.serving(moment) if self.behaviour.edge_stale else None
        function.former = former.to_document() if former else None
        function.former_until = moment + timedelta(seconds=self.behaviour.edge_stale)

    def _check(self, values: Mapping[str, Json], function: Function | None, errors: attrs.Errors) -> None:
        slug = values.get("slug")
        owner = self._slugs.get(slug) if isinstance(slug, str) else None
        if owner is not None and (function is None or owner != function.id):
            errors["slug"] = [attrs.TAKEN]
        kind = values.get("function_type", function.function_type if function else CLOUDFLARE)
        public = values.get("public_endpoint", function.public_endpoint if function else False)
        if public is True and kind != CLOUDFLARE:
            errors["public_endpoint"] = [attrs.CLOUDFLARE_ONLY]
        if errors:
            raise Rejected(errors)

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
    """Supabase runs TypeScript, which the JavaScript grammar cannot judge."""
    return syntax_error(function.code) if function.function_type == CLOUDFLARE else None


def _objects(value: Json) -> Iterable[JsonObject]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()
