"""Secrets of functions: set once, changed by a POST, kept by every deployment, never lost unreported, never stored."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kapso_sync.emulator.options import Behaviour
from kapso_sync.errors import ApiRejected, Call, KapsoSyncError, SecretRoutesUnavailable
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import Check, Desired, DesiredFunction, KeepSecret, PlainSecret, SecretValue
from kapso_sync.model.events import SecretLost
from kapso_sync.model.functions import Invocation, RemoteSecret
from kapso_sync.model.json_values import Json
from kapso_sync.model.plan import Blocked, NoChange
from kapso_sync.model.policies import DriftPolicy, PassOverrides, UnknownSecrets
from kapso_sync.model.report import Report, Result
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.reconcile.desired import keyed_digest
from kapso_sync.store.database import StateStore
from tests.builders import CODE_A, CODE_B, POLICY, desired, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed, WorldApi, new_world

digest = keyed_digest(b"k" * 32)
SET = ("POST", "/functions/{id}/secrets")
DROP = ("DELETE", "/functions/{id}/secrets/{name}")
LIST = ("GET", "/functions/{id}/secrets")
DEPLOY = ("POST", "/functions/{id}/deploy")


def with_secrets(code: str = CODE_A, slug: str = "a", *, exact: bool = False, **values: Any) -> DesiredFunction:
    """A function with these secrets."""
    function = want(slug, code)
    sources = {name: PlainSecret(value) for name, value in values.items()}
    given = {name: SecretValue(value, digest(name, value)) for name, value in values.items()}
    entry = replace(function.entry, secrets=sources, exact_secrets=exact)
    return replace(function, entry=entry, secrets=given)


def secrets_of(bench: Bench, slug: str = "a") -> dict[str, Json]:
    return dict(bench.api.world.function(slug).secrets)


def only(report: Report) -> Result:
    (outcome,) = report.outcomes
    return outcome.result


async def test_secrets_are_set_after_the_first_deployment_and_deployed_once(bench: Bench) -> None:
    """A draft cannot have secrets; all of them together need one more deployment, and then no call."""
    report = await bench.sync(desired(with_secrets(ONE="1", TWO="2")))
    assert (only(report), secrets_of(bench)) == (Result.DONE, {"ONE": "1", "TWO": "2"})
    assert (bench.api.count(*SET), bench.api.count(*DEPLOY), bench.api.count(*LIST)) == (2, 2, 1)
    assert bench.names().count("secret.set") == 2
    bench.api.log.clear()
    assert (await bench.sync(desired(with_secrets(ONE="1", TWO="2")))).plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]


async def test_fifty_functions_with_unchanged_secrets_cost_one_list_call(bench: Bench) -> None:
    """Rotating one secret is a POST and a deployment, with a read before and after it."""
    values: dict[str, Any] = {f"S{number}": "x" for number in range(5)}
    functions = [with_secrets(slug=f"f{number:02d}", **values) for number in range(50)]
    bench.api.world.behaviour = Behaviour(post_of_existing="overwrite")
    await bench.sync(desired(*functions))
    assert bench.api.count(*LIST) <= 2 * len(functions)
    bench.api.log.clear()
    assert (await bench.sync(desired(*functions))).plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]
    rotated = [with_secrets(slug="f00", **(values | {"S3": "new"})), *functions[1:]]
    await bench.sync(desired(*rotated))
    assert [entry[:2] for entry in bench.api.writes] == [SET, DEPLOY]
    assert bench.api.count(*LIST) == 2


async def test_the_plan_names_secrets_and_never_values(bench: Bench) -> None:
    """It names secrets that are set, changed and removed; a sync afterwards sets the value that the plan does not show."""
    await bench.sync(desired(with_secrets(ONE="1", GONE="g")))
    plan = await bench.plan(desired(with_secrets(exact=True, ONE="s3cret-value", TWO="2")))
    (step,) = plan.steps
    assert (step.action, step.fields, step.deploys) == ("update", ("secrets",), True)
    assert step.reasons == ("sets secret TWO", "changes secret ONE", "removes secret GONE")
    assert "s3cret-value" not in repr(plan)
    await bench.sync(desired(with_secrets(exact=True, ONE="s3cret-value", TWO="2")))
    assert secrets_of(bench)["ONE"] == "s3cret-value"


async def test_exact_secrets_removes_secrets_that_the_manifest_does_not_name(bench: Bench) -> None:
    """By default they are left alone."""
    await bench.sync(desired(with_secrets(ONE="1", TWO="2")))
    assert (await bench.sync(desired(with_secrets(ONE="1")))).plan.in_sync
    await bench.sync(desired(with_secrets(ONE="1", exact=True)))
    assert secrets_of(bench) == {"ONE": "1"}
    assert "secret.removed" in bench.names()


async def test_turning_exact_secrets_on_takes_effect_at_once(bench: Bench) -> None:
    """A secret that somebody added on Kapso is removed in the next pass, not on the next day; then no call is made."""
    await bench.sync(desired(with_secrets(ONE="1")))
    bench.api.world.set_secret(bench.api.world.function("a"), "EXTRA", "e")
    assert (await bench.sync(desired(with_secrets(ONE="1")))).plan.in_sync
    await bench.sync(desired(with_secrets(ONE="1", exact=True)))
    assert secrets_of(bench) == {"ONE": "1"}
    bench.api.log.clear()
    assert (await bench.sync(desired(with_secrets(ONE="1", exact=True)))).plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]


async def test_existing_secrets_with_unknown_values_are_kept_until_reset(bench: Bench) -> None:
    """The state is lost: a warning, one look-up, and --reset-secrets sets them."""
    git = desired(with_secrets(ONE="1", NEW="n"))
    await bench.sync(desired(with_secrets(ONE="old")))
    lost = Bench(bench.folder.with_name("another"), bench.clock, bench.api)
    await lost.sync(git)
    assert secrets_of(bench) == {"ONE": "old", "NEW": "n"}
    again = await lost.sync(git)
    assert [notice.code for notice in again.plan.notices] == ["unverified-secret"]
    assert "a ONE" in again.plan.notices[0].message
    bench.api.log.clear()
    again = await lost.sync(git)
    assert again.plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]
    lost.policy = replace(POLICY, reset_secrets=True)
    await lost.sync(git)
    assert secrets_of(bench) == {"ONE": "1", "NEW": "n"}
    lost.policy = POLICY
    assert (await lost.sync(git)).plan.notices == ()


async def test_a_rename_after_lost_state_keeps_secrets(bench: Bench) -> None:
    """The names are read from the function that moves, not from the one that has the slug before."""
    await bench.sync(desired(with_secrets(ONE="old"), with_secrets(CODE_B, "b", TWO="old")))
    lost = Bench(bench.folder.with_name("another"), bench.clock, bench.api)
    moved, other = with_secrets(slug="new", ONE="1"), with_secrets(CODE_B, "b", TWO="2", MORE="m")
    git = desired(replace(moved, entry=replace(moved.entry, moved_from=("a",))), other)
    report = await lost.sync(git)
    assert [outcome.result for outcome in report.outcomes] == [Result.DONE, Result.DONE]
    again = await lost.sync(git)
    assert again.plan.in_sync
    assert [notice.code for notice in again.plan.notices] == ["unverified-secret"]
    assert (secrets_of(bench, "new"), secrets_of(bench, "b")) == ({"ONE": "old"}, {"TWO": "old", "MORE": "m"})


async def test_secret_names_that_kapso_hides_before_a_deployment_are_read_after_it(bench: Bench) -> None:
    """A function that is down shows no names: its secrets are left alone all the same."""
    await bench.sync(desired(with_secrets(ONE="old")))
    function = bench.api.world.function("a")
    bench.api.world.deploy(function, failure="out of luck")
    await bench.clock.sleep(60)
    lost = Bench(bench.folder.with_name("another"), bench.clock, bench.api)
    git = desired(with_secrets(CODE_B, ONE="1", NEW="n"))
    assert only(await lost.sync(git)) is Result.DONE
    again = await lost.sync(git)
    assert (again.plan.in_sync, secrets_of(bench)) == (True, {"ONE": "old", "NEW": "n"})
    assert [notice.code for notice in again.plan.notices] == ["unverified-secret"]


async def test_secret_digests_of_a_lost_key_count_as_unknown(bench: Bench) -> None:
    """A lost digest key causes no rewrite."""
    await bench.sync(desired(with_secrets(ONE="1")))
    other = keyed_digest(b"o" * 32)
    function = with_secrets(ONE="1")
    function = replace(function, secrets={"ONE": SecretValue("1", other("ONE", "1"))})
    plan = await bench.plan(desired(function))
    assert isinstance(plan.steps[0], NoChange)
    assert [notice.code for notice in plan.notices] == ["unverified-secret"]


async def test_a_secret_deleted_on_kapso_is_set_again(bench: Bench) -> None:
    """Found when the function was changed there, and at the latest after a day."""
    git = desired(with_secrets(ONE="1"))
    await bench.sync(git)
    world = bench.api.world
    world.delete_secret(world.function("a"), "ONE")
    assert (await bench.sync(git)).plan.in_sync
    await bench.clock.sleep(timedelta(days=1).total_seconds() + 1)
    await bench.sync(git)
    assert secrets_of(bench) == {"ONE": "1"}


@pytest.mark.history
@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER, Fate.UNAVAILABLE])
async def test_killed_at_any_call_no_secret_stays_missing(tmp_path: Path, fate: Fate) -> None:
    """The next pass ends with the wanted values, deployed."""
    position = 0
    while True:
        position += 1
        clock = VirtualClock()
        bench = Bench(tmp_path / f"{position}", clock, WorldApi(new_world(clock)))
        await bench.sync(desired(with_secrets(ONE="1", TWO="2", OLD="o")))
        bench.api.log.clear()
        reached = False

        def decide(number: int, *_: str, at: int = position) -> Fate:
            nonlocal reached
            reached = reached or number == at
            return fate if number == at else Fate.FINE

        bench.api.fate = decide
        git = desired(with_secrets(CODE_B, exact=True, ONE="new", TWO="2", MORE="m"))
        with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
            await bench.sync(git)
        bench.api.fate = lambda *_: Fate.FINE
        await clock.sleep(100)
        await bench.sync(git)
        report = await bench.sync(git)
        assert report.plan.in_sync, (position, report.plan.steps)
        assert secrets_of(bench) == {"ONE": "new", "TWO": "2", "MORE": "m"}, position
        function = bench.api.world.function("a")
        assert (function.live_code, bench.memory().owned[function.id].secrets.undeployed) == (CODE_B, False)
        if not reached:
            break
    assert position > 8


async def test_a_secret_that_cannot_be_set_is_an_error_in_every_pass(bench: Bench) -> None:
    """A refusal that does not call the name taken deletes nothing: the old value stays, and is not recorded as the new one."""
    await bench.sync(desired(with_secrets(ONE="1")))
    refuse = bench.api.set_secret

    async def refused(function_id: str, name: str, value: Json) -> None:
        from kapso_sync.errors import Call

        raise ApiRejected("the value is too odd", call=Call(*SET))

    bench.api.set_secret = refused  # type: ignore[method-assign]
    for _ in range(3):
        report = await bench.sync(desired(with_secrets(ONE="s3cret-value")))
        assert (only(report), secrets_of(bench)) == (Result.FAILED, {"ONE": "1"})
    bench.api.set_secret = refuse  # type: ignore[method-assign]
    assert only(await bench.sync(desired(with_secrets(ONE="s3cret-value")))) is Result.DONE


async def test_no_secret_value_is_in_state_journal_backups_or_events(bench: Bench) -> None:
    """Digests are stored instead."""
    await bench.sync(desired(with_secrets(ONE="s3cret-value-1")))
    await bench.sync(desired(with_secrets(CODE_B, ONE="s3cret-value-2")))
    kept = b"".join(path.read_bytes() for path in bench.folder.rglob("*") if path.is_file())
    assert secrets_of(bench) == {"ONE": "s3cret-value-2"}
    assert b"ONE" in kept
    assert b"s3cret-value" not in kept
    assert "s3cret-value" not in repr(bench.events)


async def test_checks_run_after_secrets_are_set(bench: Bench) -> None:
    """A check that needs the secret passes; and a rollback keeps the secrets."""

    def needs(function: object) -> Invocation:
        world_function = bench.api.world.function("a")
        assert function is world_function
        bad = world_function.live_code == CODE_B
        return Invocation(200 if world_function.secrets.get("ONE") and not bad else 500, "", "")

    def checked(function: DesiredFunction) -> Desired:
        return desired(replace(function, entry=replace(function.entry, checks=(Check({}, status=200),))))

    bench.api.runtime = needs
    assert only(await bench.sync(checked(with_secrets(ONE="1")))) is Result.DONE
    assert only(await bench.sync(checked(with_secrets(CODE_B, ONE="2")))) is Result.FAILED
    assert (bench.api.world.live_code(), secrets_of(bench)) == ({"a": CODE_A}, {"ONE": "2"})


async def test_secrets_are_set_during_quarantine(bench: Bench) -> None:
    """A kill between delete and set is repaired, and a changed value is set, while the code waits for a fix."""

    def checked(code: str, value: str) -> Desired:
        function = with_secrets(code, ONE=value)
        return desired(replace(function, entry=replace(function.entry, checks=(Check({}, status=200),))))

    bench.api.runtime = lambda function: Invocation(500 if function.live_code == CODE_B else 200, "", "")
    deploy = bench.api.deploy
    await bench.sync(checked(CODE_A, "1"))
    bench.api.fate = lambda _number, method, route: Fate.KILLED_AFTER if (method, route) == DROP else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(checked(CODE_A, "2"))
    bench.api.fate = lambda *_: Fate.FINE
    assert secrets_of(bench) == {}
    bench.api.deploy = lambda f: bench.api.world.deploy(f, failure="out of luck") if f.code == CODE_B else deploy(f)
    for value in ("2", "2", "3"):
        report = await bench.sync(checked(CODE_B, value))
        assert (only(report), report.outcomes[0].quarantine is not None) == (Result.FAILED, True)
        await bench.clock.sleep(100)
    assert isinstance((await bench.plan(checked(CODE_B, "3"))).steps[0], Blocked)
    function = bench.api.world.function("a")
    assert (function.live_code, secrets_of(bench)) == (CODE_A, {"ONE": "3"})
    assert bench.memory().owned[function.id].secrets.undeployed is False
    bench.api.deploy = deploy
    bench.api.runtime = lambda _function: Invocation(200, "", "")
    assert (
        only(await bench.sync(checked(CODE_B, "3"), PassRequest(overrides=PassOverrides(retry=frozenset("a"))))) is Result.DONE
    )
    assert function.live_code == CODE_B


async def test_a_base_without_secrets_blocks_functions_that_need_them_with_one_warning(bench: Bench) -> None:
    """Nothing of such a function is written."""
    await bench.sync(desired(want("a"), want("b")))

    async def unknown(function_id: str) -> tuple[RemoteSecret, ...]:
        from kapso_sync.errors import ApiNotFound, Call

        raise ApiNotFound("answered 404", call=Call(*LIST), status=404)

    bench.api.list_secrets = unknown  # type: ignore[method-assign]
    report = await bench.sync(desired(with_secrets(CODE_B, ONE="1"), with_secrets(CODE_B, "b", ONE="1")))
    assert all(isinstance(outcome.step, Blocked) for outcome in report.outcomes)
    assert [notice.code for notice in report.plan.notices] == ["no-secrets"]
    assert bench.api.world.live_code() == {"a": CODE_A, "b": CODE_A}
    assert "function.conflict" not in bench.names()


async def test_secrets_work_with_both_list_shapes_and_without_code_in_lists(tmp_path: Path) -> None:
    """Lists of names come in two envelopes."""
    clock = VirtualClock()
    bench = Bench(tmp_path / "state", clock, WorldApi(new_world(clock, Behaviour(list_code=False))))
    git = desired(with_secrets(ONE="1"))
    await bench.sync(git)
    assert (await bench.sync(git)).plan.in_sync
    assert secrets_of(bench) == {"ONE": "1"}


def world(bench: Bench, **switches: object) -> None:
    bench.api.world.behaviour = bench.api.world.behaviour.changed(switches)


def secret_events(bench: Bench) -> list[tuple[str, ...]]:
    return [event.names for event in bench.events if isinstance(event, SecretLost)]


@pytest.mark.parametrize("kept", ["keep", "drop"])
@pytest.mark.parametrize("existing", ["refuse", "overwrite"])
@pytest.mark.parametrize("change", ["first", "code", "rotate", "rename", "both"])
async def test_secrets_are_there_after_every_kind_of_deployment(bench: Bench, kept: str, existing: str, change: str) -> None:
    """Whether deployments keep or drop them, and whether a POST overwrites: a function in sync has its secrets."""
    world(bench, secrets_on_deploy=kept, post_of_existing=existing)
    await bench.sync(desired(with_secrets(ONE="1", TWO="2")))
    wanted = {
        "first": with_secrets(ONE="1", TWO="2"),
        "code": with_secrets(CODE_B, ONE="1", TWO="2"),
        "rotate": with_secrets(ONE="1", TWO="new"),
        "rename": with_secrets(slug="b", ONE="1", TWO="2"),
        "both": with_secrets(CODE_B, ONE="new", TWO="2", THREE="3"),
    }[change]
    if change == "rename":
        wanted = replace(wanted, entry=replace(wanted.entry, moved_from=("a",)))
    report = await bench.sync(desired(wanted))
    assert report.exit_code == 0
    expected = {name: value.value for name, value in wanted.secrets.items()}
    assert secrets_of(bench, wanted.slug) == expected
    bench.api.log.clear()
    assert (await bench.sync(desired(wanted))).plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]
    assert bench.memory().facts.secrets_survive is (kept == "keep")


async def test_a_base_that_drops_secrets_is_deployed_once_for_new_ones(bench: Bench) -> None:
    """The behaviour is remembered: the next function's secrets need no deployment of their own."""
    world(bench, secrets_on_deploy="drop")
    await bench.sync(desired(with_secrets(ONE="1")))
    assert bench.memory().facts.secrets_survive is False
    bench.api.log.clear()
    await bench.sync(desired(with_secrets(ONE="1"), with_secrets(slug="b", ONE="1")))
    assert bench.api.count(*DEPLOY) == 1
    assert secrets_of(bench, "b") == {"ONE": "1"}
    assert (await bench.sync(desired(with_secrets(ONE="1"), with_secrets(slug="b", ONE="1")))).plan.in_sync


