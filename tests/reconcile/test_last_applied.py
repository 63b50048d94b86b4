"""What was last applied stands in the mark: processes without memory, or with an old one, plan three ways all the same."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapso_sync.emulator.options import Behaviour
from kapso_sync.emulator.world import EmulatedProject
from kapso_sync.model.desired import DesiredFunction, PlainSecret, SecretValue
from kapso_sync.model.functions import CODE, FIELDS, Content, code_hash
from kapso_sync.model.json_values import Json
from kapso_sync.model.ownership import AppliedDigests, mark_for, split_description, without_digests
from kapso_sync.model.plan import Blocked, BlockedBy, NoChange, Origin, Step
from kapso_sync.model.policies import DriftPolicy
from kapso_sync.model.state import InventoryRecord
from kapso_sync.reconcile.desired import keyed_digest, secrets_digest
from kapso_sync.reconcile.plan.last_applied import applied_by, code_digest, fields_digest, find_last_applied
from kapso_sync.reconcile.plan.planner import OSCILLATION_LIMIT
from tests.builders import CODE_A, CODE_B, OWNER, desired, remote, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed, WorldApi, new_world

CODE_C = "async function handler() { return new Response('c'); }\n"


@dataclass
class Replicas:
    """One project, and processes that each have a state folder of their own."""

    folder: Path
    clock: VirtualClock = field(default_factory=VirtualClock)
    behaviour: Behaviour | None = None
    drift: DriftPolicy = DriftPolicy.CORRECT
    world: EmulatedProject = field(init=False)
    made: int = 0

    def __post_init__(self) -> None:
        self.world = new_world(self.clock, self.behaviour)

    def process(self, name: str) -> Bench:
        bench = Bench(self.folder / name, self.clock, WorldApi(self.world))
        bench.policy = replace(bench.policy, drift=self.drift)
        return bench

    def newcomer(self) -> Bench:
        """A process without memory."""
        self.made += 1
        return self.process(f"newcomer-{self.made}")

    def edit(self, slug: str, *, deploy: bool = True, **fields: Json) -> None:
        """Change a function as the dashboard would."""
        function = self.world.function(slug)
        self.world.update(function, fields)
        if deploy:
            self.world.deploy(function)

    async def later(self, seconds: float = 60.0) -> None:
        await self.clock.sleep(seconds)


@pytest.fixture
def replicas(tmp_path: Path) -> Replicas:
    return Replicas(tmp_path)


def only(steps: tuple[Step, ...]) -> Step:
    (step,) = steps
    return step


async def applied(replicas: Replicas, *functions: DesiredFunction) -> None:
    """Let one process bring the project to what git says."""
    assert (await replicas.process("first").sync(desired(*functions))).exit_code == 0
    await replicas.later()


async def test_a_process_without_memory_is_in_sync_with_one_list_call(replicas: Replicas) -> None:
    """Nothing is deployed again, nothing is written."""
    git = desired(want("a", name="A", public_endpoint=False), want("b", CODE_B))
    await applied(replicas, *git.functions)
    newcomer = replicas.newcomer()
    assert (await newcomer.sync(git)).plan.in_sync
    assert newcomer.api.log == [("GET", "/functions", "")]


@pytest.mark.parametrize(
    ("git", "kapso", "origin"),
    [
        ({"code": CODE_B}, {}, Origin.GIT),
        ({}, {"code": CODE_B}, Origin.DRIFT),
        ({"code": CODE_B}, {"code": CODE_C}, Origin.CONFLICT),
        ({"name": "New"}, {}, Origin.GIT),
        ({}, {"name": "By hand"}, Origin.DRIFT),
        ({"name": "New"}, {"name": "By hand"}, Origin.CONFLICT),
        ({"description": "Greets."}, {}, Origin.GIT),
        ({"public_endpoint": True}, {}, Origin.GIT),
        ({"name": "New", "public_endpoint": True}, {}, Origin.GIT),
        ({"code": CODE_B}, {"name": "By hand"}, Origin.CONFLICT),
        ({"runtime_config": {"timeout": 10}}, {"runtime_config": {"timeout": 20}}, Origin.CONFLICT),
    ],
)
@pytest.mark.parametrize("memory", ["none", "old"])
async def test_a_change_has_its_true_origin_without_memory_and_with_an_old_one(
    replicas: Replicas, git: Mapping[str, Json], kapso: Mapping[str, Json], origin: Origin, memory: str
) -> None:
    """The old one knows a version before the last; fields that git begins to manage are git's change."""
    process = replicas.newcomer()
    if memory == "old":
        await process.sync(desired(want("a", CODE_C, name="Older")))
        await replicas.later()
    await applied(replicas, want("a", CODE_A, name="A", runtime_config={"timeout": 5}))
    if kapso:
        replicas.edit("a", **kapso)  # type: ignore[arg-type]
        await replicas.later()
    fields = {"name": "A", "runtime_config": {"timeout": 5}, **{name: value for name, value in git.items() if name != "code"}}
    wanted = desired(want("a", str(git.get("code", CODE_A)), **fields))  # type: ignore[arg-type]
    step = only((await process.plan(wanted)).steps)
    assert step.origin is origin, step.reasons
    assert (await process.sync(wanted)).exit_code == 0
    await replicas.later()
    assert (await replicas.newcomer().plan(wanted)).in_sync


