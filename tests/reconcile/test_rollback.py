"""Checks after a deployment, rollback and quarantine: bad code is rolled back once, and not retried unasked."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapso_sync.emulator.records import Function
from kapso_sync.errors import ApiError, ApiGarbled, ApiUnavailable, Call, KapsoSyncError
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Check, Desired, DesiredFunction, EnvSecret, RolloutPolicy, SecretValue
from kapso_sync.model.events import Event
from kapso_sync.model.functions import Invocation, InvokeRequest, code_hash
from kapso_sync.model.plan import Blocked, NoChange, Rollback
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.report import Report, Result
from kapso_sync.model.state import QuarantineReason
from kapso_sync.reconcile.cycle import PassRequest
from tests.builders import CODE_A, CODE_B, desired, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed, WorldApi, new_world

CODE_C = "async function handler() { return new Response('c'); }\n"
BROKEN = "async function handler( {"
GOOD = Check({"ping": True}, status=200)


def runtime(function: Function) -> Invocation:
    """Code B is broken in a way that only its answers show."""
    return Invocation(500, "", "boom") if function.live_code == CODE_B else Invocation(200, "", '{"ok": true}')


def checked(code: str, *checks: Check, slug: str = "a", description: str | None = None) -> DesiredFunction:
    """A function with checks."""
    function = want(slug, code) if description is None else want(slug, code, description=description)
    return replace(function, entry=replace(function.entry, checks=checks or (GOOD,)))


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.api.runtime = runtime
    return bench


def fails_to_deploy(bench: Bench, *codes: str) -> None:
    """Let deployments of these codes end in error, whatever they look like."""
    world = bench.api.world
    deploy = world.deploy
    bench.api.deploy = lambda function: deploy(function, failure="out of luck" if function.code in codes else None)


def only(report: Report) -> Result:
    (outcome,) = report.outcomes
    return outcome.result


async def test_a_passing_check_is_made_once(bench: Bench) -> None:
    """Some time after the deployment; then in sync is one list call again."""
    report = await bench.sync(desired(checked(CODE_A)))
    assert (only(report), bench.api.count("POST", "/functions/{id}/invoke")) == (Result.DONE, 1)
    assert "check.passed" in bench.names()
    bench.api.log.clear()
    assert (await bench.sync(desired(checked(CODE_A)))).plan.in_sync
    assert len(bench.api.log) == 1


async def test_a_failing_check_rolls_back_and_is_not_retried(bench: Bench) -> None:
    """Within one deployment's time the old code and fields are live; the bad code waits for git; the fix goes live."""
    await bench.sync(desired(checked(CODE_A, description="first")))
    before = bench.clock.monotonic()
    report = await bench.sync(desired(checked(CODE_B, description="second")))
    (outcome,) = report.outcomes
    assert (outcome.result, int(report.exit_code)) == (Result.FAILED, 1)
    assert outcome.error == "check 1 failed: expected status 200, got status 500, 'boom'"
    assert outcome.quarantine is not None
    assert (outcome.quarantine.fault, outcome.quarantine.code) == (QuarantineReason.CHECK, code_hash(CODE_B))
    assert outcome.quarantine.restored == code_hash(CODE_A)
    assert bench.clock.monotonic() - before < 17 + 60 + 17
    function = bench.api.world.function("a")
    assert (function.live_code, function.code) == (CODE_A, CODE_A)
    assert str(function.description).startswith("first [kapso-sync:")
    names = bench.names()
    assert [name for name in names if name.startswith(("check.f", "rollback"))] == [
        *("check.failed", "rollback.started", "rollback.succeeded")
    ]
    bench.api.log.clear()
    for _ in range(3):
        again = await bench.sync(desired(checked(CODE_B, description="second")))
        step = again.plan.steps[0]
        assert isinstance(step, Blocked)
        assert step.reasons[0].startswith("in quarantine: check 1 failed")
        assert (step.quarantine, int(again.exit_code)) == (outcome.quarantine, 1)
        assert "-async function handler() { return new Response('a')" in step.diff
    assert bench.api.log == [("GET", "/functions", "")] * 3
    fixed = await bench.sync(desired(checked(CODE_C)))
    assert (only(fixed), bench.api.world.live_code()) == (Result.DONE, {"a": CODE_C})
    assert bench.memory().owned[function.id].quarantine is None


