"""How long functions of ours have been absent from git, and which new ones they may have become. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kapso_sync.model.desired import Desired, Notice
from kapso_sync.model.functions import RemoteFunction, normal_code
from kapso_sync.model.plan import Create, Delete, Plan, Step
from kapso_sync.model.state import Absence
from kapso_sync.reconcile.likeness import ALIKE, likeness
from kapso_sync.reconcile.observed import Observed

MOST_PAIRS = 2_000
"""So many pairs of unequal codes are compared in one plan."""

UNISON = timedelta(seconds=5)
"""Wall clock and monotonic clock may part so far between two passes; beyond that, the wall clock was set."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a pass looks. ``monotonic`` seconds can be compared within one ``session`` only."""

    now: datetime
    monotonic: float = 0.0
    session: str = ""


def find_absences(
    desired: Desired, observed: Observed, absent: Sequence[RemoteFunction], steps: Sequence[Step]
) -> tuple[Absence, ...]:
    """Return who is absent, and which functions of git may be it under a new name; nothing is said of time yet."""
    said = {want.slug: want.entry.moved_from for want in desired.functions}
    said |= {function.slug: function.moved_from for function in desired.unusable}
    hinted = {source for sources in said.values() for source in sources or ()}
    silent = {slug for slug, sources in said.items() if sources is None}
    codes: dict[str, str | None] = {want.slug: want.code for want in desired.functions}
    created = {step.slug for step in steps if isinstance(step, Create) and not step.recreate} & silent
    budget = iter(range(MOST_PAIRS))
    found = []
    for remote in sorted(absent, key=lambda remote: remote.slug):
        suspects: set[str] = set()
        if remote.slug not in hinted:
            known = observed.memory.absences.get(remote.id)
            suspects = {slug for slug in (known.suspects if known else ()) if slug in silent}
            others = {slug: codes[slug] for slug in created}
            if not known and remote.id not in observed.memory.owned:
                others |= {slug: codes.get(slug, code) for slug, code in _younger(remote, silent, observed).items()}
            suspects |= {slug for slug, code in others.items() if _alike(code, remote, budget)}
        found.append(Absence(remote.id, remote.slug, tuple(sorted(suspects))))
    return tuple(found)


def _younger(remote: RemoteFunction, silent: Collection[str], observed: Observed) -> dict[str, str | None]:
    """Return functions that were made on Kapso later, with their code there.

    Without memory, any of them may have appeared when this one vanished.
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
    return next(budget, None) is not None and likeness(code, remote.code) >= ALIKE


def suspicion_notices(desired: Desired, absences: Sequence[Absence]) -> tuple[Notice, ...]:
    """Suggest ``moved_from`` where a new function looks like one that left git."""
    locations = {want.slug: want.entry.location for want in desired.functions}
    return tuple(
        Notice("possible-rename", f"{suspicion(absence)}; {remedy(absence)}", locations.get(absence.suspects[0]))
        for absence in absences
        if absence.suspects
    )


def suspicion(absence: Absence) -> str:
    """Return what is suspected, as a sentence without its full stop."""
    names = " and ".join(f"`{slug}`" for slug in absence.suspects[:3])
    return f"{names} look{'s' if len(absence.suspects) == 1 else ''} like `{absence.slug}`, which left git"


def remedy(absence: Absence) -> str:
    """Return what a person can say to it."""
    return f"if it was renamed, say `moved_from: {absence.slug}` at `{absence.suspects[0]}`; if it is new, `moved_from: []`"


def watch(plan: Plan, memory: Mapping[str, Absence], moment: Moment) -> Plan:
    """Return the plan with the time filled in for which each function has been absent while it was to be deleted."""
    dying = {step.function_id for step in plan.steps if isinstance(step, Delete)}
    absences = tuple(
        _lasting(absence, memory.get(absence.function_id), moment) if absence.function_id in dying else absence
        for absence in plan.absences
    )
    return replace(plan, absences=absences)


def _lasting(absence: Absence, before: Absence | None, moment: Moment) -> Absence:
    """Return the absence as it lasts. Time only counts as passed where no clock can have made it up within a session.

    Between sessions the wall clock counts; where it went backwards, the absence begins anew.
    """
    now = replace(absence, seen=moment.now, tick=moment.monotonic, session=moment.session)
    if before is None or before.since is None or before.seen is None:
        return replace(now, since=moment.now)
    passed = moment.now - before.seen
    if before.session == moment.session:
        steady = timedelta(seconds=moment.monotonic - before.tick)
        if abs(passed - steady) > UNISON:
            return replace(now, since=moment.now - (before.seen - before.since) - max(steady, timedelta(0)))
    return replace(now, since=before.since if passed >= timedelta(0) else moment.now)