async def test_line_ends_and_final_newlines_make_no_difference(replicas: Replicas) -> None:
    """Adopted code keeps its bytes on Kapso, and is in sync for everybody."""
    function = replicas.world.create({"slug": "a", "name": "a", "code": CODE_A.replace("\n", "\r\n") + "\n"})
    replicas.world.deploy(function)
    await replicas.later()
    await applied(replicas, want("a"))
    assert (await replicas.newcomer().plan(desired(want("a")))).in_sync
    changed = only((await replicas.newcomer().plan(desired(want("a", CODE_B)))).steps)
    assert changed.origin is Origin.GIT


@pytest.mark.parametrize("normalise", ["rstrip", "newlines"])
async def test_code_that_kapso_stores_otherwise_is_no_drift_without_memory(tmp_path: Path, normalise: str) -> None:
    """The mark says what is stored."""
    replicas = Replicas(tmp_path, behaviour=Behaviour(normalise_code=normalise))  # type: ignore[arg-type]
    code = CODE_A.replace("\n", "  \r\n") + "\n\n"
    await applied(replicas, want("a", code))
    assert not only((await replicas.newcomer().plan(desired(want("a", code)))).steps).drifted


async def test_an_adopted_function_is_live_for_a_process_without_memory(replicas: Replicas) -> None:
    """Adoption writes the mark, which moves the time of the last change; that is no reason to deploy."""
    function = replicas.world.create({"slug": "a", "name": "a", "code": CODE_A})
    replicas.world.deploy(function)
    await replicas.later()
    await applied(replicas, want("a"))
    assert (await replicas.newcomer().plan(desired(want("a")))).in_sync
    replicas.world.update(function, {"description": without_digests(function.description or "")})
    (step,) = (await replicas.newcomer().plan(desired(want("a")))).changes
    assert step.action == "deploy", "the control: an older mark does not say it"


async def test_a_saved_edit_is_never_taken_for_live_because_of_the_mark(replicas: Replicas) -> None:
    """The mark says that other content ran: what is stored now is drift, and is corrected and deployed."""
    function = replicas.world.create({"slug": "a", "name": "a", "code": CODE_A})
    replicas.world.deploy(function)
    await replicas.later()
    await applied(replicas, want("a"))
    replicas.edit("a", deploy=False, code=CODE_B)
    await replicas.later()
    (step,) = (await replicas.newcomer().plan(desired(want("a")))).changes
    assert (step.origin, step.deploys) == (Origin.DRIFT, True)
    assert (await replicas.newcomer().sync(desired(want("a")))).exit_code == 0
    assert replicas.world.live_code() == {"a": CODE_A}


async def test_functions_that_are_taken_from_another_owner_are_not_deployed_again(replicas: Replicas) -> None:
    """Their marks say what ran; only the mark is written, long after the last deployment."""
    await applied(replicas, want("a"))
    process = replicas.newcomer()
    process.policy = replace(process.policy, owner="example.com/heir", take_from=frozenset({OWNER}))
    (step,) = (await process.plan(desired(want("a")))).changes
    assert (step.action, step.deploys) == ("adopt", False)
    assert (await process.sync(desired(want("a")))).exit_code == 0
    await replicas.later()
    heir = replicas.newcomer()
    heir.policy = replace(heir.policy, owner="example.com/heir")
    assert (await heir.plan(desired(want("a")))).in_sync