async def test_retry_lifts_the_quarantine_for_one_pass(bench: Bench) -> None:
    """Code that fails again is in quarantine again."""
    await bench.sync(desired(checked(CODE_A)))
    await bench.sync(desired(checked(CODE_B)))
    report = await bench.sync(desired(checked(CODE_B)), PassRequest(overrides=PassOverrides(retry=frozenset("a"))))
    assert (only(report), bench.api.world.live_code()) == (Result.FAILED, {"a": CODE_A})
    bench.api.runtime = lambda _: Invocation(200, "", "")
    report = await bench.sync(desired(checked(CODE_B)), PassRequest(overrides=PassOverrides(retry=frozenset("a"))))
    assert (only(report), bench.api.world.live_code()) == (Result.DONE, {"a": CODE_B})


async def test_changed_checks_end_the_quarantine(bench: Bench) -> None:
    """The check may have been wrong."""
    await bench.sync(desired(checked(CODE_A)))
    await bench.sync(desired(checked(CODE_B)))
    report = await bench.sync(desired(checked(CODE_B, Check({}, status=500, text="boom"))))
    assert (only(report), bench.api.world.live_code()) == (Result.DONE, {"a": CODE_B})


async def test_a_revert_in_git_ends_the_quarantine(bench: Bench) -> None:
    """Git equals the live code: in sync, and the same bad code pushed later is tried once more."""
    await bench.sync(desired(checked(CODE_A)))
    await bench.sync(desired(checked(CODE_B)))
    assert (await bench.sync(desired(checked(CODE_A)))).plan.in_sync
    assert only(await bench.sync(desired(checked(CODE_B)))) is Result.FAILED
    assert bench.api.world.live_code() == {"a": CODE_A}


async def test_code_that_fails_to_deploy_is_rolled_back(bench: Bench) -> None:
    """A function in error is down: one retry, then the former code, without any check in the manifest."""
    await bench.sync(desired(want("a")))
    bench.api.log.clear()
    report = await bench.sync(desired(want("a", BROKEN)))
    (outcome,) = report.outcomes
    assert outcome.quarantine is not None
    assert outcome.quarantine.fault is QuarantineReason.DEPLOYMENT
    assert bench.api.count("POST", "/functions/{id}/deploy") == 3
    assert bench.api.world.live_code() == {"a": CODE_A}
    assert (await bench.plan(desired(want("a", BROKEN)))).summary["blocked"] == 1
    assert only(await bench.sync(desired(want("a", CODE_C)))) is Result.DONE


async def test_no_quarantine_where_no_deployment_succeeds(bench: Bench) -> None:
    """The platform is at fault: git's code is retried, and goes live once the platform is well."""
    await bench.sync(desired(want("a")))
    fails_to_deploy(bench, CODE_A, CODE_B)
    report = await bench.sync(desired(want("a", CODE_B)))
    assert (only(report), report.outcomes[0].quarantine) == (Result.FAILED, None)
    assert "rollback.failed" in bench.names()
    assert [record.quarantine for record in bench.memory().owned.values()] == [None]
    fails_to_deploy(bench)
    assert only(await bench.sync(desired(want("a", CODE_B)))) is Result.DONE
    assert bench.api.world.live_code() == {"a": CODE_B}


async def test_code_that_ran_before_is_redeployed_and_not_rolled_back(bench: Bench) -> None:
    """Somebody's deployment of the same code failed: it is deployed again, never replaced by older code."""
    await bench.sync(desired(want("a")))
    await bench.sync(desired(want("a", CODE_B)))
    world = bench.api.world
    world.deploy(world.function("a"), failure="a bad moment")
    await bench.clock.sleep(60)
    fails_to_deploy(bench, CODE_B)
    report = await bench.sync(desired(want("a", CODE_B)))
    assert (only(report), report.outcomes[0].quarantine) == (Result.FAILED, None)
    assert world.function("a").code == CODE_B


