"""Decides from the users of a function whether it may be deleted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from kapso_sync.dataclass import dataclass
from kapso_sync.model.functions import InvocationRecord, RemoteFunction, code_hash
from kapso_sync.model.json_values import Json, canonical_json, parse_json_text
from kapso_sync.model.plan import Delete
from kapso_sync.model.state import InventoryRecord
from kapso_sync.model.users import FunctionUser, FunctionUsers, UserKind, is_named_in

CHECK_WINDOW = timedelta(minutes=10)
"""For this time after a deployment, an invocation with the request of one of its checks counts as that check."""


@dataclass(frozen=True, slots=True)
class FunctionUsage:
    """The use of one function: its users, and when it was last invoked.

    ``unknown`` is the reason why one of the calls gave no answer; then ``users`` and ``invoked_at`` may be incomplete.
    """

    users: tuple[FunctionUser, ...] = ()
    invoked_at: datetime | None = None
    unknown: str | None = None


def unused_functions(owned: Iterable[InventoryRecord], users: FunctionUsers) -> tuple[str, ...]:
    """Return the slugs of functions that were looked up and have no users, sorted."""
    return tuple(sorted(function.slug for function in owned if users.get(function.function_id) == ()))


def functions_that_name(function: RemoteFunction, others: Iterable[RemoteFunction]) -> tuple[FunctionUser, ...]:
    """Return the other functions that have this one's id, which is also in its URL, or its worker's address in their code."""
    return tuple(
        FunctionUser(UserKind.FUNCTION, other.slug)
        for other in others
        if other.id != function.id and other.code is not None and is_named_in(function, other.code.casefold())
    )


def upcoming_users(function: RemoteFunction, upcoming: Mapping[str, str]) -> tuple[FunctionUser, ...]:
    """Return the functions that will use this one: ``upcoming`` is the code that git wants, by slug."""
    return tuple(
        FunctionUser(UserKind.FUNCTION, slug)
        for slug, code in sorted(upcoming.items())
        if is_named_in(function, code.casefold())
    )


def last_invoked(records: Sequence[InvocationRecord], remote: RemoteFunction, owned: InventoryRecord | None) -> datetime | None:
    """Return the time of the last invocation, or None; invocations by our own checks do not count."""
    times = [
        record.created_at
        for record in records
        if record.created_at is not None and not _is_check(record, record.created_at, remote, owned)
    ]
    return max(times, default=None)


def _is_check(record: InvocationRecord, at: datetime, remote: RemoteFunction, owned: InventoryRecord | None) -> bool:
    deployed = remote.last_deployed_at
    if owned is None or deployed is None or not deployed <= at <= deployed + CHECK_WINDOW:
        return False
    return request_digest(record.request_body) in owned.check_requests


def request_digest(request: Json) -> str:
    """Return a digest of a request's JSON, the same whether Kapso shows it as JSON or as text."""
    return code_hash(canonical_json(parse_json_text(request) if isinstance(request, str) else request))


def reason_against_deletion(step: Delete, usage: FunctionUsage, now: datetime, idle: float) -> tuple[str, str] | None:
    """Return why a deletion is blocked and what to do, or None.

    A person who names the function overrides everything but a known user. ``idle`` is in seconds; 0 allows any invocation.
    """
    if usage.users:
        names = ", ".join(map(str, usage.users))
        return f"still used by {names}", "take the reference away first, or put the function back into git"
    if step.confirmed:
        return None
    override = f"`kapso-sync sync --delete {step.slug}` deletes it all the same"
    if usage.unknown is not None:
        return f"who uses it is not known: {usage.unknown}", f"the next pass tries again; {override}"
    if usage.invoked_at is not None and now - usage.invoked_at < timedelta(seconds=idle):
        return f"invoked at {usage.invoked_at:%Y-%m-%dT%H:%M:%SZ}, within KAPSO_SYNC_PRUNE_IDLE", override
    return None