# Marks of the first version


async def test_an_older_mark_stays_valid_and_gains_digests_with_the_next_write_only(replicas: Replicas) -> None:
    """No write of its own: a pass that is in sync leaves it as it is."""
    await applied(replicas, want("a"), want("b"))
    for slug in "ab":
        function = replicas.world.function(slug)
        function.description = without_digests(function.description or "")
    process = replicas.process("first")
    assert (await process.sync(desired(want("a"), want("b")))).plan.in_sync
    assert (await process.sync(desired(want("a", CODE_B), want("b")))).exit_code == 0
    marks = {slug: split_description(replicas.world.function(slug).description)[1] for slug in "ab"}
    assert marks["a"] is not None
    assert marks["a"].applied == AppliedDigests(code_digest(CODE_B), None)
    assert marks["b"] == mark_for(OWNER, "b")


async def test_where_nothing_is_known_report_waits_for_the_next_change_in_git_only(replicas: Replicas) -> None:
    """A Pod lost its disk while a commit arrived, and marks are old: it says so, and the next push goes live."""
    await applied(replicas, want("a"))
    function = replicas.world.function("a")
    function.description = without_digests(function.description or "")
    replicas.drift = DriftPolicy.REPORT
    pod = replicas.newcomer()
    for _ in range(2):
        report = await pod.sync(desired(want("a", CODE_B)))
        step = only(report.plan.steps)
        assert isinstance(step, Blocked)
        assert step.by is BlockedBy.UNKNOWN_BASE
        assert "our last write is not known here" in step.reasons[0]
        assert "Kapso" not in step.reasons[0], "nobody knows who changed it"
        assert not step.drifted
    assert "drift.detected" not in pod.names()
    report = await pod.sync(desired(want("a", CODE_C)))
    assert report.exit_code == 0
    assert replicas.world.live_code() == {"a": CODE_C}
    assert list((pod.folder / "backups" / "a").iterdir()), "what it overwrote is kept"


async def test_with_digests_report_applies_git_and_reports_kapso_without_memory(replicas: Replicas) -> None:
    """The same Pod, with a mark that says what was applied: the commit goes live at once, and a dashboard edit does not."""
    await applied(replicas, want("a"))
    replicas.drift = DriftPolicy.REPORT
    assert (await replicas.newcomer().sync(desired(want("a", CODE_B)))).exit_code == 0
    assert replicas.world.live_code() == {"a": CODE_B}
    await replicas.later()
    replicas.edit("a", code=CODE_C)
    await replicas.later()
    step = only((await replicas.newcomer().plan(desired(want("a", CODE_B)))).steps)
    assert isinstance(step, Blocked)
    assert (step.by, step.reasons[0]) == (BlockedBy.DRIFT_POLICY, "changed on Kapso, and drift is only reported")


@pytest.mark.parametrize("memory", ["kept", "lost"])
@pytest.mark.parametrize("seconds", [0.0, 2.0, 30.0, 300.0])
async def test_code_that_was_saved_and_not_deployed_is_deployed_by_a_process_without_memory(
    replicas: Replicas, memory: str, seconds: float
) -> None:
    """Killed between the two, soon after another deployment: Kapso's times are as if it was deployed."""
    pod = replicas.process("pod")
    assert (await pod.sync(desired(want("a", CODE_A)))).exit_code == 0
    await replicas.later(seconds)
    pod = replicas.process("pod") if memory == "kept" else replicas.newcomer()
    pod.api.fate = lambda _, method, __: Fate.KILLED_AFTER if method == "PATCH" else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await pod.sync(desired(want("a", CODE_B)))
    assert replicas.world.function("a").code == CODE_B
    await replicas.later()
    assert (await replicas.newcomer().sync(desired(want("a", CODE_B)))).exit_code == 0
    assert replicas.world.live_code() == {"a": CODE_B}
    await replicas.later()
    another = replicas.newcomer()
    assert (await another.sync(desired(want("a", CODE_B)))).plan.in_sync
    assert another.api.writes == []