async def test_a_new_function_is_not_rolled_back(bench: Bench) -> None:
    """It has no former code: it stays as it is, and is retried."""
    report = await bench.sync(desired(checked(CODE_B)))
    assert (only(report), report.outcomes[0].never_ran, report.outcomes[0].quarantine) == (Result.FAILED, True, None)
    assert bench.api.world.live_code() == {"a": CODE_B}
    bench.api.runtime = lambda _: Invocation(200, "", "")
    assert only(await bench.sync(desired(checked(CODE_B)))) is Result.DONE
    assert (await bench.sync(desired(checked(CODE_B)))).plan.in_sync


async def test_a_check_waits_for_old_code_at_the_edge(bench: Bench) -> None:
    """For half a minute after the deployment the edge still serves the old code: the check waits, and passes."""
    await bench.sync(desired(checked(CODE_A, Check({}, text="1"))))
    answers: Callable[[Function], Invocation] = lambda _: Invocation(200, "", "2" if bench.clock.monotonic() > turn else "1")  # noqa: E731
    bench.api.runtime = answers
    turn = bench.clock.monotonic() + 12 + 45
    report = await bench.sync(desired(checked(CODE_C, Check({}, text="2"))))
    assert only(report) is Result.DONE
    assert bench.api.count("POST", "/functions/{id}/invoke") > 3


async def test_no_rollback_while_the_api_is_down(bench: Bench) -> None:
    """A proxy's response is not a failure of the code; once Kapso answers again, the checks are made."""
    await bench.sync(desired(checked(CODE_A)))
    down = False

    def fate(_number: int, _method: str, route: str) -> Fate:
        nonlocal down
        down = down or route == "/functions/{id}/invoke"
        return Fate.UNAVAILABLE if down else Fate.FINE

    bench.api.fate = fate
    report = await bench.sync(desired(checked(CODE_C)))
    assert (only(report), report.outcomes[0].blameless, report.outcomes[0].quarantine) == (Result.FAILED, True, None)
    bench.api.fate = lambda *_: Fate.FINE
    plan = await bench.plan(desired(checked(CODE_C)))
    assert (plan.steps[0].action, plan.steps[0].reasons) == ("deploy", ("deployed, and its checks have not passed yet",))
    assert only(await bench.sync(desired(checked(CODE_C)))) is Result.DONE


@pytest.mark.parametrize("kind", [ApiUnavailable, ApiGarbled])
async def test_a_check_without_a_usable_response_fails_while_the_api_is_up(bench: Bench, kind: type[ApiError]) -> None:
    """A function that hangs, or answers with megabytes or broken compression."""
    await bench.sync(desired(checked(CODE_A)))

    def answers(function: Function) -> Invocation:
        if function.live_code == CODE_B:
            raise kind("no answer", call=Call("POST", "/functions/{id}/invoke"))
        return Invocation(200, "", "")

    bench.api.runtime = answers
    report = await bench.sync(desired(checked(CODE_B)))
    assert (only(report), bench.api.world.live_code()) == (Result.FAILED, {"a": CODE_A})
    assert report.outcomes[0].quarantine is not None


async def test_a_gateway_error_fails_a_check_only_while_the_api_is_up(bench: Bench) -> None:
    """A killed Worker answers 503 too: if the list works, it is the function's own failure."""
    await bench.sync(desired(checked(CODE_A)))
    bench.api.runtime = lambda f: Invocation(503, "", "") if f.live_code == CODE_B else Invocation(200, "", "")
    report = await bench.sync(desired(checked(CODE_B)))
    assert (only(report), bench.api.world.live_code()) == (Result.FAILED, {"a": CODE_A})


async def test_a_new_revision_interrupts_waiting_checks(bench: Bench) -> None:
    """The next pass deploys the fix."""
    await bench.sync(desired(checked(CODE_A)))
    request = PassRequest()

    def pushed(function: Function) -> Invocation:
        request.superseded.set()
        return runtime(function)

    bench.api.runtime = pushed
    report = await bench.sync(desired(checked(CODE_B)), request)
    assert (only(report), report.outcomes[0].quarantine) == (Result.SKIPPED, None)
    bench.api.runtime = runtime
    assert only(await bench.sync(desired(checked(CODE_C)))) is Result.DONE


