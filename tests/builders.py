"""Short ways to say what a test is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from kapso_sync.errors import Location, Problem
from kapso_sync.model.desired import Desired, DesiredFunction, Entry, UnusableFunction
from kapso_sync.model.functions import CODE, Content, DeploymentStatus, RemoteFunction, code_hash
from kapso_sync.model.json_values import Json
from kapso_sync.model.ownership import mark_for
from kapso_sync.model.plan import Policy
from kapso_sync.model.policies import Contract, DriftPolicy, MaxDelete
from kapso_sync.model.source import Revision
from kapso_sync.model.state import Intent, InventoryRecord, LiveContent, ReconcilerState
from kapso_sync.reconcile.plan.comparison import runtime_content
from kapso_sync.reconcile.plan.guard import Limits
from kapso_sync.reconcile.plan.observed import stored_content

OWNER = "example.com/acme/flows"
POLICY = Policy(OWNER)
LIMITS = Limits(MaxDelete(25, percent=True))
DAWN = datetime(2026, 1, 1, tzinfo=UTC)
CODE_A = "async function handler() { return new Response('a'); }\n"
CODE_B = "async function handler() { return new Response('b'); }\n"


def moment(seconds: float) -> datetime:
    """A server time, so many seconds after dawn."""
    return DAWN + timedelta(seconds=seconds)


def want(
    slug: str,
    code: str = CODE_A,
    *,
    deploy: bool = True,
    protected: bool | None = None,
    drift: DriftPolicy | None = None,
    moved_from: str | tuple[str, ...] | None = None,
    **fields: Json,
) -> DesiredFunction:
    """A function that git wants."""
    entry = Entry(
        slug,
        f"{slug}.js",
        Location("manifest.yaml", 1, 1),
        fields,
        Contract.AUTO,
        deploy=deploy,
        protected=protected,
        drift=drift,
        moved_from=(moved_from,) if isinstance(moved_from, str) else moved_from,
    )
    return DesiredFunction(entry, code)


def unusable(slug: str, *, blocked: bool = False, moved_from: tuple[str, ...] | None = None) -> UnusableFunction:
    """A function whose code cannot be used."""
    problem = Problem("syntax", "syntax error", Location(f"{slug}.js", 3, 1))
    return UnusableFunction(slug, f"{slug}.js", (problem,), blocked, moved_from)


def desired(*functions: DesiredFunction | UnusableFunction, commit: str = "c0ffee") -> Desired:
    """Everything git says."""
    good = tuple(function for function in functions if isinstance(function, DesiredFunction))
    bad = tuple(function for function in functions if isinstance(function, UnusableFunction))
    return Desired("test", Revision(commit), good, bad)


def remote(
    slug: str,
    code: str | None = CODE_A,
    *,
    function_id: str | None = None,
    owner: str | None = OWNER,
    text: str = "",
    mark_slug: str | None = None,
    protected: bool = False,
    status: DeploymentStatus = DeploymentStatus.DEPLOYED,
    deployed: float | None = 10.0,
    updated: float = 10.0,
    **fields: Json,
) -> RemoteFunction:
    """A record on Kapso; ``owner`` None leaves the mark out, ``mark_slug`` makes it for another slug."""
    mark = mark_for(owner, mark_slug or slug, protected=protected) if owner else ""
    return RemoteFunction(
        id=function_id or f"id-{slug}",
        slug=slug,
        status=status,
        code=code,
        fields={"name": slug, "description": f"{text}{mark}", **fields},
        last_deployed_at=None if deployed is None else moment(deployed),
        updated_at=moment(updated),
    )


def owned(
    record: RemoteFunction, wanted: Content | None = None, *, slug: str | None = None, live: bool = True
) -> InventoryRecord:
    """What we remember of a record after writing it and seeing it live."""
    stored = stored_content(record)
    return InventoryRecord(
        slug=slug or record.slug,
        function_id=record.id,
        wanted=wanted if wanted is not None else {CODE: stored[CODE]},
        stored=stored,
        updated_at=record.updated_at,
        live=LiveContent(runtime_content(stored, record.slug), record.last_deployed_at) if live else None,
    )


def memory(*records: InventoryRecord, intents: Iterable[Intent] = ()) -> ReconcilerState:
    """What the state folder holds."""
    return ReconcilerState({record.function_id: record for record in records}, tuple(intents))


def content(code: str = CODE_A, **fields: Json) -> Mapping[str, Json]:
    """A comparable content."""
    return {**fields, CODE: code_hash(code)}