async def test_a_rollback_sets_dropped_secrets_again(bench: Bench) -> None:
    """A failing check causes a rollback, whose deployment drops secrets like any other."""
    world(bench, secrets_on_deploy="drop")
    bench.api.runtime = lambda function: Invocation(500 if function.live_code == CODE_B else 200, "", "")

    def checked(code: str) -> DesiredFunction:
        function = with_secrets(code, ONE="1")
        return replace(function, entry=replace(function.entry, checks=(Check({}, status=200),)))

    await bench.sync(desired(checked(CODE_A)))
    report = await bench.sync(desired(checked(CODE_B)))
    assert report.outcomes[0].quarantine is not None
    assert (bench.api.world.live_code(), secrets_of(bench)) == ({"a": CODE_A}, {"ONE": "1"})


async def test_a_resumed_rollback_is_not_blocked_by_secrets_of_git(bench: Bench) -> None:
    """It died before its write; the base is known to drop secrets, and all their values are known."""
    world(bench, secrets_on_deploy="drop")
    bench.api.runtime = lambda function: Invocation(500 if function.live_code == CODE_B else 200, "", "")

    def checked(code: str) -> Desired:
        function = with_secrets(code, ONE="1")
        return desired(replace(function, entry=replace(function.entry, checks=(Check({}, status=200),))))

    await bench.sync(checked(CODE_A))
    bench.api.fate = lambda *_: Fate.KILLED_BEFORE if "rollback.started" in bench.names() else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(checked(CODE_B))
    bench.api.fate = lambda *_: Fate.FINE
    assert bench.api.world.live_code() == {"a": CODE_B}
    report = await bench.sync(checked(CODE_B))
    assert (only(report), report.outcomes[0].quarantine is not None) == (Result.FAILED, True)
    assert (bench.api.world.live_code(), secrets_of(bench)) == ({"a": CODE_A}, {"ONE": "1"})


