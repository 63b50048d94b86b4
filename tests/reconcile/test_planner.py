"""Every kind of plan step, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from kapso_sync.errors import EmptySource, ExitCode
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import Check, CheckMethod, CheckSignature, Desired, DesiredFunction, Entry, UnusableFunction
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction
from kapso_sync.model.ownership import mark_for, without_digests
from kapso_sync.model.plan import Blocked, BlockedBy, Deploy, Invalid, Modify, NoChange, Origin, Plan, Policy, Step
from kapso_sync.model.policies import AdoptPolicy, DriftPolicy, MaxDelete
from kapso_sync.model.state import Intent, IntentKind, LiveContent, QuotaRefusal, ReconcilerState
from kapso_sync.reconcile.plan.guard import Guarded, Limits, guard
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from tests.builders import (
    CODE_A,
    CODE_B,
    LIMITS,
    OWNER,
    POLICY,
    content,
    desired,
    memory,
    moment,
    owned,
    remote,
    unusable,
    want,
)

PRUNING = replace(POLICY, prune=True)


def plan_of(
    git: Desired, kapso: Sequence[RemoteFunction], known: ReconcilerState | None = None, policy: Policy = POLICY
) -> Plan:
    return make_plan(git, resolve_intents(kapso, known or memory(), OWNER), policy)


def step_of(
    function: DesiredFunction | UnusableFunction,
    record: RemoteFunction,
    known: ReconcilerState | None = None,
    policy: Policy = POLICY,
) -> Step:
    (step,) = plan_of(desired(function), [record], known, policy).steps
    return step


def test_three_way_comparison_separates_git_changes_from_drift() -> None:
    """Git, Kapso and our last write together give the origin."""
    before = remote("a", name="Old")
    base = memory(owned(before, {**content(CODE_A), "name": "Old"}))
    cases: dict[Origin, tuple[DesiredFunction, RemoteFunction]] = {
        Origin.GIT: (want("a", CODE_B, name="Old"), before),
        Origin.DRIFT: (want("a", CODE_A, name="Old"), remote("a", name="New")),
        Origin.CONFLICT: (want("a", CODE_B, name="Old"), remote("a", name="New")),
    }
    for origin, (git, kapso) in cases.items():
        assert step_of(git, kapso, base).origin is origin
    assert step_of(want("a", CODE_B, name="Old"), remote("a", name="New"), base).reasons == (
        "changed in git: code",
        "changed on Kapso: name",
    )


def test_without_state_every_difference_counts_as_a_conflict() -> None:
    """Who changed it is unknown, so the backup is kept without limit."""
    step = step_of(want("a", CODE_B), remote("a"))
    assert step.origin is Origin.CONFLICT
    assert step.reasons == ("differs from git, and our last write is unknown: code",)


def test_drift_is_reported_or_corrected_by_policy() -> None:
    """The entry's own policy overrides the default, and the command line overrides both for one pass."""
    base, there = memory(owned(remote("a"))), remote("a", CODE_B)
    reporting = replace(POLICY, drift=DriftPolicy.REPORT)
    held = step_of(want("a"), there, base, reporting)
    assert isinstance(held, Blocked)
    assert held.by is BlockedBy.DRIFT_POLICY
    assert "`kapso-sync sync --overwrite a`" in (held.hint or "")
    assert step_of(want("a", drift=DriftPolicy.CORRECT), there, base, reporting).action == "update"
    assert step_of(want("a", drift=DriftPolicy.REPORT), there, base).action == "blocked"
    assert step_of(want("a"), there, base, replace(reporting, overwrite=frozenset({"a"}))).action == "update"


def test_git_changes_are_deployed_where_drift_is_only_reported() -> None:
    """``report`` prevents corrections, never a change from git."""
    base = memory(owned(remote("a")))
    assert step_of(want("a", CODE_B, drift=DriftPolicy.REPORT), remote("a"), base).action == "update"


@pytest.mark.parametrize(
    ("adopt", "code", "action"),
    [
        (AdoptPolicy.IDENTICAL, CODE_A, "adopt"),
        (AdoptPolicy.IDENTICAL, CODE_A.replace("\n", "\r\n"), "adopt"),
        (AdoptPolicy.IDENTICAL, CODE_B, "blocked"),
        (AdoptPolicy.ALWAYS, CODE_B, "adopt"),
        (AdoptPolicy.NEVER, CODE_A, "blocked"),
    ],
)
def test_unowned_functions_are_adopted_by_policy(adopt: AdoptPolicy, code: str, action: str) -> None:
    """Identical code is adopted by default; different code needs an explicit decision."""
    step = step_of(want("a"), remote("a", code, owner=None), policy=replace(POLICY, adopt=adopt))
    assert step.action == action
    if action == "blocked":
        assert "KAPSO_SYNC_ADOPT=" in (step.hint or "")