async def test_a_new_revision_or_shutdown_interrupts_checks_in_flight(bench: Bench) -> None:
    """A function may take two minutes to answer; neither a fix nor a shutdown waits for it."""
    await bench.sync(desired(checked(CODE_A)))
    request = PassRequest()
    newer = request.superseded
    asked, began = 0, 0.0

    async def hang(function_id: str, request: InvokeRequest, *, timeout: float) -> Invocation:
        nonlocal asked, began
        asked, began = asked + 1, bench.clock.monotonic()
        newer.set()
        await bench.clock.sleep(timeout)
        return Invocation(200, "", "")

    bench.api.invoke_function = hang  # type: ignore[method-assign]
    report = await bench.sync(desired(checked(CODE_B, *[replace(GOOD, timeout=120)] * 3)), request)
    assert (only(report), asked) == (Result.SKIPPED, 1)
    assert bench.clock.monotonic() - began < 1


@pytest.mark.parametrize("dies", [("POST", Fate.KILLED_BEFORE), ("PATCH", Fate.KILLED_AFTER)])
async def test_unchecked_code_is_checked_after_interrupted_passes(bench: Bench, dies: tuple[str, Fate]) -> None:
    """Killed once before the checks, and once between a new description and its deployment."""
    await bench.sync(desired(checked(CODE_A)))
    bench.api.fate = lambda _number, _method, route: Fate.KILLED_BEFORE if route.endswith("invoke") else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(desired(checked(CODE_B)))
    bench.api.fate = lambda _number, method, _route: dies[1] if method == dies[0] else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(desired(checked(CODE_B, description="in other words")))
    bench.api.fate = lambda *_: Fate.FINE
    report = await bench.sync(desired(checked(CODE_B, description="in other words")))
    assert (only(report), bench.api.world.live_code()) == (Result.FAILED, {"a": CODE_A})


def with_secret(function: DesiredFunction, value: str) -> DesiredFunction:
    entry = replace(function.entry, secrets={"TOKEN": EnvSecret("TOKEN")})
    return replace(function, entry=entry, secrets={"TOKEN": SecretValue(value, f"key:{value}")})


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("before", [(GOOD,), ()])
async def test_a_bad_secret_does_not_roll_back_good_code(bench: Bench, before: tuple[Check, ...], killed: bool) -> None:
    """Code that passed before and fails with another secret is neither replaced nor in quarantine."""
    first = replace(want("a"), entry=replace(want("a").entry, checks=before))
    await bench.sync(desired(want("a", CODE_C)))
    await bench.sync(desired(with_secret(first, "good")))
    bench.api.runtime = lambda _: Invocation(500, "", "wrong token")
    now = desired(with_secret(checked(CODE_A), "bad"))
    if killed:
        bench.api.fate = lambda _number, _method, route: Fate.KILLED_BEFORE if route.endswith("invoke") else Fate.FINE
        with contextlib.suppress(Killed, BaseExceptionGroup):
            await bench.sync(now)
        bench.api.fate = lambda *_: Fate.FINE
    report = await bench.sync(now)
    assert (only(report), report.outcomes[0].quarantine) == (Result.FAILED, None)
    assert bench.api.world.live_code() == {"a": CODE_A}
    bench.api.runtime = runtime
    assert only(await bench.sync(desired(with_secret(checked(CODE_A), "good")))) is Result.DONE


async def through_ci(bench: Bench, *functions: DesiredFunction) -> None:
    """Passes of another process of the same owner, which has a state folder of its own."""
    laptop, bench.folder = bench.folder, bench.folder.with_name("ci")
    for function in functions:
        await bench.clock.sleep(60)
        with contextlib.suppress(Killed, BaseExceptionGroup):
            await bench.sync(desired(function))
    await bench.clock.sleep(60)
    bench.folder, bench.api.fate = laptop, lambda *_: Fate.FINE