async def test_a_change_in_git_is_applied_after_code_that_was_only_saved(replicas: Replicas) -> None:
    """Nobody changed it on Kapso, so `report` does not hold it back."""
    pod = replicas.process("pod")
    assert (await pod.sync(desired(want("a", CODE_A)))).exit_code == 0
    pod.api.fate = lambda _, method, __: Fate.KILLED_AFTER if method == "PATCH" else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await pod.sync(desired(want("a", CODE_B)))
    await replicas.later()
    replicas.drift = DriftPolicy.REPORT
    assert (await replicas.newcomer().sync(desired(want("a", CODE_C)))).exit_code == 0
    assert replicas.world.live_code() == {"a": CODE_C}


@pytest.mark.parametrize("memory", ["kept", "lost"])
async def test_code_that_was_saved_while_older_code_was_deployed_is_deployed(replicas: Replicas, memory: str) -> None:
    """Two pushes close together: the first one's deployment ends after the second one was saved, and its process is gone."""
    await applied(replicas, want("a", CODE_A))
    pod = replicas.process("pod")
    pod.api.fate = lambda _, __, route: Fate.KILLED_AFTER if route.endswith("/deploy") else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await pod.sync(desired(want("a", CODE_B)))
    pod = replicas.process("pod") if memory == "kept" else replicas.newcomer()
    pod.api.fate = lambda _, method, __: Fate.KILLED_AFTER if method == "PATCH" else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await pod.sync(desired(want("a", CODE_C)))
    await replicas.later()
    assert (replicas.world.function("a").code, replicas.world.live_code()) == (CODE_C, {"a": CODE_B})
    assert (await replicas.newcomer().sync(desired(want("a", CODE_C)))).exit_code == 0
    assert replicas.world.live_code() == {"a": CODE_C}


# Secrets


def with_secrets(api_key: str = "key", code: str = CODE_A, **values: str) -> DesiredFunction:
    """A function with secrets, as a process with this API key and a state key of its own reads it."""
    digest = keyed_digest(api_key.encode() * 8)
    function = want("a", code)
    given = {name: SecretValue(value, digest(name, value)) for name, value in values.items()}
    entry = replace(function.entry, secrets={name: PlainSecret(value) for name, value in values.items()})
    together = secrets_digest(lambda: api_key)(dict(values))
    return replace(function, entry=entry, secrets=given, secrets_digest=together)


SET = ("POST", "/functions/{id}/secrets")
SECRET_WORLDS: tuple[Mapping[str, Json], ...] = (
    {"secrets_on_deploy": "keep", "post_of_existing": "refuse"},
    {"secrets_on_deploy": "drop", "post_of_existing": "overwrite"},
)


async def test_unchanged_secrets_cost_a_process_without_memory_no_write(replicas: Replicas) -> None:
    """It looks at the names once."""
    await applied(replicas, with_secrets(ONE="1", TWO="2"))
    newcomer = replicas.newcomer()
    assert (await newcomer.sync(desired(with_secrets(ONE="1", TWO="2")))).plan.in_sync
    assert newcomer.api.writes == []


async def test_a_secret_that_changed_while_memory_was_lost_is_set(replicas: Replicas) -> None:
    """All of the function's: the mark has one digest for them together. The next newcomer sets none."""
    await applied(replicas, with_secrets(ONE="1", TWO="2"))
    newcomer = replicas.newcomer()
    assert (await newcomer.sync(desired(with_secrets(ONE="1", TWO="new")))).exit_code == 0
    assert replicas.world.function("a").secrets == {"ONE": "1", "TWO": "new"}
    assert newcomer.names().count("secret.set") == 2
    await replicas.later()
    another = replicas.newcomer()
    assert (await another.sync(desired(with_secrets(ONE="1", TWO="new")))).plan.in_sync
    assert another.api.writes == []


async def test_after_a_key_rotation_with_memory_lost_secrets_are_set_once(replicas: Replicas) -> None:
    """The digest's key is derived from the API key; with memory, a rotation costs nothing."""
    await applied(replicas, with_secrets("old-key", ONE="1"))
    keeper = replicas.process("first")
    assert keeper.memory().owned
    newcomer = replicas.newcomer()
    assert (await newcomer.sync(desired(with_secrets("new-key", ONE="1")))).exit_code == 0
    assert newcomer.names().count("secret.set") == 1
    await replicas.later()
    another = replicas.newcomer()
    assert (await another.sync(desired(with_secrets("new-key", ONE="1")))).plan.in_sync
    assert another.api.writes == []


