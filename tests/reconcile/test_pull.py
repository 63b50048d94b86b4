"""Pull and plan are inverse: pull writes into the folder what Kapso has."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from kapso_sync.emulator.options import Behaviour
from kapso_sync.emulator.records import Function
from kapso_sync.manifest.layout import read_layout
from kapso_sync.manifest.text import edited
from kapso_sync.model.desired import Desired
from kapso_sync.model.functions import FIELDS, code_hash
from kapso_sync.model.ownership import split_description
from kapso_sync.model.pull import FolderLayout, Pulled, PullPlan, Taken
from kapso_sync.model.source import CODE_LIMIT, Revision, Snapshot, SourceFile
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.desired import DesiredBuilder
from kapso_sync.reconcile.observe import observe, with_code
from kapso_sync.reconcile.plan.observed import Observed
from kapso_sync.reconcile.pull.planner import PullInputs, PullOptions, candidates, compiled, plan_pull, verify, with_changes
from kapso_sync.store.database import read_state
from tests.build.workbench import Workbench
from tests.builders import CODE_A, CODE_B, OWNER, desired, remote, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import DEPLOY_SECONDS, WorldApi, new_world
from tests.worlds import worlds

DESIRE = Workbench().desire()
FOREIGN = "somebody/else"


@dataclass
class Folder:
    """A functions folder in memory beside a world in memory, with a real state folder for passes."""

    bench: Bench
    files: dict[str, bytes] = field(default_factory=dict)
    remote_map: bytes | None = None
    environment: str | None = None

    def snapshot(self) -> Snapshot:
        files = {path: SourceFile(path, content) for path, content in self.files.items()}
        return Snapshot("test", Revision("c0ffee"), "", files, self.remote_map)

    async def desired(self) -> Desired:
        snapshot = self.snapshot()
        empty = read_layout(snapshot.files).empty
        return Desired("test", snapshot.revision, ()) if empty else await self.desire()(snapshot, ReconcilerState())

    def desire(self) -> DesiredBuilder:
        return DESIRE if self.environment is None else Workbench().desire(self.environment)

    async def pull(self, *, write: bool = True, **wish: Any) -> PullPlan:
        """Pull as the command does, into this folder."""
        api, asked = self.bench.api, PullOptions(**wish)
        desired = await self.desired()
        observed = await observe(api, read_state(self.bench.folder), desired, OWNER, self.bench.clock.now())
        sides = PullInputs(self.snapshot(), desired, observed, environment=self.environment)
        functions = candidates(sides, asked)
        observed = await with_code(api, observed, (remote.id for remote in functions))
        secrets = {remote.id: await api.list_secrets(remote.id) for remote in functions}
        plan = plan_pull(replace(sides, observed=observed, secrets=secrets), asked)
        proof = await self.desire()(with_changes(self.snapshot(), plan.changes), ReconcilerState()) if plan.changes else desired
        plan = verify(plan, proof, observed)
        if write:
            self.files |= {change.path: change.new for change in plan.changes}
        return plan

    def add(
        self, slug: str, code: str = CODE_A, *, deployed: bool = True, secrets: Mapping[str, str] = {}, **fields: Any
    ) -> str:
        world = self.bench.api.world
        function = world.create({"slug": slug, "name": slug, "code": code, **fields})
        self._seed(function, deployed=deployed, secrets=secrets)
        return function.id

    async def edit(self, which: str, **fields: Any) -> None:
        """Change a function as in the dashboard, a while later, and deploy it: the ownership mark stays."""
        await self.bench.clock.sleep(60)
        world = self.bench.api.world
        if "description" in fields:
            fields["description"] += str(split_description(world.function(which).description)[1] or "")
        self._seed(world.update(world.function(which), fields), deployed=True, secrets={})

    def _seed(self, function: Function, *, deployed: bool, secrets: Mapping[str, str]) -> None:
        world = self.bench.api.world
        world.seed_secrets(function, secrets)
        if deployed:
            world.deploy(function, delay=0.0)

    def text(self, path: str = "manifest.yaml") -> str:
        return self.files[path].decode()


def folder_at(state: Path, behaviour: Behaviour | None = None) -> Folder:
    clock = VirtualClock()
    return Folder(Bench(state, clock, WorldApi(new_world(clock, behaviour))))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_at(tmp_path / "state")


def the(plan: PullPlan, slug: str) -> Pulled:
    (found,) = [pulled for pulled in plan.functions if pulled.slug == slug]
    return found


# Whatever there is

HOSTILE = [
    "yes",
    "010",
    "- x",
    "#",
    "",
    "null",
    "~",
    "a: b",
    "a #b",
    "{x}",
    "x ",
    "\u2028",
    "1e3",
    "12:30:45",
    "<<",
    "!t",
    "&a",
    "*a",
]
SLUGS = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True) | st.sampled_from(
    ["-", "--", "---", "no", "on", "null", "010", "1e3", "2020-01-01", "manifest", "functions", "index", "x" * 240, "123"]
)
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40) | st.sampled_from(HOSTILE)
DESCRIPTION = st.none() | TEXT | st.builds("{}\n{}\n".format, TEXT, TEXT)
NUMBER = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SOUND = st.builds(
    "async function handler(request, env) {{{0}{0}}}{1}// {2}{3}".format,
    st.sampled_from(["\n", "\r\n", " ", "\r"]),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r\n\u2028\u2029"), max_size=30),
    st.sampled_from(["", "\n", "\r\n", "\n\n\n"]),
)
UNSOUND = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=30).filter(
    str.strip
)


@st.composite
def functions(draw: st.DrawFn) -> dict[str, Any]:
    sound = draw(st.integers(0, 9)) > 0
    supabase = draw(st.booleans())
    description = draw(DESCRIPTION)
    owner = draw(st.sampled_from([None, None, None, FOREIGN, "copied"]))
    slug = draw(SLUGS)
    if owner is not None:
        description = f"{description or ''} [kapso-sync:{FOREIGN if owner == FOREIGN else OWNER}#abcdef]"
    return {
        "slug": slug,
        "name": draw(TEXT.filter(str.strip) | st.just(slug)),
        "description": description,
        "code": draw(SOUND if sound else UNSOUND),
        "function_type": "supabase_function" if supabase else "cloudflare_worker",
        "public_endpoint": not supabase and draw(st.booleans()),
        "invoke_response_mode": draw(st.sampled_from(["passthrough", "wrapped"])),
        "runtime_config": draw(st.dictionaries(TEXT, JSON, max_size=3)),
        "marked": owner is not None,
        "deployed": draw(st.booleans()),
        "secrets": draw(st.sampled_from([{}, {"STRIPE_KEY": "x", "KAPSO_API_KEY": "y"}])),
    }


PROJECT = st.lists(functions(), max_size=5, unique_by=lambda function: function["slug"])


@pytest.mark.history
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    project=PROJECT, layout=st.sampled_from(FolderLayout), behaviour=worlds().filter(lambda world: world.script_code == "runs")
)
@example(project=[], layout=FolderLayout.MANIFEST, behaviour=Behaviour())
def test_after_a_pull_plan_only_adopts_and_after_a_sync_is_empty(
    project: list[dict[str, Any]], layout: FolderLayout, behaviour: Behaviour
) -> None:
    """For any project and API behaviour: adopting writes only the mark, and a second pull writes nothing."""
    with tempfile.TemporaryDirectory() as state:
        asyncio.run(_round_trip(folder_at(Path(state), behaviour), project, layout))


async def _round_trip(folder: Folder, project: list[dict[str, Any]], layout: FolderLayout) -> None:
    behaviour = folder.bench.api.world.behaviour
    for function in project:
        attributes = {name: value for name, value in function.items() if name not in ("marked", "deployed", "secrets")}
        folder.add(attributes.pop("slug"), deployed=function["deployed"], secrets=function["secrets"], **attributes)
    await folder.bench.clock.sleep(DEPLOY_SECONDS)
    before = contents(folder)
    plan = await folder.pull(layout=layout)
    pulled = {function.slug: function for function in plan.functions}
    for function in project:
        result = pulled[function["slug"]]
        assert result.taken is (Taken.LEFT if function["marked"] else Taken.NEW), result
        assert all("its name is left out: a manifest gives each name once" in text for text in left_out(result)), result
        copied = function["marked"] and OWNER in function["description"]
        assert result.incomplete is (copied or bool(left_out(result))), result
        if not function["marked"]:
            stored = folder.bench.api.world.function(function["slug"])
            assert stored.code.encode() in [folder.files[path] for path in result.files]
            if result.taken is Taken.NEW:
                assert not [name for name in behaviour.inherited_secrets if name in "".join(map(folder.text, result.files))]
    if not plan.changes:
        return
    desired = await folder.desired()
    refused = {function.slug for function in desired.unusable}
    assert refused == {slug for slug, result in pulled.items() if any("will not deploy" in text for text in result.remarks)}
    steps = {step.slug: step for step in (await folder.bench.plan(desired)).steps}
    for slug, result in pulled.items():
        if result.taken is Taken.NEW and slug not in refused:
            assert (steps[slug].action, steps[slug].fields) == ("adopt", ("ownership",)), steps[slug]
    if not refused:
        report = await folder.bench.sync(desired)
        assert all(outcome.error is None for outcome in report.outcomes)
        assert (await folder.bench.plan(desired)).in_sync
    assert contents(folder) == before, "what an adoption writes is the mark and nothing else"
    again = await folder.pull(layout=layout)
    assert not again.changes


def test_code_of_nothing_but_lines_is_looked_through_once() -> None:
    """What lies on Kapso may have a MiB of them, and the square of that takes hours; a module behind them is one."""
    wanted, lines = desired(want("greet")), "\n" * 100_000
    for code, found in ((f"{lines}x", frozenset()), (f"{lines}\t export  default {{}}", frozenset({"greet"}))):
        started = time.process_time()
        assert compiled(wanted, Observed((remote("greet", code),), OWNER, ReconcilerState(), {})) == found
        assert time.process_time() - started < 1.0


def contents(folder: Folder) -> dict[str, Any]:
    def shown(function: Any) -> dict[str, Any]:
        own = (
            split_description(function.description)[0] if OWNER in (function.description or "") else function.description or ""
        )
        return {**{name: getattr(function, name) for name in FIELDS}, "code": function.code, "description": own}

    return {function.slug: shown(function) for function in folder.bench.api.world.functions.values()}


def left_out(pulled: Pulled) -> list[str]:
    return [remark for remark in pulled.remarks if "is left out" in remark]


# What cannot be


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "x" * 256}, "its name is left out: name: expected at most 255 characters"),
        ({"runtime_config": {"a": 10**30}}, "its runtime_config is left out: a number of 31 digits is not read"),
        ({"runtime_config": {"a": float("inf")}}, "its runtime_config is left out"),
        ({"description": "half \ud800"}, "its description is left out: half of a surrogate pair is not text"),
        ({"code": "// \ud800"}, "skipped: its code is not Unicode text"),
        ({"code": CODE_A + "/" * CODE_LIMIT}, "skipped: its code has"),
    ],
)
async def test_pull_reports_values_that_a_manifest_cannot_hold(folder: Folder, change: dict[str, Any], said: str) -> None:
    """The value is named and kept on Kapso, everything else is written, and the exit code shows it."""
    folder.add("a", **change)
    folder.add("b")
    plan = await folder.pull()
    assert plan.incomplete
    assert any(remark.startswith(said) for remark in the(plan, "a").remarks), the(plan, "a")
    assert the(plan, "b").taken is Taken.NEW
    steps = {step.slug: step.action for step in (await folder.bench.plan(await folder.desired())).steps}
    assert set(steps.values()) == {"adopt"}


async def test_pull_omits_a_runtime_config_that_is_nested_too_deeply(folder: Folder) -> None:
    """It is reported, and the rest of the function is written."""
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"a": deep}
    folder.add("a", runtime_config=deep)
    plan = await folder.pull()
    assert left_out(the(plan, "a"))
    assert "runtime_config" not in folder.text()


async def test_pull_does_not_write_a_duplicate_name(folder: Folder) -> None:
    """A manifest gives each name once: the second function keeps its name on Kapso, unmanaged."""
    folder.add("a", name="Same")
    folder.add("b", name="Same")
    plan = await folder.pull()
    assert left_out(the(plan, "b")) == ["its name is left out: a manifest gives each name once, and `a` has it"]
    assert (await folder.bench.plan(await folder.desired())).summary["adopt"] == 2


async def test_pull_does_not_write_a_manifest_above_the_size_limit(folder: Folder) -> None:
    """It could not be read back: nothing is written, and folders are proposed."""
    from kapso_sync.errors import KapsoSyncError

    for number in range(3):
        folder.add(f"f{number}", description="x" * 100_000)
    with pytest.raises(KapsoSyncError, match="256 KiB") as caught:
        await folder.pull()
    assert "--layout kapso" in str(caught.value.hint)
    assert not folder.files
    await folder.pull(layout=FolderLayout.KAPSO)
    assert (await folder.bench.plan(await folder.desired())).summary["adopt"] == 3


# What is there already

MANIFEST = """\
# Our functions
version: 1