async def test_a_dashboard_secret_is_warned_of_and_reported_when_a_deployment_loses_it(bench: Bench) -> None:
    """The behaviour of this base is unknown yet, so the deployment goes on."""
    world(bench, secrets_on_deploy="drop")
    await bench.sync(desired(want("a")))
    bench.api.world.set_secret(bench.api.world.function("a"), "THEIRS", "t")
    plan = await bench.plan(desired(want("a", CODE_B)))
    assert [notice.code for notice in plan.notices] == ["secrets-at-risk"]
    assert "THEIRS" in plan.notices[0].message
    report = await bench.sync(desired(want("a", CODE_B)))
    assert (only(report), report.exit_code) == (Result.FAILED, 1)
    assert "lost secret THEIRS" in str(report.outcomes[0].error)
    assert secret_events(bench) == [("THEIRS",)]
    assert bench.api.world.live_code() == {"a": CODE_B}
    assert (await bench.sync(desired(want("a", CODE_B)))).exit_code == 0
    assert secret_events(bench) == [("THEIRS",)]


@pytest.mark.parametrize(
    ("policy", "survive", "blocked"),
    [
        (UnknownSecrets.BLOCK, None, True),
        (UnknownSecrets.BLOCK, True, True),
        (UnknownSecrets.AUTO, False, True),
        (UnknownSecrets.AUTO, True, False),
        (UnknownSecrets.AUTO, None, False),
        (UnknownSecrets.ALLOW, False, False),
    ],
)
async def test_a_deployment_that_may_lose_secrets_is_blocked_by_policy(
    bench: Bench,
    policy: UnknownSecrets,
    survive: bool | None,
    blocked: bool,
) -> None:
    """As set, or as this base was seen to behave; the reason names the secret and the setting."""
    await bench.sync(desired(want("a")))
    bench.api.world.set_secret(bench.api.world.function("a"), "THEIRS", "t")
    with StateStore(bench.folder, bench.clock.now) as store:
        store.learn(ApiFacts(secrets_survive=survive))
    bench.policy = replace(POLICY, unknown_secrets=policy)
    bench.settings = replace(bench.settings, unknown_secrets=policy)
    report = await bench.sync(desired(want("a", CODE_B)))
    assert (only(report) is Result.BLOCKED) is blocked
    assert bench.api.world.live_code() == {"a": CODE_A if blocked else CODE_B}
    if blocked:
        assert "THEIRS" in str(report.outcomes[0].error)
        assert "KAPSO_SYNC_UNKNOWN_SECRETS" in str(report.outcomes[0].hint)