async def test_two_processes_with_an_api_key_each_do_not_set_the_same_secrets_in_turn(replicas: Replicas) -> None:
    """A laptop and CI: what the other one set cannot be compared, so each sets its values again, once."""
    laptop, ci = replicas.process("laptop"), replicas.process("ci")
    for value in ("1", "new"):
        for _ in range(3):
            for process, key in ((laptop, "key of laptop"), (ci, "key of ci")):
                assert (await process.sync(desired(with_secrets(key, ONE=value)))).exit_code == 0
                await replicas.later()
        writes = len(laptop.api.writes) + len(ci.api.writes)
        for process, key in ((laptop, "key of laptop"), (ci, "key of ci")):
            assert (await process.sync(desired(with_secrets(key, ONE=value)))).plan.in_sync
            await replicas.later()
        assert len(laptop.api.writes) + len(ci.api.writes) == writes
        assert replicas.world.function("a").secrets == {"ONE": value}


async def test_an_older_secret_that_a_process_with_another_api_key_set_late_is_set_again(replicas: Replicas) -> None:
    """A job of an older commit ends after the daemon set the new value."""
    await applied(replicas, with_secrets("key of daemon", ONE="new"))
    assert (await replicas.newcomer().sync(desired(with_secrets("key of job", ONE="old")))).exit_code == 0
    await replicas.later()
    daemon = replicas.process("first")
    assert (await daemon.sync(desired(with_secrets("key of daemon", ONE="new")))).exit_code == 0
    assert replicas.world.function("a").secrets == {"ONE": "new"}
    await replicas.later()
    assert (await daemon.sync(desired(with_secrets("key of daemon", ONE="new")))).plan.in_sync


async def test_a_fight_over_a_secret_does_not_hold_back_a_change_of_code(replicas: Replicas) -> None:
    """Both follow the same git: each push is deployed, whatever they set in between."""
    one, other = replicas.process("one"), replicas.process("other")
    for code in (CODE_A, CODE_B, CODE_C, CODE_A, CODE_B, CODE_C):
        for process, value in ((one, "1"), (other, "2"), (one, "1")):
            await process.sync(desired(with_secrets(code=code, ONE=value)))
            await replicas.later()
        assert replicas.world.live_code() == {"a": code}


async def test_secrets_that_a_process_with_another_api_key_began_to_set_are_set_again(replicas: Replicas) -> None:
    """Its digests cannot be compared, and still the mark says that it did not end."""
    await applied(replicas, with_secrets("key of laptop", ONE="1", TWO="2"))
    ci = replicas.newcomer()
    ci.api.fate = lambda _, method, route: Fate.KILLED_AFTER if (method, route) == SET else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await ci.sync(desired(with_secrets("key of ci", ONE="new", TWO="2")))
    await replicas.later()
    assert (await replicas.process("first").sync(desired(with_secrets("key of laptop", ONE="1", TWO="2")))).exit_code == 0
    assert replicas.world.function("a").secrets == {"ONE": "1", "TWO": "2"}


async def test_two_sources_with_one_owner_stop_setting_each_others_secrets(replicas: Replicas) -> None:
    """Each has another value, round after round: that is blocked with the reason; a new value in git is set."""
    one, other = replicas.process("one"), replicas.process("other")
    for _ in range(8):
        for process, value in ((one, "1"), (other, "2")):
            await process.sync(desired(with_secrets(ONE=value)))
            await replicas.later()
    writes = len(one.api.writes) + len(other.api.writes)
    for process, value in ((one, "1"), (other, "2")):
        await process.sync(desired(with_secrets(ONE=value)))
        await replicas.later()
    assert len(one.api.writes) + len(other.api.writes) == writes
    steps = [
        only((await process.plan(desired(with_secrets(ONE=value)))).steps) for process, value in ((one, "1"), (other, "2"))
    ]
    (blocked,) = [step for step in steps if isinstance(step, Blocked)]
    assert (blocked.by, blocked.fields) == (BlockedBy.OSCILLATION, ("secrets",))
    assert "replaced its secrets" in blocked.reasons[0]
    assert (await one.sync(desired(with_secrets(ONE="3")))).exit_code == 0
    assert replicas.world.function("a").secrets == {"ONE": "3"}


