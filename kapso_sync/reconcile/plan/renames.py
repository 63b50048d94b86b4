"""Resolves renames: which function on Kapso gets which slug of git, chains and swaps included. Pure.

A ``moved_from`` often stays in the manifest for years. So its meaning is decided once and journaled, and it counts again only
when git changes it. If the journal is lost, a function that has its slug already keeps it, unless its code says otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Notice
from kapso_sync.model.desired import Desired, DesiredFunction
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.ownership import check_of, mark_for
from kapso_sync.model.plan import Blocked, BlockedBy, Create, Rename, SlugVacation, Step, block
from kapso_sync.model.state import RenameRecord
from kapso_sync.reconcile.plan.observed import Claim, Observed, is_parked, parking_slug
from kapso_sync.reconcile.plan.similarity import similarity


@dataclass(frozen=True)
class Renames:
    """The result: which function gets which slug.

    ``sources`` holds, by slug, the function that becomes it, if that is not the one that has the slug now. ``taken`` are the
    ids of those functions, and of those that leave their slug for good. ``waiting`` holds, by slug, another slug that must be
    usable first. ``journal`` is what to keep of each ``moved_from``.
    """

    sources: Mapping[str, RemoteFunction] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    waiting: Mapping[str, str] = field(default_factory=dict)
    vacations: tuple[SlugVacation, ...] = ()
    journal: Mapping[str, RenameRecord] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rename:
    """A possible rename of ``remote``, which had the slug ``source`` in git, to ``want``.

    A ``doubtful`` one counts only if another function takes the slug that it leaves.
    """

    want: DesiredFunction
    source: str
    remote: RemoteFunction
    doubtful: bool = False


def with_slugs_of_others(desired: Desired, observed: Observed) -> Observed:
    """Return the observation with the slugs that other processes of ours gave to functions, since we last wrote them.

    A laptop knows a function as `one`. CI renamed it to `three`, with its mark. If git now has `four` with ``moved_from:
    three``, that is this function, although the laptop never saw `three`. And if git has `three`, and a new `one` beside it,
    `one` is another function, as it is if Kapso has one. But if only git has `one`, and no `three`, the laptop's checkout is
    older than CI's, and renames the function back. A slug that was changed in the dashboard has no mark that was made for it.

    The journal of renames is as old as the slugs: that process resolved each ``moved_from`` since, so ours counts as lost.
    """
    owned = observed.state.owned
    moves = {(source, want.slug) for want in desired.functions for source in want.entry.moved_from or ()}
    renamed = {}
    for remote in observed.functions:
        known = owned.get(remote.id)
        if known is None or known.slug == remote.slug or remote.mark is None or not remote.mark.valid_for(remote.slug):
            continue
        meant = remote.slug in desired.slugs or any(move[0] == remote.slug and move[1] != known.slug for move in moves)
        if (meant or known.slug in observed.by_slug) and observed.claim(remote) is Claim.OURS:
            renamed[remote.id] = replace(known, slug=remote.slug)
    if not renamed:
        return observed
    return replace(observed, state=replace(observed.state, owned={**owned, **renamed}, renames=None))


def resolve_renames(desired: Desired, observed: Observed) -> Renames:
    """Return which function gets which slug; the same for any order of input."""
    return _RenameResolver(desired, observed).settled()


class _RenameResolver:
    """The inputs, and the renames that are still possible, by new slug."""

    def __init__(self, desired: Desired, observed: Observed) -> None:
        self._desired = desired
        self._observed = observed
        self._wants = {want.slug: want for want in desired.functions}
        self._listed = desired.slugs
        ours = observed.ours
        self._parked = {mark.check: remote for remote in ours if is_parked(remote) and (mark := remote.mark)}
        self._named = self._names(ours)
        self._waiting: dict[str, str] = {}
        self._notices: list[Notice] = []

    def _names(self, ours: Iterable[RemoteFunction]) -> Mapping[str, RemoteFunction]:
        """Return our functions by git's slug; for functions in our inventory, the inventory decides."""
        owned = self._observed.state.owned
        standing = [remote for remote in ours if not is_parked(remote)]
        remembered = {owned[remote.id].slug: remote for remote in standing if remote.id in owned}
        return remembered | {remote.slug: remote for remote in standing if remote.id not in owned}

    def settled(self) -> Renames:
        """Return the renames that nothing contradicts."""
        edges = self._possible()
        edges = self._sound(edges)
        edges = self._sound(self._likely(edges))
        sources = {slug: edge.remote for slug, edge in edges.items()}
        sources |= self._homecoming(sources)
        vacations = self._vacations(sources)
        given_up = {vacation.remote.id for vacation in vacations if vacation.target is None}
        return Renames(
            sources,
            frozenset(remote.id for remote in sources.values()) | given_up,
            self._waiting,
            vacations,
            self._journal(sources, edges),
            tuple(self._notices),
        )

    # Which moves are possible

    def _possible(self) -> dict[str, _Rename]:
        edges: dict[str, _Rename] = {}
        taken: set[str] = set()
        for want in self._desired.functions:
            edge = self._edge(want)
            if edge is not None and edge.remote.id not in taken:
                edges[want.slug] = edge
                taken.add(edge.remote.id)
        return edges

    def _edge(self, want: DesiredFunction) -> _Rename | None:
        """Return the function that this one may become a rename of, or None.

        `b` says ``moved_from: a``. Git no longer lists `a`, and a function of ours has that slug: it is renamed to `b`. Git
        still lists `a`: that is a swap or a copy, so the rename is possible, and `_sound` decides it together with what `a`
        says. The journal says that this ``moved_from`` was resolved before: nothing moves, although the words still stand in
        the manifest.
        """
        if not want.entry.moved_from or self._parked_for(want.slug):
            return None
        bearer = self._observed.by_slug.get(want.slug)
        if bearer is not None and self._observed.claim(bearer) is not Claim.OURS:
            return None
        begun = self._begun(want)
        if begun is not None:
            return begun
        there = want.slug in self._named or bearer is not None
        renames = self._observed.state.renames
        fresh = renames is not None and (want.slug not in renames or renames[want.slug].sources != want.entry.moved_from)
        for source in want.entry.moved_from:
            remote = self._named.get(source)
            if remote is None or remote is bearer:
                continue
            if source not in self._listed and (fresh or not there):
                return _Rename(want, source, remote)
            if fresh or renames is None:
                return _Rename(want, source, remote, doubtful=there)
        return None

    def _begun(self, want: DesiredFunction) -> _Rename | None:
        """Return the journaled rename that is not done yet."""
        move = (self._observed.state.renames or {}).get(want.slug)
        if move is None or move.function_id is None or move.sources != want.entry.moved_from:
            return None
        owned, remote = self._observed.state.owned.get(move.function_id), self._observed.by_id.get(move.function_id)
        if remote is None:
            return None
        # A pass that found no state journals the rename, and may die before it records the function.
        source = owned.slug if owned is not None else remote.slug
        if source == want.slug or source not in (*move.sources, move.was):
            return None
        return None if self._observed.claim(remote) is not Claim.OURS else _Rename(want, source, remote)

    def _parked_for(self, slug: str) -> RemoteFunction | None:
        return self._parked.get(check_of(self._observed.owner, slug)) if self._parked else None

    # Which of them nothing contradicts

    def _sound(self, edges: dict[str, _Rename]) -> dict[str, _Rename]:
        """Drop renames of functions that stay, and doubtful ones without a free slug, until the rest is consistent."""
        while True:
            taken = {edge.remote.id for edge in edges.values()}
            left = {slug: edge for slug, edge in edges.items() if self._released(edge, edges) and self._has_room(edge, taken)}
            if len(left) == len(edges):
                return left
            edges = left

    def _has_room(self, edge: _Rename, taken: set[str]) -> bool:
        mine = self._named.get(edge.want.slug)
        return not edge.doubtful or mine is None or mine.id in taken

    def _released(self, edge: _Rename, edges: Mapping[str, _Rename]) -> bool:
        """Return whether the function may leave its slug: git does not list it, or means another function by it."""
        source = edge.source
        if source not in self._listed or source in edges or self._parked_for(source):
            return True
        heir = self._wants.get(source)
        if heir is None:
            if not edge.doubtful or self._observed.state.renames is not None:
                self._waiting[edge.want.slug] = source
            return False
        replaced = similarity(edge.want.code, edge.remote.code) > similarity(heir.code, edge.remote.code)
        if edge.doubtful or replaced:
            return replaced
        text = f"`{edge.want.slug}` says `moved_from: {source}`, and `{source}` is still in git with its code: it stays"
        self._notices.append(Notice("moved-from", text, edge.want.entry.location))
        return False

    def _likely(self, edges: dict[str, _Rename]) -> dict[str, _Rename]:
        """Without a journal, decide by the code whether a swap was done: drop circles of functions that have their own code."""
        if self._observed.state.renames is not None:
            return edges
        left = dict(edges)
        for circle in _circles(edges):
            doubtful = [edges[slug] for slug in circle if edges[slug].doubtful]
            moved = sum(similarity(edge.want.code, edge.remote.code) for edge in doubtful)
            stays = sum(similarity(edge.want.code, self._code_at(edge.want.slug)) for edge in doubtful)
            if doubtful and moved <= stays:
                for slug in circle:
                    left.pop(slug, None)
        return left

    def _code_at(self, slug: str) -> str | None:
        remote = self._named.get(slug)
        return remote.code if remote is not None else None

    # The results of these renames

    def _homecoming(self, sources: Mapping[str, RemoteFunction]) -> dict[str, RemoteFunction]:
        """Return the parked functions that get their new slug, or their former one if the new one was given to another."""
        taken = {remote.id for remote in sources.values()}
        found: dict[str, RemoteFunction] = {}
        renames = self._observed.state.renames or {}
        for slug in self._wants if self._parked else ():
            remote, bearer = self._parked_for(slug), self._observed.by_slug.get(slug)
            if remote is None or slug in sources or remote.id in taken:
                continue
            if bearer is None or bearer.id in taken:
                found[slug] = remote
                continue
            home = next((move.was for move in renames.values() if move.function_id == remote.id), None)
            if home in self._wants and home not in self._observed.by_slug and home is not None:
                found[home] = remote
        return found

    def _vacations(self, sources: Mapping[str, RemoteFunction]) -> tuple[SlugVacation, ...]:
        going = {remote.id: slug for slug, remote in sources.items()}
        found = []
        for slug in sorted(self._wants) if sources else ():
            bearer, comes = self._observed.by_slug.get(slug), sources.get(slug)
            if bearer is None or (comes is not None and comes.id == bearer.id):
                continue
            if bearer.id in going:
                found.append(self._vacation(bearer, going[bearer.id]))
            elif comes is not None:
                found.append(self._vacation(bearer, None))
        return tuple(found)

    def _vacation(self, remote: RemoteFunction, target: str | None) -> SlugVacation:
        last_applied, text, mark = self._observed.state.owned.get(remote.id), remote.text, remote.mark
        protected = (mark is not None and mark.protected) or (last_applied is not None and last_applied.protected)
        owner = self._observed.owner
        applied = None if mark is None or mark.applied is None else replace(mark.applied, running=False)
        if target is None:
            slug = f"{remote.slug[:200]}-before-{hashlib.sha256(remote.id.encode()).hexdigest()[:6]}"
            new = mark_for(owner, slug, protected=protected, applied=applied)
            return SlugVacation(remote, slug, f"{text}{new}", None, last_applied)
        new = mark_for(owner, target, protected=protected, applied=applied)
        return SlugVacation(remote, parking_slug(remote.id, new.check), f"{text}{new}", target, last_applied)

    def _journal(self, sources: Mapping[str, RemoteFunction], edges: Mapping[str, _Rename]) -> dict[str, RenameRecord]:
        known = self._observed.state.renames or {}
        journal = {slug: move for slug, move in known.items() if slug in self._listed and slug not in self._wants}
        for slug, want in self._wants.items():
            if not want.entry.moved_from or slug in self._waiting:
                continue
            was = edges[slug].source if slug in edges else known[slug].was if slug in known else None
            remote = sources.get(slug)
            moving = None if remote is None else remote.id
            journal[slug] = RenameRecord(want.entry.moved_from, moving, was if moving is not None else None)
        return journal