@pytest.mark.parametrize("learned", ["before", "in this pass"])
@pytest.mark.parametrize(
    ("there", "reason", "named", "not_named"),
    [
        ((), "secret OURS, which git no longer names", "`secrets_policy: exact`", "KAPSO_SYNC_UNKNOWN_SECRETS"),
        (
            ("THEIRS",),
            "secret THEIRS, whose value is not known here, and OURS, which git no longer names",
            "KAPSO_SYNC_UNKNOWN_SECRETS",
            "exact",
        ),
    ],
)
async def test_a_secret_that_git_no_longer_names_is_blocked_for_as_one_that_we_set(
    bench: Bench, learned: str, there: tuple[str, ...], reason: str, named: str, not_named: str
) -> None:
    """The hint names what helps, and nothing that puts another secret at risk."""
    world(bench, secrets_on_deploy="drop")
    await bench.sync(desired(with_secrets(ONE="1", OURS="o"), with_secrets(slug="b", ONE="1")))
    for name in there:
        bench.api.world.set_secret(bench.api.world.function("a"), name, "t")
    if learned == "in this pass":
        with StateStore(bench.folder, bench.clock.now) as store:
            store.learn(ApiFacts())
    report = await bench.sync(desired(with_secrets(CODE_B, ONE="1"), with_secrets(CODE_B, "b", ONE="1")))
    blocked, _ = report.outcomes
    assert (blocked.result, secrets_of(bench)["OURS"]) == (Result.BLOCKED, "o")
    assert reason in str(blocked.error)
    assert (named in str(blocked.hint), not_named in str(blocked.hint)) == (True, False)
    assert ("just seen" in str(blocked.error)) is (learned == "in this pass")