async def test_a_pass_that_dies_before_the_secrets_are_set_does_not_claim_them_in_the_mark(replicas: Replicas) -> None:
    """Whoever comes next without memory sets them."""
    first = replicas.process("first")
    first.api.fate = lambda _, method, route: Fate.KILLED_BEFORE if (method, route) == SET else Fate.FINE
    with pytest.raises(BaseExceptionGroup):
        await first.sync(desired(with_secrets(ONE="1")))
    await replicas.later()
    assert (await replicas.newcomer().sync(desired(with_secrets(ONE="1")))).exit_code == 0
    assert replicas.world.function("a").secrets == {"ONE": "1"}


@pytest.mark.history
@pytest.mark.parametrize("behaviour", SECRET_WORLDS, ids=lambda world: "-".join(map(str, world.values())))
@pytest.mark.parametrize("next_memory", ["none", "old"])
@pytest.mark.parametrize("starts", ["new", "rotated", "with code", "down"])
async def test_after_a_kill_at_any_call_of_a_rotation_the_next_process_sets_gits_values(
    tmp_path: Path, starts: str, next_memory: str, behaviour: Mapping[str, Json]
) -> None:
    """A Pod dies while it sets new values, and git goes back to the former ones: the next process must not believe the mark.

    That process has no memory, or one of the former values. Another one, without memory, then finds everything in sync.
    """
    code = CODE_B if starts == "with code" else CODE_A
    former, latter = with_secrets(ONE="1", TWO="2"), with_secrets(code=code, ONE="new", TWO="2")
    for call in itertools.count(1):
        replicas = Replicas(tmp_path / f"killed at {call}", behaviour=Behaviour().changed(behaviour))
        if starts != "new":
            await applied(replicas, former)
        if starts == "down":
            replicas.world.deploy(replicas.world.function("a"), failure="the platform's")
            await replicas.later()
        pod = replicas.newcomer()
        pod.api.fate = lambda number, *_, call=call: Fate.KILLED_AFTER if number == call else Fate.FINE
        with contextlib.suppress(Killed, BaseExceptionGroup):
            await pod.sync(desired(latter))
        await replicas.later()
        heir = replicas.process("first") if next_memory == "old" else replicas.newcomer()
        for exit_code in (None, 0):
            report = await heir.sync(desired(former))
            assert exit_code in (None, report.exit_code)
            await replicas.later()
        assert replicas.world.function("a").secrets == {"ONE": "1", "TWO": "2"}, call
        another = replicas.newcomer()
        assert (await another.sync(desired(former))).plan.in_sync
        assert (another.api.writes, replicas.world.live_code()) == ([], {"a": CODE_A})
        if len(pod.api.log) < call:
            break


async def test_a_mark_never_claims_secrets_that_a_draft_has_yet_to_get(replicas: Replicas) -> None:
    """With `deploy: false` secrets wait: a process without memory sets them when `deploy` is turned on."""
    await applied(replicas, with_secrets(ONE="1"))
    waiting = with_secrets(code=CODE_B, ONE="2")
    off = replace(waiting, entry=replace(waiting.entry, deploy=False))
    assert (await replicas.newcomer().sync(desired(off))).exit_code == 0
    await replicas.later()
    assert (await replicas.newcomer().sync(desired(waiting))).exit_code == 0
    assert replicas.world.function("a").secrets == {"ONE": "2"}


async def test_two_sources_with_one_owner_stop_writing_over_each_other(replicas: Replicas) -> None:
    """Git says the same in both, round after round: that is blocked with the reason; a change in git is applied."""
    one, other = replicas.process("one"), replicas.process("other")
    for _ in range(8):
        for process, code in ((one, CODE_A), (other, CODE_B)):
            await process.sync(desired(want("a", code)))
            await replicas.later()
    writes = len(one.api.writes) + len(other.api.writes)
    for process, code in ((one, CODE_A), (other, CODE_B)):
        await process.sync(desired(want("a", code)))
    assert len(one.api.writes) + len(other.api.writes) == writes
    blocked = [step for step in (await one.plan(desired(want("a", CODE_A)))).steps if isinstance(step, Blocked)]
    assert not blocked or blocked[0].by is BlockedBy.OSCILLATION
    assert (await one.sync(desired(want("a", CODE_C)))).exit_code == 0
    assert replicas.world.live_code() == {"a": CODE_C}