defaults:            # for all
    public_endpoint: true
functions:
    # greets
    greet: {file: greet.js}   # short
    part:
        file:   part.js
        description: 'Says bye'   # for now
        runtime_config:
            timeout: 30   # seconds
            # why not more?
            memory: 128
# the end
"""


async def test_pull_keeps_comments_and_order_of_the_manifest(folder: Folder) -> None:
    """Quotes, spaces and indentation too; new entries come last, in the order of their slugs."""
    folder.files = {"manifest.yaml": MANIFEST.encode(), "greet.js": CODE_A.encode(), "part.js": CODE_A.encode()}
    for slug in ("zed", "alpha"):
        folder.add(slug, public_endpoint=slug == "zed")
    await folder.pull()
    lines = folder.text().splitlines()
    assert [line for line in lines if line in MANIFEST.splitlines()] == MANIFEST.splitlines()
    assert [line for line in lines if line not in MANIFEST.splitlines()] == [
        "    alpha:",
        "        file: alpha.js",
        "        public_endpoint: false",
        "    zed:",
        "        file: zed.js",
    ]


async def test_pull_all_rewrites_only_keys_that_differ(folder: Folder) -> None:
    """Keys are changed in place, comments stay, and missing keys are added."""
    folder.files = {"manifest.yaml": MANIFEST.encode(), "greet.js": CODE_A.encode(), "part.js": CODE_A.encode()}
    await folder.bench.sync(await folder.desired())
    await folder.edit(
        "part", code=CODE_B, description="Says: goodbye", runtime_config={"timeout": 60, "memory": 128, "new": [1]}
    )
    await folder.edit("greet", name="Greet")
    plan = await folder.pull(everything=True)
    assert not plan.incomplete
    assert folder.files["part.js"] == CODE_B.encode()
    expected = MANIFEST.replace("{file: greet.js}", "{file: greet.js, name: Greet}").replace("'Says bye'", '"Says: goodbye"')
    expected = expected.replace("timeout: 30 ", "timeout: 60 ").replace("memory: 128\n", "memory: 128\n            new: [1]\n")
    assert folder.text() == expected
    assert (await folder.bench.plan(await folder.desired())).in_sync


async def test_a_pull_for_one_environment_changes_no_other(folder: Folder) -> None:
    """Different keys and new functions are written below that environment."""
    folder.environment = "staging"
    folder.files = {"manifest.yaml": ENVIRONMENTS.encode(), "greet.js": CODE_A.encode(), "gone.js": CODE_A.encode()}
    folder.add("greet", name="Greeter", description="Greets, for testing.", secrets={"A": "1", "B": "2"})
    folder.add("gone")
    folder.add("probe", CODE_B, description="Probes.")
    plan = await folder.pull(everything=True, force=True)
    assert the(plan, "gone").remarks == ("skipped: this environment leaves it out",)
    assert folder.text() == snapshot("""\
