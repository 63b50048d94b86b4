"""Makes the plan from git's desired state and the observation of Kapso. Pure: the same for any order of input."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import replace

from kapso_sync.model.desired import Desired, DesiredFunction, UnusableFunction
from kapso_sync.model.functions import CODE, DESCRIPTION, RUNTIME_CONTENT, SLUG, RemoteFunction, Version, agree, content_hash
from kapso_sync.model.json_values import Json
from kapso_sync.model.ownership import check_of, mark_for
from kapso_sync.model.plan import (
    Blocked,
    BlockedBy,
    Create,
    Delete,
    Deploy,
    Invalid,
    Modify,
    NoChange,
    Origin,
    Plan,
    Policy,
    Rename,
    SecretChanges,
    Step,
    Update,
    block,
)
from kapso_sync.model.policies import AdoptPolicy, DriftPolicy
from kapso_sync.model.state import NO_SECRETS, InventoryRecord, Quarantine, ReconcilerState, WatchFinding
from kapso_sync.reconcile.plan.code_style import in_preferred_style, in_style_of
from kapso_sync.reconcile.plan.comparison import SECRETS, FunctionComparison, compare, content_diff
from kapso_sync.reconcile.plan.deletion_grace import find_missing, suspected_rename_notices
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.last_applied import applied_by, changing_secrets_digest, find_last_applied
from kapso_sync.reconcile.plan.line_ends import comparable_content
from kapso_sync.reconcile.plan.observed import Claim, Observed, is_parked
from kapso_sync.reconcile.plan.renames import Renames, block_without_free_slug, resolve_renames, with_slugs_of_others
from kapso_sync.reconcile.plan.secrets import (
    LOST_HINT,
    blocks_deployment,
    lost_since,
    lost_text,
    missing_kept,
    risk_hint,
    risk_text,
)
from kapso_sync.reconcile.plan.settled import SettledSteps
from kapso_sync.reconcile.plan.steps import (
    adopting,
    beside_quarantine,
    blocking,
    difference_reasons,
    flow_reasons,
    overwriting,
    refusing,
    rolling_back,
    secret_reasons,
    watch_quarantine,
)
from kapso_sync.reconcile.plan.warnings import (
    former_owner_notices,
    garbled_notices,
    header_notices,
    orphan_notices,
    quota_notices,
    secret_notices,
    unknown_field_notices,
)

NO_SECRETS_REASON = "its manifest names secrets, and this API base has none"
NO_SECRETS_HINT = "set KAPSO_API_BASE_URL to https://api.kapso.ai/platform/v1, or take `secrets` out of the manifest"

FAILING_HINT = (
    "there is no other version to restore; push a fix: `kapso-sync logs {slug} --failed` shows what failed, and "
    "`kapso-sync sync --retry {slug}` takes it as it is"
)

GARBLED_HINT = "the next pass tries again; if it stays, ask Kapso's support about the record"

OSCILLATION_LIMIT = 3
"""After this many corrections in a row that were undone, drift is not corrected any more."""


def make_plan(desired: Desired, observed: Observed, policy: Policy, settled: SettledSteps | None = None) -> Plan:
    """Return the plan: one step, with reasons, for every function of git and every function that we own.

    ``settled`` is as in `plan_in_slices`.
    """
    planning = plan_in_slices(desired, observed, policy, settled)
    while True:
        try:
            next(planning)
        except StopIteration as end:
            plan: Plan = end.value
            return plan


def plan_in_slices(
    desired: Desired, observed: Observed, policy: Policy, settled: SettledSteps | None = None
) -> Generator[None, None, Plan]:
    """Make the same plan, and pause after each function, so that the caller can do something else meanwhile.

    With ``settled``, functions in which nothing has changed since the last plan get the same step again.
    """
    renames = resolve_renames(desired, observed)
    yield
    planner = _Planner(observed, policy, renames, _heirs(desired, observed), settled)
    yield
    steps = []
    for function in desired.functions:
        steps.append(planner.wanted(function))
        yield
    steps += [planner.unusable(function) for function in desired.unusable]
    taken = renames.taken | {step.function_id for step in steps if step.function_id}
    ours = observed.ours
    absent = [remote for remote in ours if remote.id not in taken]
    yield
    missing = find_missing(desired, observed, absent, steps)
    yield
    steps += [planner.absent(remote) for remote in absent]
    steps = sorted(block_without_free_slug(steps, renames.vacations), key=lambda step: step.slug)
    gone = [
        owned
        for owned in observed.state.owned.values()
        if owned.function_id not in observed.by_id and observed.garbled_record_of(owned.slug) is None
    ]
    yield
    return Plan(
        source=desired.source,
        revision=desired.revision,
        owner=policy.owner,
        steps=tuple(steps),
        owned=len(ours) + sum(owned.slug not in observed.by_slug for owned in gone),
        manifest_present=desired.manifest_present,
        project_id=next((remote.project_id for remote in observed.functions if remote.project_id), None),
        named_project=desired.project_id,
        notices=(
            *desired.notices,
            *renames.notices,
            *suspected_rename_notices(desired, missing),
            *orphan_notices(steps),
            *quota_notices(desired, observed),
            *secret_notices(planner.without_secrets, planner.unverified, planner.at_risk),
            *header_notices(desired, observed.state.facts),
            *unknown_field_notices(planner.unknown_fields),
            *former_owner_notices(observed, steps),
            *garbled_notices(observed),
        ),
        forget=tuple(sorted(owned.function_id for owned in gone if owned.slug not in desired.slugs)),
        rollout=desired.rollout,
        missing=missing,
        vacations=renames.vacations,
        renames=renames.journal,
        misnamed=desired.misnamed,
        packages={function.slug: function.packages for function in desired.functions if function.packages},
        watched={function.slug: watch for function in desired.functions if (watch := function.entry.watch) is not None},
    )


def replan(desired: Desired, observed: Observed, policy: Policy, remote: RemoteFunction, state: ReconcilerState) -> Step | None:
    """Return a new step for one function that changed after the plan was made; None if it has no step any more.

    ``remote`` is its record now, and ``state`` the state now: the pass itself may have written both meanwhile.
    """
    functions = tuple(remote if other.id == remote.id else other for other in observed.functions)
    again = with_slugs_of_others(desired, resolve_intents(functions, state, policy.owner))
    again = replace(again, secrets=observed.secrets, garbled=observed.garbled)
    plan = make_plan(desired, again, policy)
    return next((step for step in plan.steps if step.function_id == remote.id), None)


def _heirs(desired: Desired, observed: Observed) -> dict[str, str]:
    """Return, by former slug, the functions that are to take over another one and cannot now.

    Such a function is unusable, or its slug belongs to a function that we do not own.
    """
    heirs = {source: function.slug for function in desired.unusable for source in function.moved_from or ()}
    for want in desired.functions:
        bearer = observed.by_slug.get(want.slug)
        if bearer is not None and observed.claim(bearer) is not Claim.OURS:
            heirs |= dict.fromkeys(want.entry.moved_from or (), want.slug)
    return heirs


def _other_owner_hint(theirs: str, ours: str) -> str:
    """Return what a person can do about a function of another owner; often it is a forgotten option, or another checkout."""
    take = f"`kapso-sync sync --take-from {theirs}` takes it over"
    if theirs.startswith(f"{ours}@"):
        return f"did you mean `--env {theirs.removeprefix(f'{ours}@')}`? Else {take}"
    if ours.startswith(f"{theirs}@"):
        return f"did you mean to run without `--env`? Else {take}"
    if theirs == _without_branch(ours):
        return (
            f"it belongs to the default branch of this repository: did you mean to run without `--branch`? If this branch "
            f"was the default when the function was made, {take}"
        )
    if ours == _without_branch(theirs):
        return f"it belongs to a branch of this repository that was not the default: did you mean its `--branch`? Else {take}"
    if theirs.startswith("folder/") and ours.startswith("folder/"):
        return f"two folders without a git remote have two owners: give both the same KAPSO_SYNC_OWNER. Else {take}"
    return take


def _without_branch(owner: str) -> str:
    """Return the owner of the same repository, path and environment on the default branch."""
    return re.sub(r"#[^#@]*(?=@|$)", "", owner)


def _undecided(record: InventoryRecord | None) -> bool:
    return record is not None and record.undecided is not None


class _Planner:
    """The inputs of one plan; its methods plan one function each."""

    def __init__(
        self,
        observed: Observed,
        policy: Policy,
        renames: Renames,
        heirs: Mapping[str, str],
        settled: SettledSteps | None = None,
    ) -> None:
        """``heirs`` holds, by former slug, the function of git that is to take it over and cannot now."""
        self._observed = observed
        self._settled = settled
        if settled is not None:
            settled.begin(policy, observed)
        self._policy = policy
        self._renames = renames
        self._heirs = heirs
        self._our_slugs = {remote.slug for remote in observed.ours}
        self.without_secrets: list[str] = []
        self.unverified: dict[str, tuple[str, ...]] = {}
        self.unknown_fields: dict[str, list[str]] = {}
        self.at_risk: dict[str, tuple[str, ...]] = {}
        self._misplaced = {
            mark.check: remote
            for remote in observed.functions
            if (mark := remote.mark) and observed.claim(remote) is Claim.COPIED
        }

    def wanted(self, want: DesiredFunction) -> Step:
        """Plan one usable function of git."""
        if want.slug in self._renames.waiting:
            return self._unclear(want, self._renames.waiting[want.slug])
        remote = self._find(want)
        former = () if remote is not None else want.entry.moved_from or ()
        records = map(self._observed.garbled_record_of, (want.slug, *former)) if self._observed.garbled else ()
        garbled = next(filter(None, records), None)
        if garbled is not None:
            return Blocked(
                by=BlockedBy.GARBLED,
                slug=want.slug,
                file=want.entry.file,
                desired_hash=content_hash(want.content),
                reasons=(f"Kapso's record of it is garbled, so nothing is written to it: its {garbled.reason}",),
                hint=GARBLED_HINT,
                wanted="update",
            )
        if remote is None:
            return self._missing(in_preferred_style(want, self._observed.state.facts))
        moved = want.slug in self._renames.sources
        if self._settled is None or moved:
            return self._compared(want, remote)
        same = self._settled.find(want, remote, self._observed)
        if same is not None:
            return same
        step = self._compared(want, remote)
        noticed = any(slugs[-1] == want.slug for slugs in self.unknown_fields.values())
        if isinstance(step, NoChange) and not noticed:
            self._settled.keep(want, remote, self._observed, step)
        return step

    def _compared(self, want: DesiredFunction, remote: RemoteFunction) -> Step:
        """Plan one usable function of git that is on Kapso."""
        facts = self._observed.state.facts
        claim = self._observed.claim(remote)
        known = self._observed.state.owned.get(remote.id)
        remote_content = self._observed.content(remote)
        taken = self._observed.other_owner(remote) in self._policy.take_from
        base = find_last_applied(want, remote, remote_content, known) if claim is Claim.OURS or taken else known
        want = in_style_of(want, remote, remote_content, base, facts)
        uncertain = self._observed.uncertain.get(remote.id, ())
        content = comparable_content(want, remote, base)
        comparison = FunctionComparison(
            owner=self._policy.owner,
            desired=want,
            remote=remote,
            last_applied=base,
            remote_content=remote_content,
            difference=compare(content, remote_content, None if _undecided(base) else base),
            uncertain=uncertain,
            listing=self._observed.secrets.get(remote.id),
            reset_secrets=self._policy.reset_secrets,
            secret_values=want.secrets,
            former_owners=self._observed.state.owners - self._policy.take_from,
        )
        for name in comparison.difference.unknown:
            self.unknown_fields.setdefault(name, []).append(want.slug)
        if claim in (Claim.OURS, Claim.FREE):
            if comparison.listing is not None and not comparison.listing.supported:
                self.without_secrets.append(want.slug)
                return blocking(comparison, BlockedBy.NO_SECRET_ROUTES, NO_SECRETS_REASON, NO_SECRETS_HINT)
            if comparison.secrets.unverified:
                self.unverified[want.slug] = comparison.secrets.unverified
        if claim is Claim.OURS:
            return self._with_secrets_kept(comparison, self._ours(comparison))
        return self._with_secrets_kept(
            comparison, self._free(comparison) if claim is Claim.FREE else self._others(comparison, claim)
        )

    def _with_secrets_kept(self, comparison: FunctionComparison, step: Step) -> Step:
        """Return the step with the secrets that an earlier deployment lost, which are reported whatever the step does.

        It is a blocked one if its deployment may drop secrets that have no value in git.
        """
        lost = missing_kept(comparison.desired, comparison.listing)
        if lost and isinstance(step, NoChange):
            return replace(blocking(comparison, BlockedBy.LOST_SECRET, lost_text(lost), LOST_HINT), lost_secrets=lost)
        dropped = lost_since(comparison.desired, comparison.known_secrets, comparison.listing)
        if dropped and isinstance(step, NoChange):
            return replace(step, lost_secrets=dropped, reasons=(lost_text(dropped),), hint=LOST_HINT)
        if dropped and isinstance(step, Modify):
            pending = replace(step.known_secrets, unchecked=True, before=dropped)
            reasons = (*step.reasons, lost_text(dropped))
            step = replace(step, lost_secrets=dropped, known_secrets=pending, reasons=reasons, hint=LOST_HINT)
        step = self._without_risk(comparison, step)
        return replace(step, lost_secrets=dropped) if dropped and isinstance(step, Blocked) else step

    def _without_risk(self, comparison: FunctionComparison, step: Step) -> Step:
        """Return the step, or a blocked step if its deployment may drop secrets that have no value in git."""
        if not (isinstance(step, Modify) and step.deploys and step.secrets_at_risk):
            return step
        if not blocks_deployment(self._policy.unknown_secrets, self._observed.state.facts):
            if self._observed.state.facts.secrets_survive is not True:
                self.at_risk[comparison.desired.slug] = step.secrets_at_risk
            return step
        return block(step, BlockedBy.UNKNOWN_SECRET, risk_text(step), risk_hint(step))

    def _find(self, want: DesiredFunction) -> RemoteFunction | None:
        if want.slug in self._renames.sources:
            return self._renames.sources[want.slug]
        observed = self._observed
        bearer = observed.find(want.slug)
        return None if bearer is None or bearer.id in self._renames.taken else bearer

    def _unclear(self, want: DesiredFunction, source: str) -> Step:
        """Plan a function with a ``moved_from`` that names an unusable function: it is unknown which one gets the slug."""
        remote = self._observed.by_slug.get(want.slug)
        return Blocked(
            by=BlockedBy.RENAME,
            slug=want.slug,
            function_id=remote.id if remote else None,
            file=want.entry.file,
            desired_hash=content_hash(want.content),
            reasons=(f"`moved_from: {source}` waits: `{source}` is in git as well, and cannot be used",),
            hint=f"fix `{source}` in git first",
            wanted="rename",
        )

    def _missing(self, want: DesiredFunction) -> Step:
        stray = self._misplaced.get(check_of(self._policy.owner, want.slug))
        if stray is not None:
            return Blocked(
                by=BlockedBy.OWNERSHIP,
                slug=want.slug,
                file=want.entry.file,
                desired_hash=content_hash(want.content),
                wanted="create",
                reasons=(f"`{stray.slug}` on Kapso carries the mark of `{want.slug}`: it was renamed or copied there",),
                hint="rename it back on Kapso, or remove the mark from its description to have a new function created",
            )
        known = self._observed.owned_by_slug.get(want.slug)
        vanished = known is not None and known.function_id not in self._observed.by_id
        protected = bool(want.entry.protected)
        text = str(want.entry.fields.get(DESCRIPTION) or "")
        payload: dict[str, Json] = {
            SLUG: want.slug,
            "name": want.slug,
            "function_type": str(want.entry.function_type),
            # A create does not accept this field: if the record shows another value, an update follows.
            **{name: value for name, value in want.entry.fields.items() if name != "invoke_response_mode"},
            CODE: want.code,
        }
        sent = replace(want, entry=replace(want.entry, fields={n: v for n, v in want.entry.fields.items() if n in payload}))
        secrets = SecretChanges(sets=tuple(sorted(want.secrets)))
        applied = applied_by(sent, {}, want.code, changing_secrets_digest(want, secrets, NO_SECRETS, None, None), running=False)
        payload[DESCRIPTION] = f"{text}{mark_for(self._policy.owner, want.slug, protected=protected, applied=applied)}"
        fields = (CODE, *want.entry.fields)
        attach_to = want.entry.whatsapp_flow if want.entry.deploy else None
        return Create(
            slug=want.slug,
            origin=Origin.DRIFT if vanished else Origin.NEW,
            fields=fields,
            reasons=(
                "it was ours and is gone from Kapso" if vanished else "in the manifest, not on Kapso",
                *secret_reasons(secrets),
                *flow_reasons(attach_to),
            ),
            file=want.entry.file,
            desired_hash=content_hash(want.content),
            diff=content_diff(want.slug, ({}, None), (want.content, want.code), fields),
            desired=want,
            payload=payload,
            deploy=want.entry.deploy,
            protected=protected,
            secrets=secrets,
            secret_values=want.secrets,
            recreate=vanished,
            attach_to=attach_to,
        )

    def _others(self, comparison: FunctionComparison, claim: Claim) -> Step:
        """Plan a function with another owner's mark, or with our mark that was made for another slug."""
        remote, theirs = comparison.remote, self._observed.other_owner(comparison.remote)
        valid = any(mark.owner == theirs and mark.valid_for(remote.slug) for mark in remote.marks)
        if theirs in self._policy.take_from and valid:
            return adopting(comparison, f"taken over from {theirs}", Origin.CONFLICT)
        if claim is Claim.COPIED or theirs is None:
            return blocking(
                comparison,
                BlockedBy.OWNERSHIP,
                "it carries our ownership mark, made for another slug: somebody copied or renamed it on Kapso",
                "remove the mark from its description on Kapso to let it be adopted",
            )
        return blocking(
            comparison,
            BlockedBy.OWNERSHIP,
            f"it is owned by {theirs}, and we are {self._policy.owner}",
            _other_owner_hint(theirs, self._policy.owner),
        )

    def _free(self, comparison: FunctionComparison) -> Step:
        """Plan an unowned function by the adopt policy, unless another function of ours is to get its slug."""
        former = next(
            (slug for slug, heir in self._heirs.items() if heir == comparison.desired.slug and slug in self._our_slugs), None
        )
        if former is not None:
            return blocking(
                comparison,
                BlockedBy.RENAME,
                f"`{former}` is to become it, and it is on Kapso already and is unowned",
                "rename or delete it on Kapso; or take `moved_from` out to have it adopted",
            )
        if self._policy.adopt is AdoptPolicy.ALWAYS:
            return adopting(comparison, "on Kapso, unowned, and KAPSO_SYNC_ADOPT is `always`", Origin.CONFLICT)
        if self._policy.adopt is AdoptPolicy.NEVER:
            return blocking(
                comparison,
                BlockedBy.ADOPTION,
                "it is on Kapso already and is unowned",
                "KAPSO_SYNC_ADOPT=identical or always adopts it",
            )
        if comparison.difference.fields:
            return blocking(
                comparison,
                BlockedBy.ADOPTION,
                "it is on Kapso already, is unowned, and differs from git",
                "make git equal to it, or KAPSO_SYNC_ADOPT=always overwrites it, with a backup",
            )
        return adopting(comparison, "on Kapso, unowned, and the same as in git", Origin.NEW)

    def _ours(self, comparison: FunctionComparison) -> Step:
        difference, want, last_applied = comparison.difference, comparison.desired, comparison.last_applied
        reports = (want.entry.drift or self._policy.drift) is DriftPolicy.REPORT and want.slug not in self._policy.overwrite
        if reports and difference.fields and not difference.based:
            first_seen = last_applied.undecided if last_applied is not None else None
            if first_seen is None or first_seen == content_hash(want.content):
                return self._undecided(comparison)
        taken_back = self._taken_back(comparison)
        if taken_back is not None:
            return taken_back
        drifted = bool(difference.on_kapso)
        moved_there = comparison.renames and last_applied is not None and last_applied.slug == want.slug
        forced = want.slug in self._policy.overwrite
        if (drifted or moved_there) and reports:
            return blocking(
                comparison,
                BlockedBy.DRIFT_POLICY,
                "changed on Kapso, and drift is only reported",
                f"`kapso-sync sync --overwrite {want.slug}` writes git's version once",
            )
        if (
            drifted
            and last_applied is not None
            and last_applied.corrections >= OSCILLATION_LIMIT
            and not difference.by_git
            and not forced
        ):
            return blocking(
                comparison,
                BlockedBy.OSCILLATION,
                f"each of {last_applied.corrections} corrections was undone on Kapso: something else writes it",
                f"find the other writer, then `kapso-sync sync --overwrite {want.slug}`",
            )
        changes = difference.fields or comparison.secrets
        if changes and last_applied is not None and last_applied.contested > OSCILLATION_LIMIT and not forced:
            return _contested(comparison, last_applied.contested)
        if comparison.renames:
            return self._rename(comparison)
        attaches = comparison.attach_to is not None and not comparison.deploys
        if difference.fields or comparison.mark_differs or comparison.secrets or attaches:
            marked = ("its ownership mark is missing or changed on Kapso",) if comparison.mark_differs else ()
            origin = difference.origin or (Origin.GIT if comparison.secrets or attaches else Origin.RECOVERY)
            return overwriting(Update, comparison, origin, difference_reasons(difference) or marked)
        if comparison.deploys:
            return overwriting(Deploy, comparison, Origin.RECOVERY, ())
        if difference.refused:
            return refusing(comparison)
        failed = self._failed_watch(comparison)
        if failed is not None:
            blocked = blocking(comparison, BlockedBy.FAILING, failed.error, FAILING_HINT.format(slug=want.slug))
            return replace(blocked, evidence=failed.evidence)
        learned = comparison.learned()
        return NoChange(
            slug=want.slug,
            function_id=learned.function_id,
            reasons=("in sync",),
            file=want.entry.file,
            desired_hash=content_hash(want.content),
            remote_hash=content_hash(comparison.remote_content),
            record=None if learned is last_applied else learned,
        )

    def _taken_back(self, comparison: FunctionComparison) -> Step | None:
        """Plan a function whose content failed after its deployment and has a version to go back to; None: it has not."""
        want, last_applied = comparison.desired, comparison.last_applied
        quarantine = last_applied.quarantine if last_applied is not None else None
        if quarantine is not None and quarantine.attempt == want.attempt and want.slug not in self._policy.retry:
            return self._quarantined(comparison, quarantine)
        failed, version = self._failed_watch(comparison), self._previous_version(comparison)
        if failed is None or version is None or not comparison.restoring(version).touches_runtime:
            return None
        return rolling_back(comparison, version, watch_quarantine(want, failed, version))

    def _previous_version(self, comparison: FunctionComparison) -> Version | None:
        """Return the stored version that ran before, or None."""
        last_applied = comparison.last_applied
        outdated = last_applied is not None and last_applied.outdated_version
        return None if outdated else self._observed.state.versions.get(comparison.remote.id)

    def _failed_watch(self, comparison: FunctionComparison) -> WatchFinding | None:
        """Return why the deployment that runs counts as failed, if its content is git's and no change of it is on its way."""
        want, remote = comparison.desired, comparison.remote
        watch = self._observed.state.watches.get(remote.id)
        if watch is None or want.slug in self._policy.retry or want.entry.watch is None or comparison.last_applied is None:
            return None
        changes = comparison.renames or comparison.secrets or comparison.touches_runtime or comparison.liveness.reason
        return None if changes or watch.deployed_at != remote.last_deployed_at else watch.finding

    def _undecided(self, comparison: FunctionComparison) -> Step:
        """Plan a function that differs while nothing is known of our last write, and drift is only reported: it waits.

        What git says now is remembered: the next change in git is a decision, and is applied.
        """
        want, fields = comparison.desired, ", ".join(comparison.difference.fields)
        blocked = blocking(
            comparison,
            BlockedBy.UNKNOWN_BASE,
            f"differs from git in {fields}; our last write is not known here, and drift is only reported",
            f"its next change in git is applied; `kapso-sync sync --overwrite {want.slug}` writes git's version at once",
        )
        blocked = replace(blocked, origin=None)
        before = comparison.last_applied or InventoryRecord.new(want.slug, comparison.remote.id)
        record = replace(before, undecided=content_hash(want.content))
        return blocked if record == comparison.last_applied else replace(blocked, record=record)

    def _quarantined(self, comparison: FunctionComparison, quarantine: Quarantine) -> Step:
        """Plan a function in quarantine: nothing, unless its rollback was interrupted."""
        version, last_applied = self._previous_version(comparison), comparison.last_applied
        undisturbed = last_applied is not None and agree(last_applied.stored, comparison.remote_content, RUNTIME_CONTENT)
        if version is not None and undisturbed:
            aside = beside_quarantine(comparison, version, quarantine)
            if aside is not None:
                return aside
            restored = comparison.restoring(version)
            if restored.touches_runtime or restored.deploys:
                return rolling_back(comparison, version, quarantine)
        blocked = blocking(
            comparison,
            BlockedBy.QUARANTINE,
            f"in quarantine: {quarantine.error}",
            f"the previous version was restored; new code, or `kapso-sync sync --retry {comparison.desired.slug}`, tries again",
        )
        return replace(blocked, quarantine=quarantine)

    def _rename(self, comparison: FunctionComparison) -> Step:
        want, remote, last_applied = comparison.desired, comparison.remote, comparison.last_applied
        if last_applied is not None and last_applied.refused_slug == want.slug:
            return blocking(
                comparison,
                BlockedBy.RENAME,
                f"Kapso did not take the slug `{want.slug}` for `{remote.slug}`",
                f"keep `{remote.slug}` in git, or rename it in Kapso's dashboard",
            )
        in_git = last_applied is None or last_applied.slug != want.slug
        reason = f"moved_from: {remote.slug}" if in_git else f"renamed to `{remote.slug}` on Kapso"
        if is_parked(remote):
            reason = f"between two slugs since a pass was cut short; it becomes `{want.slug}`"
        origin = comparison.difference.origin or (Origin.GIT if in_git else Origin.DRIFT)
        return overwriting(Rename, comparison, origin, (reason, *difference_reasons(comparison.difference)))

    def unusable(self, function: UnusableFunction) -> Step:
        """Plan a function with an unusable file or unusable code: the version on Kapso stays."""
        remote = self._observed.by_slug.get(function.slug)
        reasons = tuple(str(problem) for problem in function.problems)
        remote_hash = content_hash(self._observed.content(remote)) if remote else None
        function_id = remote.id if remote else None
        if function.blocked:
            return Blocked(
                by=BlockedBy.BUILD,
                slug=function.slug,
                function_id=function_id,
                file=function.file,
                reasons=reasons,
                hint="; ".join(dict.fromkeys(problem.hint for problem in function.problems if problem.hint)) or None,
                remote_hash=remote_hash,
                wanted="update" if remote else "create",
            )
        return Invalid(
            slug=function.slug,
            function_id=function_id,
            file=function.file,
            reasons=reasons,
            remote_hash=remote_hash,
            problems=function.problems,
        )

    def absent(self, remote: RemoteFunction) -> Step:
        """Plan a function that we own and that git does not list."""
        mark, last_applied = remote.mark, self._observed.state.owned.get(remote.id)
        remote_content = self._observed.content(remote)
        reason = None
        named = remote.slug in self._policy.delete
        heir = self._heirs.get(remote.slug) or (self._heirs.get(last_applied.slug) if last_applied is not None else None)
        if not self._policy.prune and not named:
            reason = "not in git, kept since KAPSO_SYNC_PRUNE is off"
        elif (mark is not None and mark.protected) or (last_applied is not None and last_applied.protected):
            reason = "not in git, kept since it is protected (only `protected: false` in the manifest lifts that)"
        elif heir is not None and not named:
            reason = f"not in git, kept since it is to become `{heir}`, which cannot be done now"
        elif mark is None or not mark.valid_for(remote.slug):
            reason = "not in git, kept since its ownership mark is missing or was made for another slug"
        if reason is not None:
            return NoChange(
                slug=remote.slug, function_id=remote.id, reasons=(reason,), remote_hash=content_hash(remote_content)
            )
        names = (CODE, *(name for name in remote_content if name != CODE))
        return Delete(
            slug=remote.slug,
            function_id=remote.id,
            origin=Origin.GIT,
            reasons=("it is ours and left git; a backup is saved first",),
            remote_hash=content_hash(remote_content),
            diff=content_diff(remote.slug, (remote_content, remote.code), ({}, None), names),
            remote=remote,
            confirmed=named,
        )


def _contested(comparison: FunctionComparison, times: int) -> Blocked:
    """Return the blocked step of a function that another process of this owner replaced so often."""
    fields = comparison.difference.fields
    what, remedy = "it", "two sources have one owner: give one of them a KAPSO_SYNC_OWNER of its own, or stop it"
    if not fields:
        what, remedy = "its secrets", "give both sources the same values, or one of them a KAPSO_SYNC_OWNER of its own"
    hint = f"{remedy}; then `kapso-sync sync --overwrite {comparison.desired.slug}`"
    reason = f"another process of this owner replaced {what} {times} times, and git says the same here"
    return replace(blocking(comparison, BlockedBy.OSCILLATION, reason, hint), fields=fields or (SECRETS,))
