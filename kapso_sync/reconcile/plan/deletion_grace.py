"""Tracks how long owned functions have been missing from git, and which new ones they may have become. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Notice
from kapso_sync.model.desired import Desired
from kapso_sync.model.functions import RemoteFunction, normal_code
from kapso_sync.model.plan import Create, Delete, Plan, Step
from kapso_sync.model.state import MissingFunction
from kapso_sync.reconcile.plan.observed import Observed
from kapso_sync.reconcile.plan.similarity import SIMILAR, similarity
from kapso_sync.reconcile.plan.warnings import some_of

MAX_COMPARED_PAIRS = 2_000
"""Maximum number of pairs of unequal codes that one plan compares."""

CLOCK_SKEW_TOLERANCE = timedelta(seconds=5)
"""Maximum difference between the wall clock and the monotonic clock from pass to pass; beyond it, the wall clock was set."""


@dataclass(frozen=True, slots=True)
class Timestamps:
    """The time of a pass. ``monotonic`` seconds are compared within one ``session`` only.

    ``term`` is the term of leadership; empty: there is no election. A daemon that was away for longer than ``max_gap`` begins
    the time anew; None: it goes on after any time, as the runs of `sync` do.
    """

    now: datetime
    monotonic: float = 0.0
    session: str = ""
    term: str = ""
    max_gap: timedelta | None = None


def find_missing(
    desired: Desired, observed: Observed, absent: Sequence[RemoteFunction], steps: Sequence[Step]
) -> tuple[MissingFunction, ...]:
    """Return our functions that git does not list, and those of git that may be them under a new slug; without times yet."""
    said = {want.slug: want.entry.moved_from for want in desired.functions}
    said |= {function.slug: function.moved_from for function in desired.unusable}
    hinted = {source for sources in said.values() for source in sources or ()}
    silent = {slug for slug, sources in said.items() if sources is None}
    codes: dict[str, str | None] = {want.slug: want.code for want in desired.functions}
    created = {step.slug for step in steps if isinstance(step, Create) and not step.recreate} & silent
    budget = iter(range(MAX_COMPARED_PAIRS))
    found = []
    for remote in sorted(absent, key=lambda remote: remote.slug):
        suspects: set[str] = set()
        if remote.slug not in hinted:
            known = observed.state.missing.get(remote.id)
            suspects = {slug for slug in (known.suspects if known else ()) if slug in silent}
            others = {slug: codes[slug] for slug in created}
            if not known and remote.id not in observed.state.owned:
                others |= {slug: codes.get(slug, code) for slug, code in _younger(remote, silent, observed).items()}
            suspects |= {slug for slug, code in others.items() if _alike(code, remote, budget)}
        found.append(MissingFunction(remote.id, remote.slug, tuple(sorted(suspects)), updated_at=remote.updated_at))
    return tuple(found)


def _younger(remote: RemoteFunction, silent: Collection[str], observed: Observed) -> dict[str, str | None]:
    """Return functions with this code that were created on Kapso later.

    Without state, any function with this code may have appeared when this one vanished.
    """
    born = remote.created_at
    return {
        slug: other.code
        for slug in sorted(silent)
        if born is not None
        and (other := observed.by_slug.get(slug)) is not None
        and other.created_at is not None
        and other.created_at > born
    }


def _alike(code: str | None, remote: RemoteFunction, budget: Iterator[int]) -> bool:
    if remote.code is None or code is None:
        return False
    if normal_code(code) == normal_code(remote.code):
        return True
    return next(budget, None) is not None and similarity(code, remote.code) >= SIMILAR


def suspected_rename_notices(desired: Desired, missing: Sequence[MissingFunction]) -> tuple[Notice, ...]:
    """Suggest ``moved_from`` for each new function that looks like one that left git, or like several of them."""
    locations = {want.slug: want.entry.location for want in desired.functions}
    by_suspect: dict[str, list[MissingFunction]] = {}
    for absence in missing:
        if absence.suspects:
            by_suspect.setdefault(absence.suspects[0], []).append(absence)
    return tuple(
        Notice("possible-rename", _suggestion(suspect, absences), locations.get(suspect))
        for suspect, absences in by_suspect.items()
    )


def _suggestion(suspect: str, absences: Sequence[MissingFunction]) -> str:
    if len(absences) == 1:
        return f"{suspected_rename(absences[0])}; {suspected_rename_hint(absences[0])}"
    return (
        f"`{suspect}` looks like functions that left git: {some_of([absence.slug for absence in absences])}; "
        f"if it was one of them, name that one in `moved_from` at `{suspect}`; if it is new, `moved_from: []`"
    )


def suspected_rename(absence: MissingFunction) -> str:
    """Return the suspicion as a sentence without its full stop."""
    names = " and ".join(f"`{slug}`" for slug in absence.suspects[:3])
    return f"{names} look{'s' if len(absence.suspects) == 1 else ''} like `{absence.slug}`, which left git"


def suspected_rename_hint(absence: MissingFunction) -> str:
    """Return how a person can answer the suspicion."""
    return f"if it was renamed, say `moved_from: {absence.slug}` at `{absence.suspects[0]}`; if it is new, `moved_from: []`"


def defer_deletions(plan: Plan, state: Mapping[str, MissingFunction], moment: Timestamps) -> Plan:
    """Return the plan with the time for which each function was missing while its deletion was due."""
    dying = {step.function_id for step in plan.steps if isinstance(step, Delete)}
    missing = tuple(
        _lasting(absence, state.get(absence.function_id), moment) if absence.function_id in dying else absence
        for absence in plan.missing
    )
    return replace(plan, missing=missing)


def _lasting(absence: MissingFunction, before: MissingFunction | None, moment: Timestamps) -> MissingFunction:
    """Return the missing function with the time for which it has been missing, protected against clocks that were set.

    Within one process the monotonic clock decides if the two clocks disagree. Between processes the wall clock counts; if it
    went backwards, the time starts again.

    Missing since 12:00, seen at 12:01, and the wall clock is set to 18:00 while the process sleeps for a minute: the function
    has been missing for two minutes, not for six hours, so a grace of ten minutes is not over.
    """
    now = replace(absence, seen=moment.now, tick=moment.monotonic, session=moment.session, term=moment.term)
    if before is None or before.since is None or before.seen is None or not _is_continued(absence, before, moment):
        return replace(now, since=moment.now)
    passed = moment.now - before.seen
    if before.session == moment.session:
        steady = timedelta(seconds=moment.monotonic - before.tick)
        if abs(passed - steady) > CLOCK_SKEW_TOLERANCE:
            return replace(now, since=moment.now - (before.seen - before.since) - max(steady, timedelta(0)))
    return replace(now, since=before.since if passed >= timedelta(0) else moment.now)


def _is_continued(absence: MissingFunction, before: MissingFunction, moment: Timestamps) -> bool:
    """Return whether no other writer can be expected to have seen the function in git since we last missed it.

    Another writer has a memory of its own, and leaves no trace on Kapso where it finds everything in sync. So a replica that
    leads for the second time does not go on where it was; with a grace of ten minutes:

        12:00  `a` leads, and git has dropped `greet`     `a`: missing since 12:00
        12:02  `b` leads, and git lists `greet` again     `a` sees nothing of that
        12:20  git drops it, and `a` leads again          `a`: missing since 12:20, so it is deleted at 12:30 and not now

    - With an election, only the time within one term of leadership counts.
    - After a daemon without one was away for more than ``max_gap``, the time starts again: another one may have run instead.
    - For `sync` the state folder's memory is the truth: with a run every hour, a grace of a day ends after a day.
    - If Kapso's record has changed, somebody wrote the function, most likely with git listing it: the time starts again.
    """
    if moment.term and before.term != moment.term:
        return False
    if absence.updated_at is not None and before.updated_at is not None and absence.updated_at != before.updated_at:
        return False
    is_same_process = before.session == moment.session
    return is_same_process or moment.max_gap is None or moment.now - (before.seen or moment.now) <= moment.max_gap