version: 1
defaults: {description: Of all}
functions:
  greet:
    description: Greets.
    secrets: {A: {env: A}}
  gone:
environments:
  staging:
    functions:
      greet: {description: "Greets, for testing.", name: Greeter, secrets: {B: {keep: true}}}  # not for the public
      gone: false
      probe:
        file: probe.js
        description: Probes.
  production:
    functions:
      greet: {protected: true}
""")
    assert (await folder.pull(everything=True)).changes == ()
    assert (await folder.bench.plan(await folder.desired())).summary["adopt"] == 2
    folder.environment = None
    assert {entry.slug for entry in (await folder.desired()).functions} == {"greet", "gone"}


async def test_pull_does_not_repeat_secrets_that_an_environment_inherits(folder: Folder) -> None:
    """Only secrets that neither the defaults nor the environment name are written."""
    folder.environment = "staging"
    staging = "environments:\n  staging:\n    functions:\n      a: {secrets: {ONE: {env: OTHER}}}\n"
    manifest = f"version: 1\ndefaults: {{secrets: {{TWO: {{env: SHARED}}}}}}\nfunctions:\n  a:\n{staging}"
    folder.files = {"manifest.yaml": manifest.encode(), "a.js": CODE_A.encode()}
    folder.add("a", secrets={"ONE": "1", "TWO": "2", "SIX": "6"})
    await folder.pull(everything=True)
    assert "      a: {secrets: {ONE: {env: OTHER}, SIX: {keep: true}}}\n" in folder.text()


ENVIRONMENTS = """\
version: 1
defaults: {description: Of all}
functions:
  greet:
    description: Greets.
    secrets: {A: {env: A}}
  gone:
