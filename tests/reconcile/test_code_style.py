"""Code styles with any API behaviour: as a script, or as a module where scripts end in ``error``; each is tried once."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import MODULE_TAIL, Check, CodeStyle, Desired, DesiredFunction
from kapso_sync.model.functions import Invocation
from kapso_sync.model.report import Result
from kapso_sync.store.database import StateStore
from tests.builders import CODE_A, CODE_B, desired, want
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed

DEPLOY = ("POST", "/functions/{id}/deploy")


def styled(code: str = CODE_A, slug: str = "a", *, compiled: bool = True) -> DesiredFunction:
    """A function that was written as a module and compiled to a script; or a script as it was written."""
    return replace(want(slug, code), style=CodeStyle.SCRIPT, compiled=compiled)


def world(bench: Bench, **switches: object) -> None:
    bench.api.world.behaviour = bench.api.world.behaviour.changed(switches)


def live(bench: Bench) -> dict[str, str | None]:
    return dict(bench.api.world.live_code())


def test_a_script_converts_to_a_module_and_back() -> None:
    """A module is the script with a tail; both have the same identity for quarantine."""
    script = styled()
    module = script.in_style(CodeStyle.MODULE)
    assert (module.code, module.in_style(CodeStyle.SCRIPT)) == (CODE_A + MODULE_TAIL, script)
    assert module.attempt == script.attempt
    asked = want("a")
    assert asked.in_style(CodeStyle.MODULE) is asked


@pytest.mark.parametrize(
    ("switches", "code"),
    [({}, CODE_A), ({"module_code": "error"}, CODE_A), ({"script_code": "error"}, CODE_A + MODULE_TAIL)],
)
@pytest.mark.parametrize("compiled", [True, False])
async def test_a_function_goes_live_whichever_code_style_the_base_runs(
    bench: Bench,
    switches: dict[str, object],
    code: str,
    compiled: bool,
) -> None:
    """In one pass; then it is in sync, with the state folder and without it."""
    world(bench, **switches)
    wanted = desired(styled(compiled=compiled))
    report = await bench.sync(wanted)
    assert (report.exit_code, live(bench), report.count("create")) == (0, {"a": code}, 1)
    assert (await bench.plan(wanted)).in_sync
    forgetful = Bench(bench.folder.with_name("other"), bench.clock, bench.api)
    assert (await forgetful.plan(wanted)).in_sync
    assert (await bench.sync(wanted)).api_calls == 1


async def test_the_code_style_of_a_base_is_remembered_for_the_next_function(bench: Bench) -> None:
    """Only modules run: the second function is uploaded as a module at once."""
    world(bench, script_code="error")
    await bench.sync(desired(styled()))
    facts = bench.memory().facts
    assert (facts.script_runs, facts.module_runs) == (False, True)
    bench.api.log.clear()
    await bench.sync(desired(styled(), styled(slug="b")))
    assert (live(bench)["b"], bench.api.count(*DEPLOY)) == (CODE_A + MODULE_TAIL, 1)


async def test_code_that_runs_in_neither_style_is_rolled_back(bench: Bench) -> None:
    """The other style is tried once; then the former code is deployed, and nothing is retried unasked."""
    await bench.sync(desired(styled()))
    deploy = bench.api.world.deploy
    bench.api.deploy = lambda function: deploy(function, failure="bad" if CODE_B in function.code else None)
    report = await bench.sync(desired(styled(CODE_B)))
    assert (report.outcomes[0].result, live(bench)) == (Result.FAILED, {"a": CODE_A})
    assert report.outcomes[0].quarantine is not None
    bench.api.log.clear()
    await bench.sync(desired(styled(CODE_B)))
    assert not bench.api.writes
    report = await bench.sync(desired(styled()))
    assert (report.exit_code, live(bench)) == (0, {"a": CODE_A})


async def test_a_new_function_that_runs_in_neither_style_is_tried_once_in_each(bench: Bench) -> None:
    """Later passes deploy what is stored, without changing the style again."""
    deploy = bench.api.world.deploy
    bench.api.deploy = lambda function: deploy(function, failure="bad")
    await bench.sync(desired(styled()))
    first = bench.api.count(*DEPLOY)
    await bench.sync(desired(styled()))
    assert (first, bench.api.count(*DEPLOY) - first) == (4, 2)
    assert bench.api.count("PATCH", "/functions/{id}") == 1
    bench.api.deploy = deploy
    assert (await bench.sync(desired(styled()))).exit_code == 0


async def test_a_script_is_not_converted_where_scripts_run(bench: Bench) -> None:
    """An outage of the platform does not turn it into a module."""
    await bench.sync(desired(styled(compiled=False)))
    assert bench.memory().facts.script_runs is True
    deploy = bench.api.world.deploy
    failures = iter([True, True])
    bench.api.deploy = lambda function: deploy(function, failure="bad moment" if next(failures, False) else None)
    report = await bench.sync(desired(styled(CODE_B, compiled=False)))
    assert (report.outcomes[0].result, live(bench)) == (Result.FAILED, {"a": CODE_A})


async def test_one_function_that_needs_a_module_does_not_change_the_style_of_others(bench: Bench) -> None:
    """Scripts were seen to run on this base, so others stay scripts."""
    await bench.sync(desired(styled()))
    deploy = bench.api.world.deploy
    bench.api.deploy = lambda function: deploy(function, failure=None if MODULE_TAIL in function.code else "no script")
    await bench.sync(desired(styled(), styled(CODE_B, "b")))
    assert live(bench) == {"a": CODE_A, "b": CODE_B + MODULE_TAIL}
    assert replace(bench.memory().facts, deploy_seconds=None) == ApiFacts(script_runs=True, module_runs=True)
    assert (await bench.plan(desired(styled(), styled(CODE_B, "b")))).in_sync


@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER])
@pytest.mark.parametrize("number", range(1, 13))
async def test_a_style_change_survives_a_kill_at_any_call(bench: Bench, fate: Fate, number: int) -> None:
    """One function, live as a module, whatever call was interrupted."""
    world(bench, script_code="error")
    bench.api.fate = lambda call, *_: fate if call == number else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
        await bench.sync(desired(styled()))
    bench.api.fate = lambda *_: Fate.FINE
    for _ in range(2):
        await bench.sync(desired(styled()))
    assert (await bench.sync(desired(styled()))).exit_code == 0
    assert live(bench) == {"a": CODE_A + MODULE_TAIL}
    assert len(bench.api.world.functions) == 1


async def test_a_failing_check_rolls_back_the_module_that_runs(bench: Bench) -> None:
    """Not the script that never ran."""
    world(bench, script_code="error")
    bench.api.runtime = lambda function: Invocation(500 if CODE_B in str(function.live_code) else 200, "", "")

    def checked(code: str) -> Desired:
        function = styled(code)
        return desired(replace(function, entry=replace(function.entry, checks=(Check({}, status=200),))))

    await bench.sync(checked(CODE_A))
    report = await bench.sync(checked(CODE_B))
    assert report.outcomes[0].quarantine is not None
    assert live(bench) == {"a": CODE_A + MODULE_TAIL}


async def test_the_code_style_that_doctor_found_is_used_first(bench: Bench) -> None:
    """Where the base is known to run modules only, nothing is tried as a script."""
    world(bench, script_code="error")
    with StateStore(bench.folder, bench.clock.now) as store:
        store.learn(ApiFacts(script_runs=False, module_runs=True))
    await bench.sync(desired(styled()))
    assert (bench.api.count(*DEPLOY), live(bench)) == (1, {"a": CODE_A + MODULE_TAIL})