@pytest.mark.parametrize("synced", [False, True])
async def test_an_older_version_is_not_restored_in_place_of_what_another_process_deployed(bench: Bench, synced: bool) -> None:
    """A laptop knows A, CI deployed C since. The laptop rotates a secret, and the check fails: C stays."""
    await bench.sync(desired(with_secret(checked(CODE_A), "good")))
    await through_ci(bench, with_secret(checked(CODE_C), "good"))
    if synced:
        await bench.sync(desired(with_secret(checked(CODE_C), "good")))
    bench.api.runtime = lambda _: Invocation(500, "", "wrong token")
    report = await bench.sync(desired(with_secret(checked(CODE_C), "bad")))
    assert (only(report), report.outcomes[0].quarantine) == (Result.FAILED, None)
    assert bench.api.world.live_code() == {"a": CODE_C}


async def test_code_that_another_process_saved_does_not_lead_back_to_an_older_version(bench: Bench) -> None:
    """CI deployed C, saved B and died. The laptop, which knows A, deploys B, and its check fails: A is not what ran before."""
    await bench.sync(desired(checked(CODE_A)))
    await through_ci(bench, checked(CODE_C))
    bench.api.fate = lambda _number, _method, route: Fate.KILLED_BEFORE if route.endswith("deploy") else Fate.FINE
    await through_ci(bench, checked(CODE_B))
    report = await bench.sync(desired(checked(CODE_B)))
    assert (only(report), "rollback.started" in bench.names()) == (Result.FAILED, False)
    assert only(await bench.sync(desired(checked(CODE_C)))) is Result.DONE
    assert only(await bench.sync(desired(checked(CODE_B)))) is Result.FAILED
    assert (bench.names()[-3:].count("rollback.succeeded"), bench.api.world.live_code()) == (1, {"a": CODE_C})


@pytest.mark.parametrize("fate", [Fate.KILLED_AFTER, Fate.LOST_AFTER])
@pytest.mark.parametrize("seconds", [5, 600])
async def test_a_lost_answer_to_the_last_mark_prevents_no_later_rollback(bench: Bench, fate: Fate, seconds: int) -> None:
    """B follows A within a minute, so its mark gets the code's digest late, and that answer is lost. Then C fails."""
    bench.api.runtime = lambda function: Invocation(500 if function.live_code == CODE_C else 200, "", "boom")
    await bench.sync(desired(checked(CODE_A)))
    await bench.clock.sleep(seconds)
    patches = iter([Fate.FINE, fate])
    bench.api.fate = lambda _, method, __: next(patches, Fate.FINE) if method == "PATCH" else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
        await bench.sync(desired(checked(CODE_B)))
    bench.api.fate = lambda *_: Fate.FINE
    await bench.clock.sleep(100)
    assert only(await bench.sync(desired(checked(CODE_C)))) is Result.FAILED
    assert "rollback.succeeded" in bench.names()
    assert bench.api.world.live_code() != {"a": CODE_C}


async def test_what_another_process_deployed_is_the_version_to_restore(bench: Bench) -> None:
    """The laptop knows A, CI deployed C since, and the laptop's B fails its check: C runs again."""
    await bench.sync(desired(checked(CODE_A)))
    await through_ci(bench, checked(CODE_C))
    assert only(await bench.sync(desired(checked(CODE_B)))) is Result.FAILED
    assert bench.api.world.live_code() == {"a": CODE_C}


async def test_a_rollback_restores_the_code_that_was_live_last(bench: Bench) -> None:
    """Even if somebody saved other code on Kapso without a deployment."""
    await bench.sync(desired(checked(CODE_C)))
    await bench.sync(desired(checked(CODE_A)))
    await bench.clock.sleep(60)
    world = bench.api.world
    world.update(world.function("a"), {"code": f"// half an idea\n{CODE_A}"})
    assert only(await bench.sync(desired(checked(CODE_B)))) is Result.FAILED
    assert world.live_code() == {"a": CODE_A}


async def test_a_changed_description_does_not_end_the_quarantine(bench: Bench) -> None:
    """A description does not run."""
    await bench.sync(desired(checked(CODE_A, description="first")))
    await bench.sync(desired(checked(CODE_B, description="first")))
    bench.api.log.clear()
    assert only(await bench.sync(desired(checked(CODE_B, description="second")))) is Result.BLOCKED
    assert bench.api.writes == []


