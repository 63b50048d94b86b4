"""Secrets of functions: set once, changed by taking away and setting again, never lost, and never kept."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kapso_sync.emulator.options import Behaviour
from kapso_sync.errors import ApiRejected, KapsoSyncError
from kapso_sync.model.desired import Check, Desired, DesiredFunction, PlainSecret, SecretValue
from kapso_sync.model.functions import Invocation, Json, RemoteSecret
from kapso_sync.model.plan import Blocked, Keep
from kapso_sync.model.report import Report, Result
from kapso_sync.reconcile.cycle import Request
from kapso_sync.reconcile.secretvalues import keyed_digest
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


async def test_secrets_follow_the_first_deployment_and_get_one_of_their_own(bench: Bench) -> None:
    """Before a function runs it has none; all of them together are one more deployment, and then nothing is asked again."""
    report = await bench.sync(desired(with_secrets(ONE="1", TWO="2")))
    assert (only(report), secrets_of(bench)) == (Result.DONE, {"ONE": "1", "TWO": "2"})
    assert (bench.api.count(*SET), bench.api.count(*DEPLOY), bench.api.count(*LIST)) == (2, 2, 0)
    assert bench.names().count("secret.set") == 2
    bench.api.log.clear()
    assert (await bench.sync(desired(with_secrets(ONE="1", TWO="2")))).plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]


async def test_fifty_functions_with_five_secrets_are_quiet(bench: Bench) -> None:
    """Unchanged, they are one list call; rotating one secret is three writes: away, back, deployed."""
    values: dict[str, Any] = {f"S{number}": "x" for number in range(5)}
    functions = [with_secrets(slug=f"f{number:02d}", **values) for number in range(50)]
    await bench.sync(desired(*functions))
    bench.api.log.clear()
    assert (await bench.sync(desired(*functions))).plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]
    rotated = [with_secrets(slug="f00", **(values | {"S3": "new"})), *functions[1:]]
    await bench.sync(desired(*rotated))
    assert [entry[:2] for entry in bench.api.writes] == [DROP, SET, DEPLOY]
    assert bench.api.count(*LIST) == 0


async def test_the_plan_names_secrets_and_never_values(bench: Bench) -> None:
    """What is set, changed and removed, and nothing that tells a value."""
    await bench.sync(desired(with_secrets(ONE="1", GONE="g")))
    plan = await bench.plan(desired(with_secrets(exact=True, ONE="s3cret-value", TWO="2")))
    (step,) = plan.steps
    assert (step.action, step.fields, step.deploys) == ("update", ("secrets",), True)
    assert step.reasons == ("sets secret TWO", "changes secret ONE", "removes secret GONE")
    assert "s3cret-value" not in repr(plan)


async def test_exact_removes_what_the_manifest_does_not_name(bench: Bench) -> None:
    """By default they are left alone."""
    await bench.sync(desired(with_secrets(ONE="1", TWO="2")))
    assert (await bench.sync(desired(with_secrets(ONE="1")))).plan.in_sync
    await bench.sync(desired(with_secrets(ONE="1", exact=True)))
    assert secrets_of(bench) == {"ONE": "1"}
    assert "secret.removed" in bench.names()


async def test_turning_exact_is_heeded_at_once(bench: Bench) -> None:
    """What somebody added on Kapso goes in the next pass, not in the next day's; and then it is quiet again."""
    await bench.sync(desired(with_secrets(ONE="1")))
    bench.api.world.set_secret(bench.api.world.function("a"), "EXTRA", "e")
    assert (await bench.sync(desired(with_secrets(ONE="1")))).plan.in_sync
    await bench.sync(desired(with_secrets(ONE="1", exact=True)))
    assert secrets_of(bench) == {"ONE": "1"}
    bench.api.log.clear()
    assert (await bench.sync(desired(with_secrets(ONE="1", exact=True)))).plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]


async def test_secrets_that_were_there_before_us_are_left_alone_until_asked(bench: Bench) -> None:
    """With the state lost nobody knows their values: said as a warning, asked for once, and set with --reset-secrets."""
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


async def test_with_the_state_lost_a_rename_leaves_secrets_alone(bench: Bench) -> None:
    """Kapso is asked for the names of the function that moves, not of who bears the slug before."""
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


async def test_what_kapso_does_not_tell_before_a_deployment_is_asked_after_it(bench: Bench) -> None:
    """A function that is down shows no names: what it had is left alone all the same."""
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