async def test_a_kept_secret_is_at_risk_whoever_set_it(bench: Bench) -> None:
    """`keep: true` gives no value: a deployment on a base that drops secrets would lose it."""
    world(bench, secrets_on_deploy="drop")
    await bench.sync(desired(with_secrets(OURS="o")))
    report = await bench.sync(desired(keeping("OURS", code=CODE_B)))
    assert "secret OURS, whose value is not known here" in str(report.outcomes[0].error)
    assert secrets_of(bench) == {"OURS": "o"}


async def test_functions_with_known_secrets_are_deployed_first_to_learn_secret_loss(bench: Bench) -> None:
    """In one pass: that function loses and regains its secret, and the other one is not deployed any more."""
    world(bench, secrets_on_deploy="keep")
    await bench.sync(desired(want("a"), with_secrets(slug="z", ONE="1")))
    bench.api.world.set_secret(bench.api.world.function("a"), "THEIRS", "t")
    with StateStore(bench.folder, bench.clock.now) as store:
        store.learn(ApiFacts())
    world(bench, secrets_on_deploy="drop")
    report = await bench.sync(desired(want("a", CODE_B), with_secrets(CODE_B, "z", ONE="1")))
    assert [outcome.result for outcome in report.outcomes] == [Result.BLOCKED, Result.DONE]
    assert (secrets_of(bench, "a"), secrets_of(bench, "z")) == ({"THEIRS": "t"}, {"ONE": "1"})