environments:
  staging:
    functions:
      greet: {description: "Greets, for testing."}  # not for the public
      gone: false
  production:
    functions:
      greet: {protected: true}
"""


async def test_pull_never_overwrites_a_local_change_without_force(folder: Folder) -> None:
    """A file that was edited since the last sync is skipped and reported."""
    folder.add("a", CODE_A)
    await folder.pull()
    await folder.bench.sync(await folder.desired())
    await folder.edit("a", code=CODE_B)
    local = CODE_A + "// mine\n"
    folder.files["a.js"] = local.encode()
    plan = await folder.pull(everything=True)
    assert (the(plan, "a").taken, plan.incomplete) == (Taken.SKIPPED, True)
    assert folder.files["a.js"] == local.encode()
    plan = await folder.pull(everything=True, force=True)
    assert (folder.files["a.js"], plan.incomplete) == (CODE_B.encode(), False)


async def test_without_state_pull_treats_any_difference_as_a_local_change(folder: Folder) -> None:
    """Who changed it is unknown: the file stays."""
    folder.add("a", CODE_B)
    folder.files = {"manifest.yaml": b"version: 1\nfunctions:\n  a:\n", "a.js": CODE_A.encode()}
    plan = await folder.pull(everything=True)
    assert the(plan, "a").taken is Taken.SKIPPED
    assert folder.files["a.js"] == CODE_A.encode()


async def test_pull_does_not_overwrite_an_unlisted_file(folder: Folder) -> None:
    """It is skipped unless its content is the same already."""
    folder.add("a", CODE_A)
    folder.add("b", CODE_A)
    folder.files = {"a.js": CODE_B.encode(), "b.js": CODE_A.encode()}
    plan = await folder.pull()
    assert [pulled.taken for pulled in plan.functions] == [Taken.SKIPPED, Taken.NEW]
    assert folder.files["a.js"] == CODE_B.encode()
    await folder.pull(force=True)
    assert folder.files["a.js"] == CODE_A.encode()


async def test_pull_avoids_file_names_that_differ_by_case_only(folder: Folder) -> None:
    """Beside a helper `Greet.js`, and a file that another entry uses, new code gets another name."""
    folder.files = {
        "manifest.yaml": b"version: 1\nfunctions:\n  other: {file: part.js}\n",
        "Greet.js": b"export const x = 1\n",
        "part.js": CODE_B.encode(),
    }
    folder.add("greet")
    folder.add("part")
    await folder.pull()
    assert folder.files["greet-2.js"] == folder.files["part-2.js"] == CODE_A.encode()
    assert not (await folder.desired()).unusable


async def test_pull_never_overwrites_the_source_of_a_build(folder: Folder) -> None:
    """The code on Kapso is esbuild's output: not even --force writes it over its source."""
    source = b"export default async function handler(): Promise<Response> { return new Response('a'); }\n"
    folder.files = {"manifest.yaml": b"version: 1\nfunctions:\n  a:\n", "a.ts": source}
    folder.add("a", CODE_A)
    plan = await folder.pull(everything=True, force=True)
    assert the(plan, "a").taken is Taken.SKIPPED
    assert folder.files["a.ts"] == source


