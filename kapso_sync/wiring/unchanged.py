"""Recognises a pass that need not be made: all that it would read is as the last one read it, which found nothing to do.

A plan depends on the settings, the source, Kapso, the state and nothing else (`reconcile.plan` is pure). While all of them are
the same, so is the plan. What that saves is to load the planner and everything below it, which takes longer than to ask Kapso.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from dataclasses import asdict, field, replace
from datetime import datetime
from pathlib import Path

from kapso_sync import __version__
from kapso_sync.api.base_url import parse_base_url
from kapso_sync.api.pages import UnparsedList, read_unparsed_list
from kapso_sync.clock import SystemClock
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, ApiRateLimited, KapsoSyncError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.json_values import Json
from kapso_sync.model.settled import RecordedPass
from kapso_sync.model.source import Revision
from kapso_sync.settings import SETTINGS, Settings
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


@dataclass(slots=True)
class DuePass:
    """A pass that has to be made, and what was asked of Kapso to learn that.

    ``happened`` are the events of the calls, and ``listed`` is the list that they gave, or None. It was not asked for before
    ``read_at``, a time of the monotonic clock, and goes with the state that the ``recorded`` pass left. ``not_before`` is such
    a time as well, if Kapso said that it takes no call until then.
    """

    happened: tuple[events.Event, ...] = field(default=(), repr=False)
    listed: UnparsedList | None = None
    read_at: float = 0.0
    recorded: RecordedPass | None = field(default=None, repr=False)
    not_before: float | None = None

    def take_list(self) -> UnparsedList | None:
        """Return the list, and keep it no longer: it is large, and the pass needs it in another form."""
        listed, self.listed = self.listed, None
        return listed


def circumstances(settings: Settings, owner: str, root: Path, base_url: str) -> str:
    """Return a digest of what a plan depends on besides the source, Kapso and the state folder.

    ``root`` is the folder that holds the state folders. The digest is keyed by the API key: another key gives
    another digest, and the state folder reveals no setting. Raises `ConfigError` if there is no key.
    """
    named = {name: repr(getattr(settings, name)) for name in SETTINGS if name not in _NO_PART_OF_IT}
    facts = replace(ApiFactsFile.for_base(root, base_url).read(), deploy_seconds=None)
    text = json.dumps([__version__, owner, base_url, named, asdict(facts)], sort_keys=True)
    return hmac.new(settings.key().encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


async def find_unchanged(settings: Settings, redactor: Redactor, *, writes: bool, trigger: str) -> UnchangedPass | DuePass:
    """Return the pass that need not be made, or the one that is due; with ``writes`` it is recorded like one that was made.

    Only a folder is recognised. Whatever goes wrong is left to the pass, which meets it as well, and reports it.
    """
    clock, called = SystemClock(), list[events.Event]()
    try:
        return await _find(settings, redactor, clock, called, writes=writes, trigger=trigger)
    except ApiRateLimited as error:
        return DuePass(tuple(called), not_before=clock.monotonic() + error.retry_after)
    except KapsoSyncError:
        return DuePass(tuple(called))


async def _find(
    settings: Settings, redactor: Redactor, clock: Clock, called: list[events.Event], *, writes: bool, trigger: str
) -> UnchangedPass | DuePass:
    """Return as `find_unchanged`, and add the events of the calls to ``called``; raises `KapsoSyncError`."""
    if settings.notices:
        return DuePass()
    happened = list[events.Event]()
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    spec = source_spec(settings)
    folder = state_folder(settings, base_url, spec)
    if spec.kind is not SourceKind.FOLDER or spec.given is not None or root_notices(folder.parent):
        return DuePass()
    if settled_pass.read(folder) is None:
        return DuePass()
    # Another process may have held the folder since it was read, and have changed the record.
    with held(folder, clock.now()) if writes else contextlib.nullcontext():
        recorded = settled_pass.read(folder)
        if recorded is None:
            return DuePass()
        started, started_at = clock.monotonic(), clock.now()
        source = await resolve_folder(settings, spec, folder, happened.append)
        if recorded.circumstances != circumstances(settings, source.owner, folder.parent, base_url):
            return DuePass()
        redactor.add(settings.key())
        redactor.add(settings.git_password())  # a folder needs none, but every pass reports one that cannot be read
        # Neither waits for the other: the folder is read in a thread.
        listing = asyncio.create_task(_list(settings, base_url, clock, redactor, called.append), name="list")
        try:
            snapshot = await source.source.fetch()
            listed = await listing
        finally:
            # If the folder cannot be read, the request ends before its events are counted.
            listing.cancel()
            await asyncio.gather(listing, return_exceptions=True)
        if listed is None or (snapshot.digest, listed.digest) != (recorded.settled.snapshot, recorded.settled.listed):
            return DuePass(tuple(called), listed, started, recorded)
        found = UnchangedPass(
            spec.location,
            source.owner,
            snapshot.revision,
            recorded.settled.functions,
            events.count_calls(called),
            clock.monotonic() - started,
            new_id() if writes else None,
            (*happened, *called, events.PlanComputed(summary=recorded.status["last_pass"]["summary"], functions=())),
        )
        if not writes:
            return found
        settled_pass.record_again(folder, recorded, _status_after(recorded, found, trigger, started_at, clock.now()))
        return replace(found, events=(events.ReconcileStarted(trigger=trigger), *found.events, _finished(found)))


async def _list(
    settings: Settings, base_url: str, clock: Clock, redactor: Redactor, emit: events.Listener
) -> UnparsedList | None:
    """Return Kapso's list, or None if it cannot be read; raises `ConfigError` and `ApiRateLimited`."""
    network = await asyncio.to_thread(find_network, settings, redactor)
    # The pass repeats what fails, and says so meanwhile; to repeat it here as well would take twice as long to report.
    async with make_transport(settings, network, base_url, clock, emit=emit, redactor=redactor, attempts=1) as transport:
        try:
            return await read_unparsed_list(transport)
        except ApiRateLimited:
            raise
        except ApiError:
            return None


def _status_after(
    recorded: RecordedPass, found: UnchangedPass, trigger: str, started_at: datetime, now: datetime
) -> dict[str, Json]:
    """Return the status, without its functions, as a pass that was made would leave it."""
    last = {
        **recorded.status["last_pass"],
        "finished_at": timestamp(now),
        "trigger": trigger,
        "duration_s": round(found.seconds, 3),
        "api_calls": found.api_calls,
    }
    # A folder's revision is what was read, and a work tree's may be called otherwise by now.
    revision = {**recorded.status["revision"], "described": found.revision.described}
    times = {"now": timestamp(now), "started_at": timestamp(started_at)}
    return {**recorded.status, **times, "revision": revision, "last_pass": last}


def _finished(found: UnchangedPass) -> events.ReconcileFinished:
    return events.ReconcileFinished(
        created=0,
        updated=0,
        deployed=0,
        deleted=0,
        adopted=0,
        unchanged=found.functions,
        failed=0,
        blocked=0,
        drifted=0,
        api_calls=found.api_calls,
        duration_ms=round(found.seconds * 1000),
    )