async def sync_cut_short(bench: Bench, git: Desired, number: int, fate: Fate) -> None:
    """One pass, with this fate of one of its calls."""
    start = bench.api.calls
    bench.api.fate = lambda call, *_: fate if call == start + number else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
        await bench.sync(git)
    bench.api.fate = lambda *_: Fate.FINE


@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER])
@pytest.mark.parametrize("number", range(1, 14))
async def test_secrets_survive_a_kill_at_any_call_where_deployments_drop_them(bench: Bench, fate: Fate, number: int) -> None:
    """The next pass checks the secrets after an unfinished deployment."""
    world(bench, secrets_on_deploy="drop")
    await bench.sync(desired(with_secrets(ONE="1", TWO="2")))
    changed = desired(with_secrets(CODE_B, ONE="1", TWO="new"))
    await sync_cut_short(bench, changed, number, fate)
    for _ in range(2):
        await bench.sync(changed)
    assert (await bench.sync(changed)).plan.in_sync
    assert (bench.api.world.live_code(), secrets_of(bench)) == ({"a": CODE_B}, {"ONE": "1", "TWO": "new"})


async def test_a_secret_loss_before_a_kill_is_reported_by_the_next_pass(bench: Bench) -> None:
    """The process died between the deployment and the read after it."""
    await bench.sync(desired(want("a")))
    bench.api.world.set_secret(bench.api.world.function("a"), "THEIRS", "t")
    world(bench, secrets_on_deploy="drop")
    listed: list[int] = []

    def second_listing_dies(number: int, method: str, route: str) -> Fate:
        if (method, route) == LIST:
            listed.append(number)
        return Fate.KILLED_BEFORE if len(listed) == 2 else Fate.FINE

    bench.api.fate = second_listing_dies
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(desired(want("a", CODE_B)))
    assert secret_events(bench) == []
    bench.api.fate = lambda *_: Fate.FINE
    report = await bench.sync(desired(want("a", CODE_B)))
    assert (secret_events(bench), report.exit_code) == ([("THEIRS",)], 1)
    assert (await bench.sync(desired(want("a", CODE_B)))).exit_code == 0


async def lose_theirs_unseen(bench: Bench, git: Desired, changed: Desired) -> None:
    """A deployment of ``changed`` drops THEIRS, set in the dashboard, and the look at the secrets after it fails."""
    await bench.sync(git)
    bench.api.world.set_secret(bench.api.world.function("a"), "THEIRS", "t")
    world(bench, secrets_on_deploy="drop")
    bench.policy = replace(POLICY, unknown_secrets=UnknownSecrets.ALLOW)
    bench.settings = replace(bench.settings, unknown_secrets=UnknownSecrets.ALLOW)
    seen = bench.api.count(*DEPLOY)
    bench.api.fate = lambda _number, method, route: (
        Fate.UNAVAILABLE if (method, route) == LIST and bench.api.count(*DEPLOY) > seen else Fate.FINE
    )
    assert (await bench.sync(changed)).exit_code == 1
    bench.api.fate = lambda *_: Fate.FINE
    assert (secrets_of(bench), secret_events(bench)) == ({}, [])


@pytest.mark.parametrize("code", [CODE_B, f"{CODE_B}// newer"])
@pytest.mark.parametrize("survive", [True, False, None])
async def test_a_loss_is_reported_although_another_secret_is_set_again(bench: Bench, code: str, survive: bool | None) -> None:
    """Once, whether that pass deploys or only sets the secret, and whatever is known of this base."""
    await lose_theirs_unseen(bench, desired(with_secrets(ONE="1")), desired(with_secrets(CODE_B, ONE="1")))
    with StateStore(bench.folder, bench.clock.now) as store:
        store.learn(ApiFacts(secrets_survive=survive))
    report = await bench.sync(desired(with_secrets(code, ONE="1")))
    assert (only(report), report.exit_code, secret_events(bench)) == (Result.FAILED, 1, [("THEIRS",)])
    assert "lost secret THEIRS" in str(report.outcomes[0].error)
    assert (bench.api.world.live_code(), secrets_of(bench)) == ({"a": code}, {"ONE": "1"})
    report = await bench.sync(desired(with_secrets(code, ONE="1")))
    assert (report.plan.in_sync, report.exit_code, secret_events(bench)) == (True, 0, [("THEIRS",)])


