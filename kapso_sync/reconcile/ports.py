"""What the reconciler needs of the world, as protocols: a source, the API, and memory that survives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from kapso_sync.model.functions import Invocation, Json, RemoteFunction, Version
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import Intent, Memory, Owned, QuotaRefusal


class Source(Protocol):
    """Where git's word comes from."""

    async def fetch(self) -> Snapshot:
        """Return one revision, read atomically; raises `SourceUnavailable`, `SourceMissing` or `InvalidSource`."""
        ...

    async def moved(self, *, keep: bool = True) -> bool:
        """Tell whether another revision is there than the last one read; with ``keep`` the next fetch goes by this look."""
        ...


class FunctionsApi(Protocol):
    """Kapso's Functions API; every method raises `ApiError`."""

    @property
    def calls(self) -> int:
        """How many requests were made so far, repeats included."""
        ...

    async def list_functions(self) -> tuple[RemoteFunction, ...]:
        """Return every function of the project."""
        ...

    async def get_function(self, function_id: str) -> RemoteFunction:
        """Return one function, code included."""
        ...

    async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
        """Create a draft. Never repeated once it may have been acted on."""
        ...

    async def update_function(self, function_id: str, payload: Mapping[str, Json]) -> RemoteFunction:
        """Save the given attributes; nothing is deployed by it."""
        ...

    async def delete_function(self, function_id: str) -> None:
        """Delete for ever, secrets included."""
        ...

    async def deploy_function(self, function_id: str) -> None:
        """Ask for a deployment; it runs in the background."""
        ...

    async def invoke_function(self, function_id: str, body: Json, *, patience: float) -> Invocation:
        """Call a function and return its own answer, whatever its status; ``patience`` in seconds."""
        ...

    async def list_secrets(self, function_id: str) -> tuple[str, ...]:
        """Return the names of a function's secrets; Kapso tells none while the function is not deployed."""
        ...

    async def workflow_references(self) -> Mapping[str, tuple[str, ...]] | None:
        """Return the workflows that use a function, by its id or slug; None where the API has no workflows."""
        ...


class Store(Protocol):
    """The state folder: one writer, every method durable when it returns; raises `StateUnusable`."""

    def recall(self) -> Memory:
        """Return everything remembered."""
        ...

    def settle(self, memory: Memory, closed: tuple[int, ...]) -> None:
        """Replace what is remembered of functions by ``memory`` and close the intents."""
        ...

    def begin(self, intent: Intent) -> int:
        """Open an intent and return its number."""
        ...

    def remember(self, *owned: Owned, closes: Sequence[int] = ()) -> None:
        """Keep functions' records, in place of any others of the same id or slug, and close intents, in one transaction."""
        ...

    def close(self, intent_id: int) -> None:
        """Close an intent whose write certainly did not happen."""
        ...

    def forget(self, function_id: str) -> None:
        """Drop a function's record."""
        ...

    def remember_quota(self, quota: QuotaRefusal | None) -> None:
        """Keep, or drop, what Kapso said of the project's quota."""
        ...

    def keep_version(self, remote: RemoteFunction) -> None:
        """Keep a record's code and fields as what ran before, in place of what was kept of this function."""
        ...

    def version(self, function_id: str) -> Version | None:
        """Return what ran before, or None where nothing is known of it."""
        ...

    def back_up(self, remote: RemoteFunction, reason: str, *, keep: bool) -> str:
        """Save a copy of a function and return its name; ``keep`` marks it as one that is never dropped."""
        ...