async def test_digests_of_a_lost_key_are_no_digests(bench: Bench) -> None:
    """Nothing is rewritten because the key that could compare is gone."""
    await bench.sync(desired(with_secrets(ONE="1")))
    other = keyed_digest(b"o" * 32)
    function = with_secrets(ONE="1")
    function = replace(function, secrets={"ONE": SecretValue("1", other("ONE", "1"))})
    plan = await bench.plan(desired(function))
    assert isinstance(plan.steps[0], Keep)
    assert [notice.code for notice in plan.notices] == ["unverified-secret"]


async def test_a_secret_taken_away_on_kapso_comes_back(bench: Bench) -> None:
    """Found when the function was changed there, and at the latest after a day."""
    git = desired(with_secrets(ONE="1"))
    await bench.sync(git)
    world = bench.api.world
    world.drop_secret(world.function("a"), "ONE")
    assert (await bench.sync(git)).plan.in_sync
    await bench.clock.sleep(timedelta(days=1).total_seconds() + 1)
    await bench.sync(git)
    assert secrets_of(bench) == {"ONE": "1"}


@pytest.mark.history
@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER, Fate.UNAVAILABLE])
async def test_killed_at_any_step_no_secret_stays_missing(tmp_path: Path, fate: Fate) -> None:
    """Whatever call it dies at, the next pass ends with the wanted values, deployed."""
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
    """Taken away, and refused: it is missing, and nobody is left to believe otherwise."""
    await bench.sync(desired(with_secrets(ONE="1")))
    refuse = bench.api.set_secret

    async def refused(function_id: str, name: str, value: Json) -> None:
        from kapso_sync.errors import Call

        raise ApiRejected(f"value {value} is too odd", call=Call(*SET))

    bench.api.set_secret = refused  # type: ignore[method-assign]
    for _ in range(3):
        report = await bench.sync(desired(with_secrets(ONE="s3cret-value")))
        assert (only(report), secrets_of(bench)) == (Result.FAILED, {})
        assert "s3cret-value" not in f"{report.outcomes[0].error}{bench.events}"
    bench.api.set_secret = refuse  # type: ignore[method-assign]
    assert only(await bench.sync(desired(with_secrets(ONE="s3cret-value")))) is Result.DONE


async def test_no_value_is_kept(bench: Bench) -> None:
    """Not in the state, the journal, the backups, nor any event."""
    await bench.sync(desired(with_secrets(ONE="s3cret-value-1")))
    await bench.sync(desired(with_secrets(CODE_B, ONE="s3cret-value-2")))
    kept = b"".join(path.read_bytes() for path in bench.folder.rglob("*") if path.is_file())
    assert b"s3cret-value" not in kept
    assert "s3cret-value" not in repr(bench.events)


async def test_checks_come_after_secrets(bench: Bench) -> None:
    """A check that needs the secret passes; and a function that is taken back keeps its secrets."""

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


async def test_quarantine_does_not_hold_secrets_up(bench: Bench) -> None:
    """A crash between away and back is healed, and a value that changed is set, while the code waits for a fix."""

    def checked(code: str, value: str) -> Desired:
        function = with_secrets(code, ONE=value)
        return desired(replace(function, entry=replace(function.entry, checks=(Check({}, status=200),))))

    bench.api.runtime = lambda function: Invocation(500 if function.live_code == CODE_B else 200, "", "")
    deploy = bench.api.deploy
    await bench.sync(checked(CODE_A, "1"))
    bench.api.fate = lambda _number, method, route: Fate.KILLED_BEFORE if (method, route) == SET else Fate.FINE
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
    assert only(await bench.sync(checked(CODE_B, "3"), Request(retry=("a",)))) is Result.DONE
    assert function.live_code == CODE_B


async def test_a_base_without_secrets_blocks_and_says_so_once(bench: Bench) -> None:
    """Nothing is written of a function that could not work; one warning for all."""
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


async def test_both_shapes_of_a_record_are_understood(tmp_path: Path) -> None:
    """Lists of names come in two wrappings; where the list of functions has no code it works the same."""
    clock = VirtualClock()
    bench = Bench(tmp_path / "state", clock, WorldApi(new_world(clock, Behaviour(list_code=False))))
    git = desired(with_secrets(ONE="1"))
    await bench.sync(git)
    assert (await bench.sync(git)).plan.in_sync
    assert secrets_of(bench) == {"ONE": "1"}