async def test_the_plan_names_a_loss_that_is_not_reported_yet(bench: Bench) -> None:
    """Beside the secrets that it sets."""
    git = desired(with_secrets(CODE_B, ONE="1"))
    await lose_theirs_unseen(bench, desired(with_secrets(ONE="1")), git)
    (step,) = (await bench.plan(git)).steps
    assert step.reasons == ("sets secret ONE", "lost secret THEIRS: it is gone from Kapso, and its value is not known here")


async def test_a_loss_is_reported_by_a_write_that_needs_no_deployment(bench: Bench) -> None:
    """Only a field changes, and no secret is to be set."""
    await lose_theirs_unseen(bench, desired(want("a")), desired(want("a", CODE_B)))
    deployed = bench.api.count(*DEPLOY)
    function = want("a", CODE_B)
    git = desired(replace(function, entry=replace(function.entry, fields={**function.entry.fields, "name": "New"})))
    report = await bench.sync(git)
    assert (report.exit_code, secret_events(bench), bench.api.count(*DEPLOY)) == (1, [("THEIRS",)], deployed)
    assert (await bench.sync(git)).exit_code == 0


async def test_a_loss_that_was_seen_keeps_the_other_unknown_secrets_from_the_next_deployment(bench: Bench) -> None:
    """Nothing else was known of this base; in the same pass, another function with such a secret is not deployed."""
    await lose_theirs_unseen(bench, desired(want("a"), want("b")), desired(want("a", CODE_B), want("b")))
    bench.api.world.set_secret(bench.api.world.function("b"), "OTHER", "o")
    bench.policy = POLICY
    bench.settings = replace(bench.settings, unknown_secrets=UnknownSecrets.AUTO)
    assert bench.memory().facts.secrets_survive is None
    report = await bench.sync(desired(want("a", CODE_B), want("b", CODE_B)))
    assert [outcome.result for outcome in report.outcomes] == [Result.FAILED, Result.BLOCKED]
    assert (secret_events(bench), secrets_of(bench, "b")) == ([("THEIRS",)], {"OTHER": "o"})
    assert bench.memory().facts.secrets_survive is False


@pytest.mark.history
@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER, Fate.UNAVAILABLE])
@pytest.mark.parametrize("number", range(1, 8))
async def test_a_loss_is_reported_whatever_call_the_next_pass_dies_at(bench: Bench, fate: Fate, number: int) -> None:
    """It is known until it was reported."""
    git = desired(with_secrets(f"{CODE_B}// newer", ONE="1"))
    await lose_theirs_unseen(bench, desired(with_secrets(ONE="1")), desired(with_secrets(CODE_B, ONE="1")))
    await sync_cut_short(bench, git, number, fate)
    for _ in range(3):
        await bench.sync(git)
    assert {*secret_events(bench)} == {("THEIRS",)}
    assert (await bench.sync(git)).plan.in_sync


@pytest.mark.history
@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER, Fate.UNAVAILABLE])
@pytest.mark.parametrize("change", ["code", "only a deployment", "a failing check"])
@pytest.mark.parametrize("values", [{}, {"ONE": "1"}])
async def test_a_loss_is_reported_whatever_call_the_deploying_pass_dies_at(
    bench: Bench, tmp_path: Path, fate: Fate, change: str, values: dict[str, Any]
) -> None:
    """Also while the deployment runs, which takes the most time."""

    def checked(code: str) -> Desired:
        function = with_secrets(code, **values)
        return desired(replace(function, entry=replace(function.entry, checks=(Check({}, status=200),))))

    position, reached = 0, True
    while reached:
        position += 1
        clock = VirtualClock()
        bench = Bench(tmp_path / f"{position}", clock, WorldApi(new_world(clock, Behaviour(secrets_on_deploy="drop"))))
        bench.policy = replace(POLICY, unknown_secrets=UnknownSecrets.ALLOW)
        bench.settings = replace(bench.settings, unknown_secrets=UnknownSecrets.ALLOW)
        bench.api.runtime = lambda function: Invocation(500 if function.live_code == CODE_B else 200, "", "")
        before, after = desired(with_secrets(CODE_A, **values)), desired(with_secrets(CODE_B, **values))
        if change == "a failing check":
            before, after = checked(CODE_A), checked(CODE_B)
        await bench.sync(before)
        function = bench.api.world.function("a")
        bench.api.world.set_secret(function, "THEIRS", "t")
        if change == "only a deployment":
            bench.api.world.update(function, {"code": CODE_B})
        await clock.sleep(100)
        start, reached = bench.api.calls, False

        def decide(call: int, *_: str, at: int = start + position) -> Fate:
            nonlocal reached
            reached = reached or call == at
            return fate if call == at else Fate.FINE

        bench.api.fate = decide
        with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
            await bench.sync(after)
        bench.api.fate = lambda *_: Fate.FINE
        for _ in range(4):
            await clock.sleep(100)
            await bench.sync(after)
        assert secrets_of(bench) == values, position
        assert {*secret_events(bench)} == {("THEIRS",)}, position
    assert position > 4