def _circles(edges: Mapping[str, _Rename]) -> list[list[str]]:
    """Return the renames in groups, each a chain or a circle."""
    groups: list[list[str]] = []
    seen: set[str] = set()
    followers = {edge.source: slug for slug, edge in edges.items()}
    for start in sorted(edges):
        if start in seen:
            continue
        group: list[str] = []
        pending = [start]
        while pending:
            slug = pending.pop()
            if slug in seen or slug not in edges:
                continue
            seen.add(slug)
            group.append(slug)
            pending += [edges[slug].source, *([followers[slug]] if slug in followers else [])]
        groups.append(group)
    return groups


def block_without_free_slug(steps: Sequence[Step], vacations: Sequence[SlugVacation]) -> tuple[Step, ...]:
    """Return the steps, with those blocked that need a slug which another function keeps."""
    bearers = {vacation.frees: vacation for vacation in vacations if vacation.target is not None}
    left = list(steps)
    while True:
        movers = {step.function_id for step in left if isinstance(step, Rename)}
        stuck = [
            index
            for index, step in enumerate(left)
            if isinstance(step, Create | Rename) and step.slug in bearers and bearers[step.slug].remote.id not in movers
        ]
        if not stuck:
            return tuple(left)
        for index in stuck:
            left[index] = _blocked(left[index], bearers[left[index].slug])


def _blocked(step: Step, vacation: SlugVacation) -> Blocked:
    return block(
        step,
        BlockedBy.RENAME,
        f"its slug is still that of a function which becomes `{vacation.target}`, and that one cannot move now",
        f"see `{vacation.target}`; with `--only`, name both",
    )