def test_adopting_an_identical_function_writes_only_the_mark() -> None:
    """The description gets its suffix; code is neither sent nor deployed."""
    step = step_of(want("a"), remote("a", owner=None, text="What it does."))
    assert isinstance(step, Modify)
    assert step.payload.keys() == {"description"}
    assert without_digests(str(step.payload["description"])) == f"What it does.{mark_for(OWNER, 'a')}"
    assert not step.deploys


def test_a_function_of_another_owner_is_a_conflict_that_names_the_owner() -> None:
    """The conflict also names the command that takes the function over."""
    there = remote("a", CODE_B, owner="example.com/other")
    step = step_of(want("a"), there)
    assert step.explanation == (
        f"it is owned by example.com/other, and we are {OWNER}",
        "`kapso-sync sync --take-from example.com/other` takes it over",
    )
    taken = step_of(want("a"), there, policy=replace(POLICY, take_from=frozenset({"example.com/other"})))
    assert isinstance(taken, Modify)
    assert without_digests(str(taken.payload["description"])) == str(mark_for(OWNER, "a"))


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (f"{OWNER}@production", OWNER, "did you mean `--env production`?"),
        (OWNER, f"{OWNER}@staging", "did you mean to run without `--env`?"),
        ("folder/flows-0123456789ab", "folder/flows-ba9876543210", "give both the same KAPSO_SYNC_OWNER"),
        ("example.com/other", OWNER, "`kapso-sync sync --take-from example.com/other` takes it over"),
    ],
)
def test_the_hint_about_another_owner_names_the_likely_mistake(theirs: str, ours: str, said: str) -> None:
    """A forgotten option, or another checkout; taking it over is named in any case."""
    there = resolve_intents([remote("a", owner=theirs)], ReconcilerState(), ours)
    (step,) = make_plan(desired(want("a")), there, Policy(ours)).steps
    assert isinstance(step, Blocked)
    assert said in str(step.hint)
    assert f"--take-from {theirs}" in str(step.hint)


def test_a_copied_ownership_mark_gives_no_ownership() -> None:
    """A function duplicated in the dashboard carries our mark for another slug: it is neither overwritten nor deleted."""
    copy = remote("copy", mark_slug="a")
    assert "made for another slug" in step_of(want("copy"), copy).reasons[0]
    plan = plan_of(desired(want("a")), [remote("a"), copy], policy=PRUNING)
    assert [step.slug for step in plan.steps] == ["a"]


def test_a_renamed_function_is_not_created_a_second_time() -> None:
    """Our mark under another slug, with no memory of it: the person is asked which of the two it is."""
    plan = plan_of(desired(want("a")), [remote("other-name", mark_slug="a")])
    (step,) = plan.steps
    assert (step.action, step.slug) == ("blocked", "a")
    assert "`other-name` on Kapso carries the mark of `a`" in step.reasons[0]


def test_a_removed_ownership_mark_is_restored() -> None:
    """The state remembers the function, so it is ours; only its description is written."""
    there = remote("a", owner=None, text="Mine")
    step = step_of(want("a"), there, memory(owned(there)))
    assert isinstance(step, Modify)
    assert step.payload.keys() == {"description"}
    assert without_digests(str(step.payload["description"])) == f"Mine{mark_for(OWNER, 'a')}"
    assert step.reasons == ("its ownership mark is missing or changed on Kapso",)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (remote("a", status=DeploymentStatus.DRAFT, deployed=None), "saved on Kapso, never deployed"),
        (remote("a", status=DeploymentStatus.ERROR), "the last deployment failed: the function is down"),
        (remote("a", deployed=None), "Kapso knows no deployment of it"),
        (remote("a", updated=100.0), "saved after the last deployment: what runs may be older"),
    ],
)
def test_code_that_is_saved_but_not_live_is_deployed(record: RemoteFunction, reason: str) -> None:
    """Equal content is not enough: only live code can be in sync."""
    step = step_of(want("a"), record)
    assert isinstance(step, Deploy)
    assert step.reasons == (reason,)
    assert not step.payload


def test_deploy_false_leaves_a_draft() -> None:
    """``deploy: false`` stores the code without a deployment."""
    assert isinstance(step_of(want("a", deploy=False), remote("a", status=DeploymentStatus.DRAFT, deployed=None)), NoChange)


def test_a_confirmed_deployment_outweighs_the_server_timestamps() -> None:
    """A save without a change moves ``updated_at``; the code that we saw go live is still live."""
    known = memory(owned(remote("a")))
    assert isinstance(step_of(want("a"), remote("a", updated=100.0), known), NoChange)
    other = replace(owned(remote("a")), live=LiveContent(content(CODE_B), moment(10)))
    step = step_of(want("a"), remote("a"), memory(other))
    assert step.reasons == ("saved on Kapso, not live yet",)


