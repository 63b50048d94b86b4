"""Plans a pull: from Kapso's functions and a functions folder to the files to write. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace

from kapso_sync.dataclass import dataclass
from kapso_sync.manifest.layout import read_layout
from kapso_sync.model.desired import Desired
from kapso_sync.model.functions import CODE, RemoteFunction, RemoteSecret, SecretType
from kapso_sync.model.policies import Contract
from kapso_sync.model.pull import FileChange, FolderLayout, Pulled, PullPlan, Taken
from kapso_sync.model.source import Snapshot, SourceFile
from kapso_sync.reconcile.plan.comparison import compare
from kapso_sync.reconcile.plan.observed import Claim, Observed
from kapso_sync.reconcile.pull.folder_editor import CannotPull, FolderEditor


@dataclass(frozen=True, slots=True)
class PullOptions:
    """What to pull: only functions that git does not list, or ``everything``.

    ``force`` overwrites local changes. ``layout`` None follows the folder.
    """

    everything: bool = False
    force: bool = False
    only: tuple[str, ...] = ()
    layout: FolderLayout | None = None


_MODULE = re.compile(r"^[^\S\n]*+export\s+default\b", re.MULTILINE)
BUILT_CODE_REMARK = "a sync would build this code and not leave it as it is on Kapso: Kapso does not run code of this style"


@dataclass(frozen=True, slots=True)
class PullInputs:
    """The inputs of a pull: the folder and its desired state, Kapso's functions, and their secrets' names by function id.

    ``modules`` are the slugs of functions that must be declared as modules, or they would be compiled for this API base.
    ``environment`` is the name of the manifest's environment.
    """

    snapshot: Snapshot
    desired: Desired
    observed: Observed
    secrets: Mapping[str, Sequence[RemoteSecret]] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()
    environment: str | None = None


def candidates(sides: PullInputs, wish: PullOptions) -> tuple[RemoteFunction, ...]:
    """Return the functions to write, as far as they are known before code and secrets are read."""
    return tuple(remote for remote in _asked_for(sides, wish) if _pull_result(remote, sides, wish) is None)


def plan_pull(sides: PullInputs, wish: PullOptions) -> PullPlan:
    """Return the files to write, and the result for each requested function on Kapso."""
    register = FolderEditor(
        sides.snapshot, sides.desired, wish.layout, sides.modules, environment=sides.environment, force=wish.force
    )
    functions = []
    for remote in _asked_for(sides, wish):
        pulled = _pull_result(remote, sides, wish)
        functions.append(_take(register, remote, sides) if pulled is None else pulled)
    return PullPlan(register.changes(), tuple(functions))


def plan_restore(sides: PullInputs, remote: RemoteFunction, *, force: bool) -> PullPlan:
    """Return the files that restore ``remote``, an earlier version, in the folder.

    For a listed function, only its managed fields are restored.
    """
    layout = read_layout(sides.snapshot.files, sides.environment)
    if remote.slug in sides.desired.slugs:
        managed = {name: value for name, value in remote.fields.items() if layout.said(remote.slug, name) is not None}
        remote = replace(remote, fields=managed)
    register = FolderEditor(sides.snapshot, sides.desired, environment=sides.environment, force=force)
    pulled = _take(register, remote, sides)
    return PullPlan(register.changes(), (pulled,))


def with_changes(snapshot: Snapshot, changes: Iterable[FileChange]) -> Snapshot:
    """Return the folder with the files written."""
    written = {change.path: SourceFile(change.path, change.new) for change in changes}
    return replace(snapshot, files={**snapshot.files, **written})


def compiled(desired: Desired, observed: Observed) -> frozenset[str]:
    """Return the slugs of functions that are modules on Kapso, and that this API base would have compiled."""
    there = observed.by_slug
    return frozenset(
        function.slug
        for function in desired.functions
        if function.entry.contract is Contract.AUTO
        and function.slug in there
        and _MODULE.search(there[function.slug].code or "")
        and function.code != there[function.slug].code
    )


def verify(plan: PullPlan, desired: Desired, observed: Observed) -> PullPlan:
    """Return the plan with remarks on functions that the written folder would not declare as they are on Kapso.

    ``desired`` is the desired state of the written folder.
    """
    usable = {function.slug: function for function in desired.functions}
    unusable = {function.slug: function for function in desired.unusable}

    def checked(pulled: Pulled) -> Pulled:
        if pulled.taken not in (Taken.NEW, Taken.CHANGED):
            return pulled
        if pulled.slug in unusable:
            problem = unusable[pulled.slug].problems[0]
            return replace(pulled, remarks=(*pulled.remarks, f"kapso-sync will not deploy this code: {problem}"))
        stored = observed.content(observed.by_id[pulled.function_id])
        function = usable.get(pulled.slug)
        fields = compare(function.content, stored, None).fields if function is not None else ("everything",)
        if not fields:
            return pulled
        built = fields == (CODE,)
        text = BUILT_CODE_REMARK if built else f"the folder still says otherwise than Kapso: {', '.join(fields)}"
        return replace(pulled, remarks=(*pulled.remarks, text), incomplete=True)

    return replace(plan, functions=tuple(map(checked, plan.functions)))


def _asked_for(sides: PullInputs, wish: PullOptions) -> list[RemoteFunction]:
    asked = [remote for remote in sides.observed.functions if not wish.only or remote.slug in wish.only]
    return sorted(asked, key=lambda remote: remote.slug)


def _pull_result(remote: RemoteFunction, sides: PullInputs, wish: PullOptions) -> Pulled | None:
    """Return the result for a function that is not written at all, or None."""
    left = Pulled(remote.slug, remote.id, Taken.LEFT)
    claim = sides.observed.claim(remote)
    if claim is Claim.FOREIGN:
        return replace(left, remarks=(f"left out: it is owned by {sides.observed.other_owner(remote)}",))
    if claim is Claim.COPIED:
        text = "left out: it carries our ownership mark, made for another slug; remove the mark on Kapso, then pull again"
        return replace(left, remarks=(text,), incomplete=True)
    if remote.slug in sides.desired.slugs:
        remarks = ("git lists it already; --all rewrites what git lists",) if wish.only else ()
        return None if wish.everything else replace(left, taken=Taken.SAME, remarks=remarks)
    known = sides.observed.state.owned.get(remote.id)
    if known is not None and known.slug != remote.slug and known.slug in sides.desired.slugs:
        text = f"left out: git lists it as `{known.slug}`; rename it in git, with `moved_from: {known.slug}`, or back on Kapso"
        return replace(left, remarks=(text,), incomplete=True)
    heirs = [function.slug for function in sides.desired.functions if remote.slug in (function.entry.moved_from or ())]
    return replace(left, remarks=(f"left out: git renames it to `{heirs[0]}`",)) if heirs else None


def _take(register: FolderEditor, remote: RemoteFunction, sides: PullInputs) -> Pulled:
    known = remote.slug in sides.desired.slugs
    try:
        if known:
            free = sides.observed.claim(remote) is Claim.FREE
            last_applied = sides.observed.state.owned.get(remote.id)
            draft = register.rewrite(remote, last_applied, _own_names(sides.secrets.get(remote.id, ())), free=free)
        else:
            draft = register.add(remote, _own_names(sides.secrets.get(remote.id, ())))
    except CannotPull as error:
        return Pulled(remote.slug, remote.id, Taken.SKIPPED, remarks=(f"skipped: {error}",), incomplete=True)
    taken = Taken.NEW if not known else Taken.CHANGED if draft.writes or draft.edits else Taken.SAME
    return Pulled(remote.slug, remote.id, taken, draft.files, tuple(draft.remarks), draft.incomplete)


def _own_names(secrets: Sequence[RemoteSecret]) -> tuple[str, ...]:
    """Return the names to write; inherited secrets belong to the project, and the folder need not name them."""
    return tuple(secret.name for secret in secrets if secret.type is not SecretType.INHERITED)
