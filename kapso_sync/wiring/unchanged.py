"""Recognises a pass that need not be made: all that it would read is as the last one read it, which found nothing to do.

A plan depends on the settings, the source, Kapso, the state and nothing else (`reconcile.plan` is pure). While all of them are
the same, so is the plan. What that saves is to load the planner and everything below it, which takes longer than to ask Kapso.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from kapso_sync import __version__
from kapso_sync.api.base_url import parse_base_url
from kapso_sync.api.client import KapsoClient
from kapso_sync.clock import SystemClock
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model import events
from kapso_sync.model.settled import RecordedPass
from kapso_sync.model.source import Revision
from kapso_sync.settings import Settings
from kapso_sync.sources.resolved import ResolvedSource
from kapso_sync.sources.spec import SourceKind
from kapso_sync.store import settled_pass
from kapso_sync.store.api_facts import ApiFactsFile
from kapso_sync.store.lock import held
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.units import timestamp
from kapso_sync.wiring.folder import resolve_folder, root_notices, source_spec, state_folder
from kapso_sync.wiring.network import find_network
from kapso_sync.wiring.transport import make_transport, new_id

_NO_PART_OF_IT = frozenset({"source", "state_dir", "log_level", "log_format"})
"""Settings on which no plan depends, and those that find the state folder in which the circumstances are kept."""


@dataclass(frozen=True, slots=True)
class UnchangedPass:
    """A pass that was not made: all ``functions`` of the source are in sync, and there is nothing else to report.

    ``events`` are those of a pass that was made and found the same, and ``id`` is theirs in the log; a plan has none.
    """

    source: str
    owner: str
    revision: Revision
    functions: int
    api_calls: int
    seconds: float
    id: str | None
    events: tuple[events.Event, ...] = field(repr=False)


def circumstances(settings: Settings, owner: str, root: Path, base_url: str) -> str:
    """Return a digest of what a plan depends on besides the source, Kapso and the state folder.

    ``root`` is the folder that holds the state folders. The digest is keyed by the API key: it is another one for another key,
    and tells nobody a setting who reads the state folder. Raises `ConfigError` if there is no key.
    """
    named = {name: repr(value) for name, value in settings if name not in _NO_PART_OF_IT}
    facts = replace(ApiFactsFile.for_base(root, base_url).read(), deploy_seconds=None)
    text = json.dumps([__version__, owner, base_url, named, asdict(facts)], sort_keys=True)
    return hmac.new(settings.key().encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


async def find_unchanged(settings: Settings, redactor: Redactor, *, writes: bool, trigger: str) -> UnchangedPass | None:
    """Return the pass that need not be made, or None if it has to be; with ``writes`` it is recorded like one that was made.

    Only a folder is recognised. Whatever goes wrong is left to the pass, which meets it as well, and reports it.
    """
    try:
        return await _find(settings, redactor, writes=writes, trigger=trigger)
    except KapsoSyncError:
        return None


async def _find(settings: Settings, redactor: Redactor, *, writes: bool, trigger: str) -> UnchangedPass | None:
    happened: list[events.Event] = []
    emit = happened.append
    if settings.notices:
        return None
    clock = SystemClock()
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    spec = source_spec(settings)
    folder = state_folder(settings, base_url, spec)
    if spec.kind is not SourceKind.FOLDER or spec.given is not None or root_notices(folder.parent):
        return None
    if settled_pass.read(folder) is None:
        return None
    with held(folder, clock.now()) if writes else contextlib.nullcontext():
        started, started_at = clock.monotonic(), clock.now()
        if writes:
            emit(events.ReconcileStarted(trigger=trigger))
        recorded = settled_pass.read(folder)
        source = await resolve_folder(settings, spec, folder, emit)
        revision = await _same_source(settings, source, recorded, base_url)
        if recorded is None or revision is None:
            return None
        network = find_network(settings, redactor)
        redactor.add(settings.key())
        transport = make_transport(settings, network, base_url, clock, emit=emit, redactor=redactor)
        async with transport:
            if await KapsoClient(transport).list_digest() != recorded.settled.listed:
                return None
        count, calls, seconds = recorded.settled.functions, transport.calls, clock.monotonic() - started
        emit(events.PlanComputed(summary=recorded.status["last_pass"]["summary"], functions=()))
        if writes:
            emit(_finished(count, calls, seconds))
            times = {"started_at": timestamp(started_at), "now": timestamp(clock.now())}
            last = {"finished_at": times["now"], "trigger": trigger, "duration_s": round(seconds, 3), "api_calls": calls}
            status = {**recorded.status, **times, "last_pass": {**recorded.status["last_pass"], **last}}
            settled_pass.record_again(folder, recorded, status)
        pass_id = new_id() if writes else None
        return UnchangedPass(spec.location, source.owner, revision, count, calls, seconds, pass_id, tuple(happened))


async def _same_source(
    settings: Settings, source: ResolvedSource, recorded: RecordedPass | None, base_url: str
) -> Revision | None:
    """Return the revision of the source if it and the circumstances are those of the recorded pass, or None."""
    if recorded is None or not recorded.steady:
        return None
    if recorded.circumstances != circumstances(settings, source.owner, source.folder.parent, base_url):
        return None
    snapshot = await source.source.fetch()
    return snapshot.revision if snapshot.digest == recorded.settled.snapshot else None


def _finished(unchanged: int, api_calls: int, seconds: float) -> events.ReconcileFinished:
    return events.ReconcileFinished(
        created=0,
        updated=0,
        deployed=0,
        deleted=0,
        adopted=0,
        unchanged=unchanged,
        failed=0,
        blocked=0,
        drifted=0,
        api_calls=api_calls,
        duration_ms=round(seconds * 1000),
    )