async def test_replicas_that_rotate_secrets_in_turn_are_no_dispute_about_the_code(replicas: Replicas) -> None:
    """Each finds the other's mark, and the content that git says: a later drift is corrected, not blocked."""
    one, other = replicas.process("one"), replicas.process("other")
    for number in range(12):
        process, git = (one, other)[number % 2], desired(with_secrets(ONE=f"value {number}"))
        assert (await process.sync(git)).exit_code == 0
        await replicas.later()
    replicas.edit("a", code=CODE_B)
    await replicas.later()
    step = only((await one.sync(desired(with_secrets(ONE="value 11")))).plan.steps)
    assert (step.action, step.origin) == ("update", Origin.DRIFT)
    assert replicas.world.live_code() == {"a": CODE_A}


@pytest.mark.parametrize("code", [CODE_C.rstrip("\n") + "   \n", CODE_C.replace("\n", " \r\n") + "\n\n"])
async def test_normalised_code_is_no_drift_where_lists_have_no_code(tmp_path: Path, code: str) -> None:
    """The record that ends a deployment is from a list: the stored code is read once for the mark."""
    replicas = Replicas(tmp_path, behaviour=Behaviour(list_code=False, normalise_code="rstrip"))
    await applied(replicas, want("a", code))
    replicas.drift = DriftPolicy.REPORT
    assert (await replicas.newcomer().sync(desired(want("a", CODE_B)))).exit_code == 0
    assert replicas.world.live_code() == {"a": CODE_B.rstrip()}


# The digests themselves


JSON_VALUES = {
    "name": st.sampled_from(["a", "b", "c"]),
    "description": st.sampled_from(["", "x", "y"]),
    "function_type": st.just("cloudflare_worker"),
    "invoke_response_mode": st.sampled_from(["passthrough", "wrapped"]),
    "public_endpoint": st.booleans(),
    "runtime_config": st.sampled_from([{}, {"timeout": 1}, {"timeout": 2}]),
}
SIDES = st.fixed_dictionaries({}, optional=JSON_VALUES)


@settings(max_examples=300)
@given(base=SIDES, git=SIDES, there=st.fixed_dictionaries(JSON_VALUES), codes=st.tuples(*[st.sampled_from("abc")] * 3))
def test_the_digests_give_back_what_was_applied_as_far_as_git_or_kapso_still_has_it(
    base: dict[str, Json], git: dict[str, Json], there: dict[str, Json], codes: tuple[str, str, str]
) -> None:
    """For any three versions: a side that did not change is never said to have changed; the other way round only together."""
    texts = {"a": CODE_A, "b": CODE_B, "c": CODE_C}
    was, now_git, now_there = (texts[code] for code in codes)
    said = applied_by(want("a", was, **base), base, was, None, running=False)  # type: ignore[arg-type]
    function = remote("a", now_there)
    text = f"{there['description']}{mark_for(OWNER, 'a', applied=said)}"
    function = replace(function, fields={**function.fields, **there, "description": text})
    stored: Content = {**there, CODE: code_hash(now_there)}
    record = find_last_applied(want("a", now_git, **git), function, stored, None)  # type: ignore[arg-type]
    assert record is not None
    for name in FIELDS:
        if name not in base:
            continue
        elsewhere = base[name] in (git.get(name), there[name])
        lost = any(base[other] not in (git.get(other), there[other]) for other in base)
        if elsewhere and not lost:
            assert record.wanted.get(name) == base[name], name
    if was in (now_git, now_there):
        assert record.wanted[CODE] == code_hash(was)
    assert fields_digest({}) is None


@pytest.mark.parametrize(
    ("said", "outdated"),
    [
        (AppliedDigests(code_digest(CODE_A), "00112233", None), False),
        (AppliedDigests(code_digest(CODE_A), None, "00112233"), False),
        (AppliedDigests(None, None), True),
        (AppliedDigests(code_digest(CODE_B), None), True),
    ],
)
def test_only_other_code_outdates_the_version_to_roll_back_to(said: AppliedDigests, outdated: bool) -> None:
    """A description or a secret that another process changed does not: the same code ran before."""
    function = remote("a", CODE_A)
    function = replace(function, fields={**function.fields, "description": str(mark_for(OWNER, "a", applied=said))})
    stored: Content = {CODE: code_hash(CODE_A)}
    known = replace(
        InventoryRecord.new("a", function.id), wanted=stored, stored=stored, applied=AppliedDigests(code_digest(CODE_A), None)
    )
    record = find_last_applied(want("a", CODE_A), function, stored, known)
    assert record is not None
    assert record.outdated_version is outdated


