"""Defines the protocols that the reconciler needs: a source, Kapso's API, and a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from kapso_sync.dataclass import dataclass
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import (
    CallBudget,
    FunctionList,
    Invocation,
    InvocationRecord,
    InvokeRequest,
    RemoteFunction,
    RemoteSecret,
    Version,
)
from kapso_sync.model.json_values import Json
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import (
    DeploymentWatch,
    Intent,
    InventoryRecord,
    MissingFunction,
    QuotaRefusal,
    ReconcilerState,
    RenameRecord,
)
from kapso_sync.model.users import FoundUsers, WhatsAppFlow


@dataclass(frozen=True, slots=True)
class LocalStart:
    """The result of starting code on this machine; ``error`` is the runtime's text, with positions in the code, or None."""

    error: str | None


StartLocally = Callable[[str, str], Awaitable[LocalStart | None]]
"""Starts a function's code, by slug, on this machine's runtime; it returns None where there is no runtime."""


class EvidenceCollector(Protocol):
    """Makes evidence of what is known of a failure, bounded and without secrets, with places in the source.

    ``file`` is the function's code there.
    """

    async def of_invocation(self, function: RemoteFunction, file: str, record: InvocationRecord) -> Evidence:
        """Return the evidence of an invocation of a function, whose record is that of its last deployment."""
        ...

    async def of_watched(self, function_id: str, slug: str, record: InvocationRecord) -> tuple[str, Evidence]:
        """Return an invocation's error in one line, and its evidence; the function is read if that is needed.

        Raises `NotLeading`.
        """
        ...

    async def of_start(self, slug: str, file: str, code: str, error: str) -> Evidence:
        """Return the evidence of code that did not start; ``error`` is the runtime's text, with places in ``code``."""
        ...


class Source(Protocol):
    """The source: a folder or a git repository."""

    async def fetch(self, on_transfer: Callable[[], None] = lambda: None) -> Snapshot:
        """Return one revision, read atomically; raises `SourceUnavailable`, `SourceMissing` or `InvalidSource`.

        ``on_transfer`` is called when a new revision begins to be transferred, which takes a while; never for one that has to
        be verified first.
        """
        ...

    async def moved(self, *, keep: bool = True) -> bool:
        """Return whether there is a newer revision than the last one read; with ``keep`` the next fetch returns it."""
        ...

    def forget(self) -> None:
        """Forget what `moved` has kept: the pass ended before it fetched, and the source may change until the next one."""
        ...


class FunctionsApi(Protocol):
    """Kapso's Functions API; every method raises `ApiError`."""

    @property
    def calls(self) -> int:
        """Number of requests so far, repeats included."""
        ...

    @property
    def takes_lock_version(self) -> bool:
        """Whether an update may send ``lock_version``; False once this base has refused it."""
        ...

    @property
    def budget(self) -> CallBudget:
        """What the list costs, and how many calls a second may be spent."""
        ...

    async def list_functions(self) -> tuple[RemoteFunction, ...]:
        """Return every function of the project; records that cannot be believed are left out."""
        ...

    async def list_records(self) -> FunctionList:
        """Return every function of the project, and the records that cannot be believed."""
        ...

    async def get_function(self, function_id: str) -> RemoteFunction:
        """Return one function, code included."""
        ...

    async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
        """Create a draft. Never repeated once it may have been acted on."""
        ...

    async def update_function(
        self, function_id: str, payload: Mapping[str, Json], *, lock_version: int | None = None
    ) -> RemoteFunction:
        """Save the given attributes; nothing is deployed.

        Raises `ApiConflict` when ``lock_version`` is not the newest, and `LockVersionRefused` when this base does not take it.
        """
        ...

    async def delete_function(self, function_id: str) -> None:
        """Delete a function and its secrets; this cannot be undone."""
        ...

    async def deploy_function(self, function_id: str) -> None:
        """Ask for a deployment; it runs in the background."""
        ...

    async def invoke_function(self, function_id: str, request: InvokeRequest, *, timeout: float) -> Invocation:
        """Call a function and return its own answer, whatever its status; ``timeout`` in seconds."""
        ...

    async def list_secrets(self, function_id: str) -> tuple[RemoteSecret, ...]:
        """Return the names of a function's secrets. An empty answer proves nothing for a draft or a function in ``error``."""
        ...

    async def set_secret(self, function_id: str, name: str, value: Json) -> None:
        """Set a deployed function's secret, text or JSON. Raises `SecretNameTaken` where Kapso does not replace one."""
        ...

    async def delete_secret(self, function_id: str, name: str) -> None:
        """Delete a secret of a deployed function."""
        ...

    async def find_users(self, functions: Sequence[RemoteFunction]) -> FoundUsers:
        """Return who uses each of the functions: workflows, WhatsApp Flows and webhooks, every list read to its end.

        If one kind of user cannot be read, the result says so: then no function may be called unused.
        """
        ...

    async def list_invocations(
        self, function_id: str, *, limit: int = 10, status: str | None = None
    ) -> tuple[InvocationRecord, ...]:
        """Return recent invocations, newest first; ``limit`` 1 to 20; ``status`` ``success`` or ``failed``, or both."""
        ...

    async def find_flow(self, flow_id: str) -> WhatsAppFlow | None:
        """Return a WhatsApp Flow, or None if there is no such Flow. Raises `UsersUnknown` where Flows cannot be listed."""
        ...

    async def attach_flow(self, flow_id: str, function_id: str) -> str | None:
        """Make a deployed function the data endpoint of a WhatsApp Flow; return Kapso's warning, if it has one."""
        ...