async def test_pull_does_not_list_a_function_renamed_on_kapso_twice(folder: Folder) -> None:
    """We own it under its old slug: a person decides which slug is right."""
    folder.add("old")
    await folder.pull()
    await folder.bench.sync(await folder.desired())
    await folder.edit("old", slug="new")
    plan = await folder.pull()
    assert (the(plan, "new").taken, plan.incomplete, plan.changes) == (Taken.LEFT, True, ())


async def test_pull_overrides_manifest_defaults_only_where_kapso_differs(folder: Folder) -> None:
    """An equal value is not repeated in the entry."""
    defaults = "defaults: {description: All, public_endpoint: true, runtime_config: {a: 1}}\n"
    folder.files = {"manifest.yaml": f"version: 1\n{defaults}functions: {{}}\n".encode()}
    folder.add("a", description="All", public_endpoint=True, runtime_config={"a": 1})
    folder.add("b")
    await folder.pull()
    entries = read_layout(folder.snapshot().files).entries
    assert entries["a"] == {"file": "a.js"}
    assert entries["b"] == {"file": "b.js", "description": "", "public_endpoint": False, "runtime_config": {}}
    assert (await folder.bench.plan(await folder.desired())).summary["adopt"] == 2


async def test_pull_writes_secret_names_and_no_values(folder: Folder) -> None:
    """Each name is written with ``keep: true``; a name that a manifest cannot hold is reported."""
    folder.add("a", secrets={"STRIPE_KEY": "sk_live_0", "KAPSO_API_KEY": "k", "_ODD": "o"})
    plan = await folder.pull()
    assert (
        "      STRIPE_KEY: {keep: true}  # its value is on Kapso alone: fill in {env: NAME} to set it from git\n"
        in folder.text()
    )
    assert "      KAPSO_API_KEY: {keep: true}" in folder.text()
    assert the(plan, "a").remarks == ("its secret `_ODD` is left out: a manifest takes no such name",)
    assert "sk_live_0" not in "".join(map(str, folder.files.values()))