async def test_a_description_edited_on_kapso_during_quarantine_stays(bench: Bench) -> None:
    """The former code is live: nothing is rolled back, written or deployed."""
    await bench.sync(desired(checked(CODE_A, description="first")))
    await bench.sync(desired(checked(CODE_B, description="first")))
    await bench.clock.sleep(60)
    world = bench.api.world
    world.update(world.function("a"), {"description": str(world.function("a").description).replace("first", "edited")})
    bench.api.log.clear()
    assert only(await bench.sync(desired(checked(CODE_B, description="first")))) is Result.BLOCKED
    assert bench.api.writes == []


async def test_an_edit_on_kapso_during_quarantine_stays(bench: Bench) -> None:
    """Somebody fixes the code there while git's is bad: it is neither overwritten nor taken for ours."""
    await bench.sync(desired(checked(CODE_A)))
    await bench.sync(desired(checked(CODE_B)))
    world = bench.api.world
    world.update(world.function("a"), {"code": CODE_C})
    world.deploy(world.function("a"))
    await bench.clock.sleep(60)
    report = await bench.sync(desired(checked(CODE_B)))
    assert (only(report), world.live_code()) == (Result.BLOCKED, {"a": CODE_C})


@pytest.mark.history
@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER, Fate.UNAVAILABLE])
@pytest.mark.parametrize("fails", ["check", "deployment"])
async def test_a_rollback_killed_at_any_call_ends_with_the_old_code_live(tmp_path: Path, fate: Fate, fails: str) -> None:
    """Whatever call it dies at, the next passes end with the old code live and the bad code in quarantine."""
    bad = CODE_B if fails == "check" else BROKEN
    position = 0
    while True:
        position += 1
        clock = VirtualClock()
        bench = Bench(tmp_path / f"{position}", clock, WorldApi(new_world(clock), runtime=runtime))
        await bench.sync(desired(checked(CODE_A)))
        bench.api.log.clear()
        reached = False

        def decide(number: int, *_: str, at: int = position) -> Fate:
            nonlocal reached
            reached = reached or number == at
            return fate if number == at else Fate.FINE

        bench.api.fate = decide
        with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
            await bench.sync(desired(checked(bad)))
        bench.api.fate = lambda *_: Fate.FINE
        if not reached:
            break
        await clock.sleep(100)
        for _ in range(3):
            await bench.sync(desired(checked(bad)))
        assert bench.api.world.live_code() == {"a": CODE_A}, position
        assert bench.api.world.function("a").code == CODE_A
        plan = await bench.plan(desired(checked(bad)))
        assert (plan.summary["blocked"], len(plan.changes)) == (1, 0), position
    assert position > 8


async def test_an_interrupted_rollback_is_planned_as_a_rollback(bench: Bench) -> None:
    """The plan gives the reason, and does not try the bad code first."""
    await bench.sync(desired(checked(CODE_A)))
    await bench.clock.sleep(120)

    def fate(_number: int, method: str, _route: str) -> Fate:
        patches = bench.api.count("PATCH", "/functions/{id}")
        return Fate.KILLED_BEFORE if method == "PATCH" and patches == 2 else Fate.FINE

    bench.api.fate = fate
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(desired(checked(CODE_B)))
    bench.api.fate = lambda *_: Fate.FINE
    plan = await bench.plan(desired(checked(CODE_B)))
    (step,) = plan.steps
    assert isinstance(step, Rollback)
    assert step.reasons[0].endswith("the previous version is restored")
    bench.api.log.clear()
    await bench.sync(desired(checked(CODE_B)))
    assert bench.api.count("POST", "/functions/{id}/deploy") == 1


def cautious(policy: RolloutPolicy, *functions: DesiredFunction) -> Desired:
    return replace(desired(*functions), rollout=policy)