# Several processes


@dataclass(frozen=True)
class Turn:
    """One turn: which process has it, whether its state is lost, what git says, and what the dashboard does first."""

    process: int
    forgets: bool
    git: Mapping[str, int]
    dashboard: Mapping[str, int]


turns = st.builds(
    Turn,
    process=st.integers(0, 2),
    forgets=st.booleans(),
    git=st.dictionaries(st.sampled_from("ab"), st.integers(0, 2)),
    dashboard=st.dictionaries(st.sampled_from("ab"), st.integers(3, 5), max_size=1),
)


def _code(version: int) -> str:
    return f"async function handler() {{ return new Response('{version}'); }}\n"


@pytest.mark.history
@settings(max_examples=100, deadline=None)
@given(st.lists(turns, min_size=1, max_size=8))
async def test_processes_with_lost_and_stale_memories_take_turns_with_true_origins(history: list[Turn]) -> None:
    """Each pass says who changed what, as if one process had done them all; git's code runs after it, and ids never change."""
    with tempfile.TemporaryDirectory() as name:
        replicas = Replicas(Path(name))
        git = {"a": 0, "b": 0}
        written: dict[str, int] = {}
        stored: dict[str, int] = {}
        ids: dict[str, str] = {}
        for number, turn in enumerate(history):
            git |= turn.git
            for slug, version in turn.dashboard.items():
                if slug in stored:
                    replicas.edit(slug, code=_code(version))
                    stored[slug] = version
            await replicas.later()
            folder = f"process-{turn.process}" if not turn.forgets else f"lost-{number}"
            wanted = desired(*(want(slug, _code(version)) for slug, version in git.items()))
            report = await replicas.process(folder).sync(wanted)
            undone = {step.slug for step in report.plan.steps if isinstance(step, Blocked) and step.by is BlockedBy.OSCILLATION}
            if undone:
                edits = [edit.dashboard for edit in history[number - OSCILLATION_LIMIT : number + 1]]
                assert all(undone <= edit.keys() for edit in edits), "each correction was undone"
                return
            assert report.exit_code == 0
            for step in report.plan.steps:
                slug = step.slug
                by_git, by_kapso = git[slug] != written.get(slug), stored.get(slug) != written.get(slug)
                if slug not in stored:
                    assert step.origin is Origin.NEW
                elif git[slug] == stored[slug]:
                    assert isinstance(step, NoChange), step
                else:
                    true = Origin.CONFLICT if by_git and by_kapso else Origin.GIT if by_git else Origin.DRIFT
                    assert step.origin is true, (turn, step.reasons)
            written |= git
            stored |= git
            assert replicas.world.live_code() == {slug: _code(version) for slug, version in git.items()}
            now = {function.slug: function.id for function in replicas.world.functions.values()}
            assert ids in ({}, now)
            ids = now
            await replicas.later()


@pytest.mark.history
@settings(max_examples=100, deadline=None)
@given(
    cut=st.integers(1, 14),
    fate=st.sampled_from([Fate.KILLED_BEFORE, Fate.KILLED_AFTER]),
    pushed=st.lists(st.integers(1, 3), min_size=2, max_size=3),
    pause=st.sampled_from([1.0, 8.0, 60.0]),
)
async def test_pods_without_a_disk_that_are_replaced_at_any_call_deploy_every_push_under_report(
    cut: int, fate: Fate, pushed: list[int], pause: float
) -> None:
    """A Pod dies within a pass, another one starts without memory, and drift is only reported: nothing stays blocked."""
    with tempfile.TemporaryDirectory() as name:
        replicas = Replicas(Path(name))
        await applied(replicas, want("a", _code(0), name="A"), want("b", _code(0)))
        replicas.drift = DriftPolicy.REPORT
        for version in pushed:
            wanted = desired(want("a", _code(version), name=f"Version {version}"), want("b", _code(version)))
            dying = replicas.newcomer()
            dying.api.fate = lambda number, *_: fate if number == cut else Fate.FINE
            with contextlib.suppress(BaseExceptionGroup, Killed):
                await dying.sync(wanted)
            await replicas.later(pause)
            assert (await replicas.newcomer().sync(wanted)).exit_code == 0
            await replicas.later()
            assert replicas.world.live_code() == {"a": _code(version), "b": _code(version)}
            assert (await replicas.newcomer().plan(wanted)).in_sync
