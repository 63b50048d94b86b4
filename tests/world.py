"""Kapso in memory, on a clock that tests turn: the emulator's world behind the port that the reconciler talks to.

Every call may be cut: the process dies before the call acts or after it did, or the answer is lost.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping, Sequence

from kapso_sync.api.references import Reference, users_in
from kapso_sync.api.wire import parse_flow, parse_function, parse_invocations, parse_list
from kapso_sync.emulator.answers import show_function
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from kapso_sync.emulator.records import TAKEN, Function
from kapso_sync.emulator.storage import MemoryStorage
from kapso_sync.emulator.world import Conflict, EmulatedProject, NoSuch, Rejected, Unprocessable
from kapso_sync.errors import ApiConflict, ApiNotFound, ApiRejected, ApiUnavailable, Call, LockVersionRefused, SecretNameTaken
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import (
    CallBudget,
    FunctionList,
    Invocation,
    InvocationRecord,
    InvokeRequest,
    RemoteFunction,
    RemoteSecret,
    SecretType,
)
from kapso_sync.model.json_values import Json
from kapso_sync.model.users import FoundUsers, UserKind, WhatsAppFlow

DEPLOY_SECONDS = 12.0


class Killed(BaseException):
    """The process died here."""


class Fate(enum.Enum):
    """What becomes of one call."""

    FINE = enum.auto()
    KILLED_BEFORE = enum.auto()
    KILLED_AFTER = enum.auto()
    LOST_BEFORE = enum.auto()
    LOST_AFTER = enum.auto()
    UNAVAILABLE = enum.auto()


def new_world(
    clock: Clock, behaviour: Behaviour | None = None, quota: int | None = None, project_id: str | None = None
) -> EmulatedProject:
    """An empty project with ids that count up."""
    ids = itertools.count(1)
    options = EmulatorOptions(deploy_delay=DEPLOY_SECONDS, behaviour=behaviour or Behaviour(), quota=quota)
    return EmulatedProject(
        options, clock=clock, storage=MemoryStorage(), new_id=lambda: f"id-{next(ids):04d}", project_id=project_id
    )


class WorldApi:
    """The Functions API over a world. ``fate`` decides each call by its number (from 1), method and route.

    ``runtime`` answers for the code that is live.
    """

    def __init__(
        self,
        world: EmulatedProject,
        fate: Callable[[int, str, str], Fate] = lambda *_: Fate.FINE,
        runtime: Callable[[Function], Invocation] = lambda function: Invocation(200, "", function.live_code or ""),
    ) -> None:
        self.world = world
        self.runtime = runtime
        self.takes_lock_version = True
        self.deploy: Callable[[Function], object] = world.deploy
        self.fate = fate
        self.log: list[tuple[str, str, str]] = []
        self.asked: list[InvokeRequest] = []

    @property
    def calls(self) -> int:
        return len(self.log)

    @property
    def budget(self) -> CallBudget:
        return CallBudget()

    def count(self, method: str, route: str) -> int:
        """How often a route was called."""
        return sum(1 for entry in self.log if entry[:2] == (method, route))

    @property
    def writes(self) -> list[tuple[str, str, str]]:
        return [entry for entry in self.log if entry[0] != "GET"]

    def _call(self, method: str, route: str, what: str, act: Callable[[], object]) -> object:
        self.log.append((method, route, what))
        call = Call(method, route)
        fate = self.fate(len(self.log), method, route)
        if fate is Fate.KILLED_BEFORE:
            raise Killed
        if fate in (Fate.LOST_BEFORE, Fate.UNAVAILABLE):
            status = 503 if fate is Fate.UNAVAILABLE else None
            raise ApiUnavailable("the connection broke", call=call, status=status)
        try:
            result = act()
        except NoSuch:
            raise ApiNotFound("answered 404", call=call, status=404) from None
        except Conflict:
            raise ApiConflict("stale lock_version", call=call, status=409) from None
        except Unprocessable as error:
            if "lock_version" in error.message:
                self.takes_lock_version = False
                raise LockVersionRefused(error.message, call=call, status=422) from None
            raise ApiRejected(error.message, call=call, status=422) from None
        except Rejected as error:
            taken = route == "/functions/{id}/secrets" and TAKEN in error.errors.get("name", ())
            kind = SecretNameTaken if taken else ApiRejected
            raise kind(str(error.errors), call=call, status=422) from None
        if fate is Fate.KILLED_AFTER:
            raise Killed
        if fate is Fate.LOST_AFTER:
            raise ApiUnavailable("the connection broke", call=call)
        return result

    def _record(self, method: str, route: str, what: str, act: Callable[[], Function]) -> RemoteFunction:
        result = self._call(method, route, what, lambda: show_function(act(), self.world, "http://kapso.test"))
        return parse_function(result, Call(method, route))  # type: ignore[arg-type]

    async def list_functions(self) -> tuple[RemoteFunction, ...]:
        code = self.world.behaviour.list_code
        shown = self._call(
            "GET",
            "/functions",
            "",
            lambda: [show_function(f, self.world, "http://kapso.test", code=code) for f in self.world.functions.values()],
        )
        assert isinstance(shown, list)
        return parse_list(shown, Call("GET", "/functions")).functions

    async def list_records(self) -> FunctionList:
        return FunctionList(await self.list_functions())

    async def get_function(self, function_id: str) -> RemoteFunction:
        return self._record("GET", "/functions/{id}", function_id, lambda: self.world.by_id(function_id))

    async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
        return self._record("POST", "/functions", str(payload.get("slug")), lambda: self.world.create(payload, api=True))

    async def update_function(
        self, function_id: str, payload: Mapping[str, Json], *, lock_version: int | None = None
    ) -> RemoteFunction:
        if lock_version is not None:
            payload = {**payload, "lock_version": lock_version}
        act: Callable[[], Function] = lambda: self.world.update(self.world.by_id(function_id), payload, api=True)  # noqa: E731
        return self._record("PATCH", "/functions/{id}", function_id, act)

    async def delete_function(self, function_id: str) -> None:
        self._call("DELETE", "/functions/{id}", function_id, lambda: self.world.delete(self.world.by_id(function_id)))

    async def deploy_function(self, function_id: str) -> None:
        self._call("POST", "/functions/{id}/deploy", function_id, lambda: self.deploy(self.world.by_id(function_id)))

    async def invoke_function(self, function_id: str, request: InvokeRequest, *, timeout: float) -> Invocation:  # noqa: ARG002
        self.asked.append(request)

        def act() -> Invocation:
            function = self.world.by_id(function_id)
            return self.runtime(function) if function.running else Invocation(422, "", '{"error": "Function is not deployed"}')

        return self._call("POST", "/functions/{id}/invoke", function_id, act)  # type: ignore[return-value]

    async def list_secrets(self, function_id: str) -> tuple[RemoteSecret, ...]:
        def act() -> tuple[RemoteSecret, ...]:
            listed = self.world.listed_secrets(self.world.by_id(function_id))
            return tuple(RemoteSecret(name, SecretType(kind)) for name, kind in listed.items())

        return self._call("GET", "/functions/{id}/secrets", function_id, act)  # type: ignore[return-value]

    async def set_secret(self, function_id: str, name: str, value: Json) -> None:
        act = lambda: self.world.set_secret(self.world.by_id(function_id), name, value)  # noqa: E731
        self._call("POST", "/functions/{id}/secrets", f"{function_id} {name}", act)

    async def delete_secret(self, function_id: str, name: str) -> None:
        act = lambda: self.world.delete_secret(self.world.by_id(function_id), name)  # noqa: E731
        self._call("DELETE", "/functions/{id}/secrets/{name}", f"{function_id} {name}", act)

    async def find_users(self, functions: Sequence[RemoteFunction]) -> FoundUsers:
        def act() -> FoundUsers:
            if self.world.behaviour.workflows == "none" or not self.world.behaviour.whatsapp:
                raise NoSuch
            documents = [
                *(Reference(UserKind.WORKFLOW, item.name, item.definition) for item in self.world.workflows.values()),
                *(Reference(UserKind.FLOW, str(item["name"]), item) for item in self.world.flows.values()),
                *(Reference(UserKind.WEBHOOK, str(item["url"]), item) for item in self.world.webhooks.values()),
            ]
            return FoundUsers(users_in(documents, functions))

        return self._call("GET", "/workflows", "", act)  # type: ignore[return-value]

    async def find_flow(self, flow_id: str) -> WhatsAppFlow | None:
        def act() -> WhatsAppFlow | None:
            flow = self.world.flows.get(flow_id)
            return None if flow is None else parse_flow(flow, flow_id)

        return self._call("GET", "/whatsapp/flows", "", act)  # type: ignore[return-value]

    async def attach_flow(self, flow_id: str, function_id: str) -> str | None:
        def act() -> str | None:
            self.world.attach_flow(flow_id, function_id)
            return None if self.world.behaviour.flow_republish else "The Flow could not be republished."

        return self._call("PATCH", "/whatsapp/flows/{id}/data_endpoint", function_id, act)  # type: ignore[return-value]

    async def list_invocations(
        self, function_id: str, *, limit: int = 10, status: str | None = None
    ) -> tuple[InvocationRecord, ...]:
        def act() -> tuple[InvocationRecord, ...]:
            records = self.world.invocations(self.world.by_id(function_id).id)
            asked = [item.shown() for item in records if status is None or item.succeeded == (status == "success")]
            return parse_invocations([*asked[:limit]], Call("GET", "/functions/{id}/invocations"))

        return self._call("GET", "/functions/{id}/invocations", function_id, act)  # type: ignore[return-value]