def test_a_deployment_that_we_did_not_request_proves_no_content_that_we_only_saved() -> None:
    """It may have run already when we saved; content that was saved and deployed in the dashboard runs."""
    there = remote("a", CODE_B, deployed=20.0, updated=20.0)
    before = LiveContent(content(CODE_A), moment(10))
    step = step_of(want("a", CODE_B), there, memory(replace(owned(there), live=before)))
    assert isinstance(step, Deploy)
    assert step.reasons == ("saved on Kapso, and not deployed by us since: what runs may be older",)
    assert isinstance(step_of(want("a", CODE_B), there, memory(owned(remote("a")))), NoChange)


def test_an_unconfirmed_deployment_is_repeated_once() -> None:
    """Its end would look like that of the newer one, so the live code is unknown."""
    older = Intent(IntentKind.DEPLOY, "a", "id-a", content(CODE_A), content(CODE_A), moment(3), id=7)
    there = remote("a", CODE_B, updated=9.0)
    step = step_of(want("a", CODE_B), there, memory(owned(there, live=False), intents=[older]))
    assert isinstance(step, Deploy)
    assert (step.overlapped, step.unconfirmed) == (1, (7,))
    assert step.reasons == ("a deployment of older content was not seen to end: what runs may be older",)
    former = replace(older, content=content("// older still\n"), id=6)
    step = step_of(want("a", CODE_B), there, memory(owned(there, live=False), intents=[former, older]))
    assert isinstance(step, Deploy)
    assert (step.overlapped, step.unconfirmed) == (2, (6, 7))


def test_protection_stays_until_the_manifest_lifts_it() -> None:
    """It is kept in the mark: leaving the key out changes nothing, ``protected: false`` does."""
    there = remote("a", protected=True)
    assert isinstance(step_of(want("a"), there), NoChange)
    step = step_of(want("a", protected=False), there)
    assert isinstance(step, Modify)
    assert step.payload.keys() == {"description"}
    assert without_digests(str(step.payload["description"])) == str(mark_for(OWNER, "a"))


@pytest.mark.parametrize(
    ("record", "policy", "reason"),
    [
        (remote("b"), POLICY, "KAPSO_SYNC_PRUNE is off"),
        (remote("b", protected=True), PRUNING, "it is protected"),
        (remote("b", owner=None), PRUNING, "its ownership mark is missing"),
        (remote("b", mark_slug="c"), PRUNING, "made for another slug"),
    ],
)
def test_a_leftover_function_is_kept_when_in_doubt(record: RemoteFunction, policy: Policy, reason: str) -> None:
    """A warning names each function that is kept, with the reason."""
    plan = plan_of(desired(want("a")), [remote("a"), record], memory(owned(record)), policy)
    assert plan.steps[1].action == "none"
    assert reason in plan.steps[1].reasons[0]
    (notice,) = plan.notices
    assert notice.message.endswith(": b")


def test_many_leftovers_make_one_warning() -> None:
    """Five are named, the others counted."""
    plan = plan_of(desired(want("z")), [remote("z"), *(remote(f"f{number}") for number in range(8))])
    (notice,) = plan.notices
    assert notice.message.endswith("f0, f1, f2, f3, f4 and 3 more")


def test_invalid_or_blocked_code_leaves_the_function_on_kapso_unchanged() -> None:
    """The step gives the reason."""
    invalid = step_of(unusable("a"), remote("a"))
    blocked = step_of(unusable("a", blocked=True), remote("a"))
    assert isinstance(invalid, Invalid)
    assert isinstance(blocked, Blocked)
    assert invalid.reasons == ("a.js:3:1: syntax error",)
    assert (blocked.wanted, blocked.function_id) == ("update", "id-a")
    (fresh,) = plan_of(desired(unusable("new", blocked=True)), []).steps
    assert isinstance(fresh, Blocked)
    assert fresh.wanted == "create"


def guarded(plan: Plan, limits: Limits = LIMITS) -> Guarded:
    return guard(plan, limits)


def test_deletions_wait_for_a_new_function_that_is_broken() -> None:
    """A file that was renamed and broken in one commit must not cost the function."""
    plan = plan_of(desired(want("a"), unusable("new-name")), [remote("a"), remote("old-name")], policy=PRUNING)
    result = guarded(plan)
    assert [step.action for step in result.plan.steps] == ["none", "invalid", "blocked"]
    assert "`new-name` cannot be used: it may be the same function under a new name" in result.held[0].reason