async def test_a_failing_canary_stops_the_rollout(bench: Bench) -> None:
    """In this pass and in every later one, until the canary succeeds."""
    policy = RolloutPolicy(canary="b")
    await bench.sync(cautious(policy, checked(CODE_A), checked(CODE_A, slug="b"), checked(CODE_A, slug="c")))
    bad = cautious(policy, checked(CODE_C), checked(CODE_B, slug="b"), checked(CODE_C, slug="c"))
    for _ in range(3):
        report = await bench.sync(bad)
        results = {outcome.step.slug: outcome.result for outcome in report.outcomes}
        assert (results["a"], results["c"]) == (Result.SKIPPED, Result.SKIPPED)
        assert bench.api.world.live_code() == dict.fromkeys("abc", CODE_A)
    good = cautious(policy, checked(CODE_C), checked(CODE_C, slug="b"), checked(CODE_C, slug="c"))
    await bench.sync(good)
    assert bench.api.world.live_code() == dict.fromkeys("abc", CODE_C)
    deployed = [event for event in bench.events if event.name == "deploy.started"]
    assert getattr(deployed[-3], "slug", None) == "b"


async def test_max_failures_stops_the_rollout(bench: Bench) -> None:
    """Functions that are in quarantine since earlier passes count too."""
    slugs = [f"f{number}" for number in range(8)]
    policy = RolloutPolicy(max_failures=2)
    await bench.sync(cautious(policy, *(checked(CODE_A, slug=slug) for slug in slugs)))
    bench.settings = replace(bench.settings, concurrency=1, deploying=1)
    bad = cautious(policy, *(checked(CODE_B, slug=slug) for slug in slugs))
    for failed in (2, 0):
        report = await bench.sync(bad)
        assert len(report.results(Result.FAILED)) == failed
        assert len(report.results(Result.SKIPPED)) == 6
    assert bench.api.world.live_code() == dict.fromkeys(slugs, CODE_A)


async def test_quarantined_functions_count_for_max_failures_before_the_first_step(bench: Bench) -> None:
    """Wherever in the alphabet they are."""
    slugs = ("a", "b", "z")
    await bench.sync(desired(*(checked(CODE_A, slug=slug) for slug in slugs)))
    bad = checked(CODE_B, slug="z")
    await bench.sync(desired(checked(CODE_A), checked(CODE_A, slug="b"), bad))
    await bench.sync(cautious(RolloutPolicy(max_failures=1), checked(CODE_C), checked(CODE_C, slug="b"), bad))
    assert bench.api.world.live_code() == dict.fromkeys(slugs, CODE_A)


@pytest.mark.parametrize("policy", [RolloutPolicy(max_failures=1), RolloutPolicy(canary="b")])
async def test_canary_and_max_failures_do_not_stop_an_interrupted_rollback(bench: Bench, policy: RolloutPolicy) -> None:
    """Another function, even the canary, is in quarantine; live bad code is rolled back all the same."""
    await bench.sync(desired(checked(CODE_A), checked(CODE_A, slug="b")))
    await bench.sync(desired(checked(CODE_A), checked(CODE_B, slug="b")))
    bad = (checked(CODE_B), checked(CODE_B, slug="b"))
    bench.api.log.clear()
    bench.api.fate = lambda *_: Fate.KILLED_BEFORE if bench.api.count("PATCH", "/functions/{id}") == 2 else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(desired(*bad))
    bench.api.fate = lambda *_: Fate.FINE
    assert bench.api.world.live_code() == {"a": CODE_B, "b": CODE_A}
    await bench.sync(cautious(policy, *bad))
    assert bench.api.world.live_code() == {"a": CODE_A, "b": CODE_A}


async def test_a_rollback_does_not_wait_for_pending_deployments(bench: Bench) -> None:
    """Of forty functions the first is bad: it is rolled back one deployment after its check failed."""
    slugs = [f"f{number:02}" for number in range(40)]
    await bench.sync(desired(*(want(slug) for slug in slugs)))
    bench.settings = replace(bench.settings, concurrency=2, deploying=2)
    times: dict[str, float] = {}
    bench.events = Stopwatch(bench.clock, times)
    await bench.sync(desired(checked(CODE_B, slug="f00"), *(want(slug, CODE_C) for slug in slugs[1:])))
    assert times["rollback.succeeded"] - times["check.failed"] < 17
    assert times["deploy.succeeded"] > times["rollback.succeeded"]