async def test_a_blocked_function_reports_its_loss_until_it_is_written(bench: Bench) -> None:
    """Drift that is only reported keeps the function as it is, and hides nothing."""
    git = desired(with_secrets(CODE_B, ONE="1"))
    await lose_theirs_unseen(bench, desired(with_secrets(ONE="1")), git)
    bench.policy = replace(bench.policy, drift=DriftPolicy.REPORT)
    bench.api.world.update(bench.api.world.function("a"), {"code": CODE_A})
    await bench.clock.sleep(100)
    assert only(await bench.sync(git)) is Result.BLOCKED
    assert secret_events(bench) == [("THEIRS",)]
    bench.policy = replace(bench.policy, drift=DriftPolicy.CORRECT)
    assert (await bench.sync(git)).exit_code == 1
    assert secret_events(bench) == [("THEIRS",), ("THEIRS",)]
    assert (await bench.sync(git)).exit_code == 0


@pytest.mark.parametrize("kept", [{}, {"ONE": "1"}])
async def test_a_secret_that_git_wants_removed_is_not_reported_as_lost(bench: Bench, kept: dict[str, Any]) -> None:
    """A deployment dropped it before its removal, and the look at the secrets after it failed."""
    git = desired(with_secrets(CODE_B, exact=True, **kept))
    await lose_theirs_unseen(bench, desired(with_secrets(**kept)), git)
    assert (await bench.sync(git)).exit_code == 0
    assert (secret_events(bench), secrets_of(bench)) == ([], kept)


async def test_inherited_project_secrets_are_never_removed(bench: Bench) -> None:
    """Not even under ``exact``, nor lost by a deployment; git may set a secret of the same name."""
    world(bench, inherited_secrets=["SHARED", "OTHER"], secrets_on_deploy="drop")
    await bench.sync(desired(with_secrets(exact=True, ONE="1")))
    bench.api.log.clear()
    report = await bench.sync(desired(with_secrets(CODE_B, exact=True, ONE="1")))
    assert (report.exit_code, bench.api.count(*DROP)) == (0, 0)
    assert secret_events(bench) == []
    await bench.sync(desired(with_secrets(CODE_B, exact=True, ONE="1", SHARED="mine")))
    assert secrets_of(bench) == {"ONE": "1", "SHARED": "mine"}


def keeping(*names: str, code: str = CODE_A) -> DesiredFunction:
    function = want("a", code)
    return replace(function, entry=replace(function.entry, secrets=dict.fromkeys(names, KeepSecret())))


@pytest.mark.parametrize("exact", [False, True])
async def test_a_secret_with_source_kapso_is_kept_and_reported_when_missing(bench: Bench, exact: bool) -> None:
    """No value is needed; a missing one is an error in every pass until it is back."""
    await bench.sync(desired(want("a")))
    bench.api.world.set_secret(bench.api.world.function("a"), "LEGACY", "t")
    function = keeping("LEGACY")
    function = replace(function, entry=replace(function.entry, exact_secrets=exact))
    assert (await bench.sync(desired(function))).exit_code == 0
    assert secrets_of(bench) == {"LEGACY": "t"}
    bench.api.world.delete_secret(bench.api.world.function("a"), "LEGACY")
    await bench.clock.sleep(2 * 24 * 3600)
    for _ in range(2):
        report = await bench.sync(desired(function))
        assert (report.exit_code, "LEGACY" in str(report.outcomes[0].error)) == (1, True)
    assert secret_events(bench)[0] == ("LEGACY",)
    bench.api.world.set_secret(bench.api.world.function("a"), "LEGACY", "t")
    assert (await bench.sync(desired(function))).exit_code == 0


async def test_json_secrets_are_set_as_json(bench: Bench) -> None:
    """An object arrives as an object; the same one in another order is not a change."""
    function = with_secrets(CONFIG={"a": 1, "b": [True]}, TEXT='{"a": 1}')
    await bench.sync(desired(function))
    assert secrets_of(bench) == {"CONFIG": {"a": 1, "b": [True]}, "TEXT": '{"a": 1}'}
    assert (await bench.plan(desired(with_secrets(CONFIG={"b": [True], "a": 1}, TEXT='{"a": 1}')))).in_sync
    assert not (await bench.plan(desired(with_secrets(CONFIG='{"a":1,"b":[true]}', TEXT='{"a": 1}')))).in_sync


async def test_unavailable_secret_routes_fail_their_functions_and_not_the_pass(bench: Bench) -> None:
    """A function without secrets goes on, and the others converge when the routes are back."""
    down = SecretRoutesUnavailable("answered 502", call=Call(*LIST), status=502)
    set_secret = bench.api.set_secret

    async def refused(function_id: str, name: str, value: Json) -> None:
        raise down

    bench.api.set_secret = refused  # type: ignore[method-assign]
    functions = [with_secrets(slug=f"s{number}", ONE="1") for number in range(6)]
    report = await bench.sync(desired(*functions, want("z")))
    assert report.halted is None
    assert [outcome.result for outcome in report.outcomes] == [Result.FAILED] * 6 + [Result.DONE]
    bench.api.set_secret = set_secret  # type: ignore[method-assign]
    await bench.sync(desired(*functions, want("z")))
    assert (await bench.sync(desired(*functions, want("z")))).exit_code == 0
    assert secrets_of(bench, "s0") == {"ONE": "1"}
