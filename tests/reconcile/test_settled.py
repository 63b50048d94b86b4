"""A plan that uses steps of the last one again is the plan that would be made without them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import CodeStyle, Desired, DesiredFunction, SecretValue, WatchPolicy
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.plan import NoChange, Plan, Policy
from kapso_sync.model.policies import DriftPolicy
from kapso_sync.model.state import DeploymentWatch, InventoryRecord, ReconcilerState, WatchFinding
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from kapso_sync.reconcile.plan.secrets import SecretListing
from kapso_sync.reconcile.plan.settled import SettledSteps
from tests.builders import CODE_B, DAWN, OWNER, POLICY, desired, memory, moment, owned, remote, want

CONFIG: dict[str, Json] = {"on": 1}


def git_a(drift: DriftPolicy | None = None) -> DesiredFunction:
    return want("a", runtime_config=CONFIG, public_endpoint=True, drift=drift)


def kapso_a(owner: str | None = OWNER) -> RemoteFunction:
    return remote("a", runtime_config=CONFIG, public_endpoint=True, owner=owner)


B = want("b", moved_from="c")


@dataclass(frozen=True)
class World:
    """Everything that a plan is made from."""

    a: DesiredFunction
    on_kapso: RemoteFunction
    known: InventoryRecord | None
    state: ReconcilerState
    policy: Policy = POLICY
    beside: tuple[RemoteFunction, ...] = ()
    listing: SecretListing | None = None

    @property
    def git(self) -> Desired:
        return desired(self.a, B)

    def plan(self, settled: SettledSteps | None = None) -> Plan:
        known = () if self.known is None else (self.known,)
        state = replace(self.state, owned={**self.state.owned, **memory(*known).owned})
        observed = resolve_intents((self.on_kapso, *self.beside), state, OWNER)
        secrets = {} if self.listing is None else {self.on_kapso.id: self.listing}
        observed = replace(observed, secrets=secrets)
        return make_plan(self.git, observed, self.policy, settled)


def in_sync() -> World:
    b = remote("b")
    a = kapso_a()
    git = git_a()
    plan = World(git, a, owned(a, wanted=git.content), memory(owned(b)), beside=(b,)).plan()
    # What the first look learns is known from then on.
    learned = {step.slug: step.record for step in plan.steps if isinstance(step, NoChange) and step.record is not None}
    return World(git, a, learned.get("a") or owned(a, wanted=git.content), memory(learned.get("b") or owned(b)), beside=(b,))


START = in_sync()
assert START.known is not None
KNOWN = START.known
FAILING = WatchFinding("it fails", "3 of 3")


CHANGES = {
    "nothing": START,
    "the code in git": replace(START, a=replace(START.a, code=CODE_B)),
    "one for true in git": replace(START, a=want("a", public_endpoint=1, runtime_config={"on": 1})),
    "a value in git": replace(START, a=want("a", public_endpoint=False, runtime_config={"on": 1})),
    "drift is only reported": replace(START, a=git_a(DriftPolicy.REPORT)),
    "a style": replace(START, a=replace(START.a, style=CodeStyle.SCRIPT)),
    "the code on Kapso": replace(START, on_kapso=replace(START.on_kapso, code=CODE_B)),
    "no code on Kapso": replace(START, on_kapso=replace(START.on_kapso, code=None)),
    "one for true on Kapso": replace(START, on_kapso=remote("a", public_endpoint=1, runtime_config={"on": 1})),
    "true for one on Kapso": replace(START, on_kapso=remote("a", public_endpoint=True, runtime_config={"on": True})),
    "the mark": replace(START, on_kapso=kapso_a(None)),
    "the owner": replace(START, on_kapso=kapso_a("example.com/other/flows")),
    "the slug": replace(START, on_kapso=replace(START.on_kapso, slug="z")),
    "the status": replace(START, on_kapso=replace(START.on_kapso, status=DeploymentStatus.ERROR)),
    "saved again": replace(START, on_kapso=replace(START.on_kapso, updated_at=moment(99))),
    "deployed again": replace(START, on_kapso=replace(START.on_kapso, last_deployed_at=moment(99))),
    "another id": replace(START, on_kapso=replace(START.on_kapso, id="id-2")),
    "corrections": replace(START, known=replace(KNOWN, corrections=2)),
    "nothing is known": replace(START, known=None),
    "the policy": replace(START, policy=replace(POLICY, retry=frozenset({"a"}))),
    "former owners": replace(START, state=replace(START.state, owners=frozenset({"example.com/other/flows"}))),
    "secrets": replace(START, listing=SecretListing(frozenset({"KEY"}), DAWN)),
    "only modules run here": replace(START, state=replace(START.state, facts=ApiFacts(script_runs=False, module_runs=True))),
    "what a deployment shows": replace(
        START, state=replace(START.state, facts=ApiFacts(script_runs=True, lock_version_moves_on_deploy=True))
    ),
    "a watch": replace(
        START,
        a=git_a(),
        state=replace(
            START.state, watches={"id-a": DeploymentWatch("a", "id-a", WatchPolicy(), "hash", DAWN, finding=FAILING)}
        ),
    ),
    "a rename": replace(START, beside=(replace(START.beside[0], slug="c"),)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_plan_after_another_is_as_if_it_were_the_first(what: str) -> None:
    """Whatever changed meanwhile; and if nothing did, the steps are those of the last plan."""
    settled = SettledSteps()
    before = START.plan(settled)
    assert {type(step) for step in before.steps} == {NoChange}
    changed = CHANGES[what]
    after = changed.plan(settled)
    assert after == changed.plan()
    assert changed.plan(settled) == after
    if what in ("nothing", "what a deployment shows"):
        assert all(one is other for one, other in zip(before.steps, after.steps, strict=True))


def test_nothing_of_kapsos_record_is_kept() -> None:
    """Thousands of steps wait for the next pass: what tells a record from others is a digest, and what is kept anyway."""
    settled = SettledSteps()
    address = "https://functions.example/" + "x" * 500
    world = replace(START, on_kapso=replace(START.on_kapso, worker_address=address))
    (step, _), (again, _) = world.plan(settled).steps, world.plan(settled).steps
    assert again is step, "it is one of those that are kept"
    assert address not in repr(vars(settled))
    assert str(KNOWN.wanted["code"]) in repr(vars(settled)), "and its hash is"


def test_a_field_that_kapso_does_not_show_is_noticed_in_each_plan() -> None:
    """Also where nothing has changed since the last one."""
    shown = {name: value for name, value in START.on_kapso.fields.items() if name != "public_endpoint"}
    stored = {name: value for name, value in KNOWN.stored.items() if name != "public_endpoint"}
    world = replace(START, on_kapso=replace(START.on_kapso, fields=shown), known=replace(KNOWN, stored=stored))
    settled = SettledSteps()
    codes = [[notice.code for notice in world.plan(settled).notices] for _ in range(3)]
    assert codes == 3 * [["unknown-field"]]


def test_a_function_with_secrets_is_always_planned() -> None:
    """A value of its own may have changed, which neither git nor Kapso shows."""
    settled = SettledSteps()
    START.plan(settled)
    changed = replace(START, a=replace(START.a, secrets={"KEY": SecretValue("new", "digest")}))
    assert changed.plan(settled) == changed.plan()