class Stopwatch(list[Event]):
    """Events, and when each kind of them came last."""

    def __init__(self, clock: Clock, times: dict[str, float]) -> None:
        super().__init__()
        self._clock = clock
        self._times = times

    def append(self, event: Event) -> None:
        super().append(event)
        self._times[event.name] = self._clock.monotonic()


async def test_secrets_in_a_check_response_are_redacted(bench: Bench) -> None:
    """Every response is redacted before it is reported."""
    bench.redact = lambda text: text.replace("s3cret", "[redacted]")
    await bench.sync(desired(checked(CODE_A)))
    bench.api.runtime = lambda f: Invocation(500, "", "my key is s3cret") if f.live_code == CODE_B else Invocation(200, "", "")
    report = await bench.sync(desired(checked(CODE_B)))
    assert "s3cret" not in f"{report.outcomes}{bench.events}{bench.memory()}"
    assert "[redacted]" in str(report.outcomes[0].error)


VERSIONS = (CODE_A, CODE_C, CODE_B, BROKEN)
"""Two that are good, one that fails its check, and one that does not deploy."""

bad_days = st.tuples(
    st.integers(0, 3), st.none() | st.integers(1, 16), st.sampled_from([fate for fate in Fate if fate is not Fate.FINE])
)


@pytest.mark.history
@given(days=st.lists(bad_days, min_size=1, max_size=5), last=st.integers(0, 3))
@settings(max_examples=100)
def test_after_any_history_good_code_is_live(days: list[tuple[int, int | None, Fate]], last: int) -> None:
    """After any pushes, kills and lost responses: git's code if it is good, else some that passed before, and then no write."""

    async def scenario(folder: Path) -> None:
        clock = VirtualClock()
        world = new_world(clock)
        proven = False
        for version, position, fate in [*days, (last, None, Fate.FINE), (last, None, Fate.FINE)]:
            bench = Bench(folder, clock, WorldApi(world, runtime=runtime))
            bench.api.fate = lambda number, *_, at=position, what=fate: what if number == at else Fate.FINE
            with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
                await bench.sync(desired(checked(VERSIONS[version])))
            proven = proven or "check.passed" in bench.names()
            await clock.sleep(100)
        live = world.live_code()["a"]
        if last < 2:
            assert live == VERSIONS[last]
        elif proven:
            assert live in VERSIONS[:2]
            plan = await Bench(folder, clock, WorldApi(world, runtime=runtime)).plan(desired(checked(VERSIONS[last])))
            assert plan.summary["blocked"] == 1

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder) / "state"))


async def test_a_quarantined_function_can_be_renamed_and_swapped(bench: Bench) -> None:
    """The slug moves, the bad code is not deployed, and nothing is rolled back twice."""
    await bench.sync(desired(checked(CODE_A), checked(CODE_C, slug="b")))
    ids = {slug: bench.api.world.function(slug).id for slug in "ab"}
    await bench.sync(desired(checked(CODE_B), checked(CODE_C, slug="b")))
    swapped = [checked(CODE_C), checked(CODE_B, slug="b")]
    swapped = [replace(f, entry=replace(f.entry, moved_from=("b" if f.slug == "a" else "a",))) for f in swapped]
    report = await bench.sync(desired(*swapped))
    assert [outcome.result for outcome in report.outcomes] == [Result.DONE, Result.FAILED]
    assert {slug: bench.api.world.function(slug).id for slug in "ab"} == {"a": ids["b"], "b": ids["a"]}
    plan = await bench.plan(desired(*swapped))
    assert [type(step) for step in plan.steps] == [NoChange, Blocked]
    assert bench.api.world.live_code() == {"a": CODE_C, "b": CODE_A}
    assert (bench.names().count("rollback.started"), bench.names().count("rollback.failed")) == (1, 0)
    mended = replace(swapped[1], code=CODE_A)
    assert (await bench.sync(desired(swapped[0], mended))).plan.in_sync