async def test_pull_repeats_default_secrets_beside_new_ones(folder: Folder) -> None:
    """An entry's secrets replace those of the defaults, so all of them are written."""
    folder.files = {"manifest.yaml": b"version: 1\ndefaults:\n  secrets: {A: {env: OTHER}}\nfunctions: {}\n"}
    folder.add("a", secrets={"A": "1", "B": "2"})
    folder.add("b", secrets={"A": "1"})
    await folder.pull()
    entries = read_layout(folder.snapshot().files).entries
    assert entries["a"]["secrets"] == {"A": {"env": "OTHER"}, "B": {"keep": True}}
    assert entries["b"] == {"file": "b.js"}


# Folders of the Kapso CLI

CLI = {
    "greet/function.yaml": b"""\
description: Greets people, one by one (v2).
entrypoint: index.js
function_type: cloudflare_worker
invoke_response_mode: wrapped
name: Greet
public_endpoint: true
runtime_config:
  hosts:
    - a.example
    - "yes"
  limits:
    cpu: 50
    memory: 128
  timeout: 30
slug: greet
""",
    "greet/index.js": b"// \xc3\xa9\r\n" + CODE_A.encode(),
    "part/function.yaml": b"""\
entrypoint: index.js
function_type: cloudflare_worker
invoke_response_mode: passthrough
name: part
public_endpoint: false
runtime_config: {}
slug: part
""",
    "part/index.js": CODE_B.encode(),
}