def test_an_empty_source_is_refused() -> None:
    """Nothing listed at all looks like a mistake; one setting allows it."""
    plan = plan_of(desired(), [remote("a")], policy=PRUNING)
    with pytest.raises(EmptySource) as raised:
        guarded(plan)
    assert "KAPSO_SYNC_ALLOW_EMPTY=true" in str(raised.value.hint)
    assert raised.value.exit_code is ExitCode.INVALID
    assert guarded(plan, replace(LIMITS, allow_empty=True)).plan.summary["delete"] == 1


@pytest.mark.parametrize(("limit", "held"), [(MaxDelete(2), True), (MaxDelete(3), False), (MaxDelete(50, percent=True), True)])
def test_recreations_are_limited_like_deletions(limit: MaxDelete, held: bool) -> None:
    """Three of four owned functions vanished: over the limit none is recreated, and the reason says how to allow it."""
    known = memory(*(owned(remote(slug)) for slug in "abcd"))
    plan = plan_of(desired(*(want(slug) for slug in "abcd")), [remote("a")], known)
    result = guarded(plan, Limits(limit))
    assert bool(result.held) is held
    if held:
        assert "--allow-recreate" in result.held[0].hint
        assert not guarded(plan, Limits(limit, allow_recreate=True)).held


def test_quota_is_a_warning_before_anything_starts() -> None:
    """How many Workers are wanted, and how many were seen to fit, Supabase functions apart."""
    quota = QuotaRefusal(2, "Worker limit reached", "2026-01-01T00:00:00+00:00")
    known = replace(memory(), quota=quota)
    git = desired(want("a"), want("b"), want("c"), want("s", function_type="supabase_function"), want("d", deploy=False))
    (notice,) = plan_of(git, [remote("a"), remote("b")], known).notices
    assert notice.message.startswith("3 functions want to be deployed, 2 are known to fit: Kapso said “Worker limit reached”")
    assert not plan_of(desired(want("a"), want("b")), [remote("a"), remote("b")], known).notices


def test_checks_whose_headers_get_lost_are_a_warning_where_the_doctor_saw_it() -> None:
    """Signed ones as well; not those that `test` alone sends, and nothing where nobody asked, or headers arrive."""
    checks = {
        "a": Check({}, headers=(("X-A", "b"),)),
        "b": Check({}, sign=CheckSignature("X-S", "KEY")),
        "c": Check({}),
        "d": Check(None, method=CheckMethod.GET, headers=(("X-A", "b"),)),
    }
    git = desired(*(replace(want(s), entry=replace(want(s).entry, checks=(check,))) for s, check in checks.items()))
    for seen, codes in ((False, ["headers-lost"]), (True, []), (None, [])):
        notices = plan_of(git, [], replace(memory(), facts=ApiFacts(headers_reach=seen))).notices
        assert [notice.code for notice in notices] == codes
        assert all(notice.message.endswith("`headers` or `sign` are not sent: a, b") for notice in notices)


def test_the_digest_covers_what_is_written_and_what_it_replaces() -> None:
    """Another code, another remote content, another owner: another digest."""
    plans = [
        plan_of(desired(want("a")), []),
        plan_of(desired(want("a", CODE_B)), []),
        plan_of(desired(want("a", CODE_B)), [remote("a")]),
        plan_of(desired(want("a", CODE_B)), [remote("a", "// third")]),
        plan_of(desired(want("a")), [], policy=replace(POLICY, owner="example.com/else")),
    ]
    assert len({plan.digest for plan in plans}) == len(plans)


def test_moved_from_renames_a_slug_and_keeps_the_id() -> None:
    """``moved_from`` renames what is ours, unless the old slug is still wanted or is not ours."""
    entry = want("new", moved_from="old")
    assert step_of(entry, remote("old")).action == "rename"
    assert step_of(entry, remote("old", owner="example.com/other")).action == "create"
    both = plan_of(desired(entry, want("old")), [remote("old")])
    assert [step.action for step in both.steps] == ["create", "none"]


def test_a_description_is_compared_without_its_mark() -> None:
    """A changed mark alone is not drift; null and empty text are equal."""
    assert isinstance(step_of(want("a", description="Text"), remote("a", text="Text")), NoChange)
    assert isinstance(step_of(want("a", description=""), remote("a")), NoChange)
    step = step_of(want("a", description="New"), remote("a", text="Text"), memory(owned(remote("a", text="Text"))))
    assert "-description: Text\n+description: New\n" in step.diff
    assert "kapso-sync:" not in step.diff


def test_the_function_type_defaults_to_a_worker() -> None:
    """Without a type in the entry a function is a Worker, as on Kapso."""
    assert isinstance(want("a").entry, Entry)
    assert want("a").entry.function_type == "cloudflare_worker"