class Store(Protocol):
    """The state folder: one writer, every method durable when it returns; raises `StateUnusable`."""

    def load_state(self) -> ReconcilerState:
        """Return everything that the state folder holds."""
        ...

    def settle(self, state: ReconcilerState, closed: tuple[int, ...]) -> None:
        """Replace all inventory records by those of ``state``, and close the intents."""
        ...

    def begin(self, intent: Intent) -> int:
        """Open an intent and return its number."""
        ...

    def remember(self, *owned: InventoryRecord, closes: Sequence[int] = ()) -> None:
        """Keep functions' records, in place of any others of the same id or slug, and close intents, in one transaction."""
        ...

    def close(self, intent_id: int) -> None:
        """Close an intent; its write certainly did not happen."""
        ...

    def forget(self, function_id: str) -> None:
        """Drop a function's record."""
        ...

    def remember_quota(self, quota: QuotaRefusal | None) -> None:
        """Keep Kapso's refusal for the project's quota, or drop it (None)."""
        ...

    def learn(self, facts: ApiFacts) -> None:
        """Store the observed behaviour of this API base, for every source that uses it."""
        ...

    def remember_project(self, project_id: str) -> None:
        """Keep which project the API key opens: a key of another one is refused from then on."""
        ...

    def remember_renames(self, moves: Mapping[str, RenameRecord]) -> None:
        """Store the journal of each ``moved_from``."""
        ...

    def remember_missing(self, absences: Iterable[MissingFunction]) -> None:
        """Store the functions that git does not list, in place of those stored before."""
        ...

    def keep_version(self, remote: RemoteFunction) -> None:
        """Store a record's code and fields as the previous version, in place of the one stored before."""
        ...

    def version(self, function_id: str) -> Version | None:
        """Return the previous version, or None if there is none."""
        ...

    def watch(self, function_id: str) -> DeploymentWatch | None:
        """Return the watch of a function's deployment, or None if there is none."""
        ...

    def remember_watch(self, watch: DeploymentWatch, version: RemoteFunction | None = None) -> None:
        """Keep a watch in place of the function's last one; ``version`` is the record of what is watched, with its code."""
        ...

    def end_watch(self, function_id: str, *, proven: bool) -> None:
        """Forget a watch; what was ``proven`` by it becomes the previous version that a later one goes back to."""
        ...

    def back_up(self, remote: RemoteFunction, reason: str, *, keep: bool) -> str:
        """Save a copy of a function and return its name; ``keep`` marks it as one that is never dropped."""
        ...