async def test_a_kapso_cli_repository_round_trips(folder: Folder) -> None:
    """Synced to an empty project, wiped, pulled as folders: identical files."""
    folder.files = dict(CLI)
    await folder.bench.sync(await folder.desired())
    folder.files = {}
    plan = await folder.pull(layout=FolderLayout.KAPSO)
    assert folder.files == CLI
    assert not plan.incomplete


async def test_pull_reads_folder_and_file_names_from_the_cli_map(folder: Folder) -> None:
    """Where remote-map.json knows code of this sha256, its folder and entrypoint names are used."""
    import hashlib
    import json

    moved = {path.replace("greet/", "Greeting/").replace("index.js", "main.js"): content for path, content in CLI.items()}
    moved["Greeting/function.yaml"] = moved["Greeting/function.yaml"].replace(b"index.js", b"main.js")
    moved["part/function.yaml"] = moved["part/function.yaml"].replace(b"index.js", b"main.js")
    folder.files = dict(moved)
    await folder.bench.sync(await folder.desired())
    records = {
        slug: {"id": "x", "files": {f"functions/{path}": hashlib.sha256(moved[path]).hexdigest()}}
        for slug, path in (("greet", "Greeting/main.js"), ("part", "part/main.js"))
    }
    folder.files, folder.remote_map = {}, json.dumps({"functions": records}).encode()
    await folder.pull(layout=FolderLayout.KAPSO)
    assert folder.files == moved


async def test_pull_updates_a_cli_folder_in_place(folder: Folder) -> None:
    """Its own keys and comments stay, only differences change, and no manifest is created."""
    own = CLI["part/function.yaml"].replace(
        b"runtime_config: {}", b"runtime: node   # ignored by Kapso\nruntime_config: {}  # none"
    )
    folder.files = {**CLI, "part/function.yaml": own}
    await folder.bench.sync(await folder.desired())
    await folder.edit("part", name="Part", runtime_config={"timeout": 5}, code=CODE_A, description="New")
    await folder.pull(everything=True, layout=FolderLayout.MANIFEST)
    expected = own.replace(b"name: part", b"name: Part").replace(b"{}  # none", b"{timeout: 5}  # none") + b"description: New\n"
    assert folder.files == {**CLI, "part/function.yaml": expected, "part/index.js": CODE_A.encode()}
    assert (await folder.bench.plan(await folder.desired())).in_sync


async def test_pull_writes_drafts_and_secrets_of_cli_folders_into_a_manifest(folder: Folder) -> None:
    """A function.yaml cannot hold them."""
    folder.add("a", deployed=False)
    folder.add("b", secrets={"KEY": "x"})
    await folder.pull(layout=FolderLayout.KAPSO)
    entries = read_layout(folder.snapshot().files).entries
    assert entries == {"a": {"deploy": False}, "b": {"secrets": {"KEY": {"keep": True}}}}
    steps = (await folder.bench.plan(await folder.desired())).steps
    assert [(step.action, step.deploys) for step in steps] == [("adopt", False), ("adopt", False)]


def test_writing_the_example_manifest_changes_nothing() -> None:
    """The tests above compare with it byte by byte."""
    assert edited(MANIFEST, []) == MANIFEST
    assert code_hash(CODE_A) != code_hash(CODE_B)
