"""Every way in which owner, state folder or project may change, alone and in random order.

Nothing blocks for good: what a sync refuses, it names the way for. Nothing is ever written into another project than the one
that the state folder knows, and no change makes a second function.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.program import Ran, answering, git, kapso_sync, write_functions
from tests.served import QUICK, Served, served

REMOTE = "https://github.com/acme/flows.git"
SPELLINGS = (REMOTE, "git@github.com:acme/flows.git", "ssh://git@GitHub.com:22/acme/flows", "https://github.com/Acme/flows/")
RENAMED = "https://github.com/acme/functions.git"


@dataclass(slots=True)
class Front:
    """One base URL in front of two projects, as Kapso's is: the key says which project it opens."""

    address: str
    one: Served
    other: Served
    keys: dict[str, Served] = field(default_factory=dict)

    @property
    def functions(self) -> dict[str, str]:
        """The ids by slug in the first project."""
        return {function.slug: function.id for function in self.one.world.functions.values()}

    def environment(self, state: Path, key: str = "key-1") -> dict[str, str]:
        return {**self.one.environment(state), "KAPSO_API_BASE_URL": f"{self.address}/api/v1", "KAPSO_API_KEY": key}

    def reset(self) -> None:
        for project in (self.one, self.other):
            project.control("POST", "/reset")
            project.forget_requests()


@contextlib.contextmanager
def fronted() -> Iterator[Front]:
    """Serve two projects behind one address until the block ends."""
    quick = replace(QUICK, api_key="inside")
    with served(quick) as one, served(quick) as other, httpx.Client(trust_env=False, timeout=10) as client:
        keys = {"key-1": one, "key-2": one, "key-of-other": other}

        class Forwarder(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                project = keys[self.headers["X-API-Key"]]
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {"X-API-Key": "inside", "Content-Type": "application/json"}
                answer = client.request(self.command, project.emulator.url + self.path, content=body, headers=headers)
                self.send_response(answer.status_code)
                for name in ("Content-Type", "X-RateLimit-Limit", "X-RateLimit-Remaining"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = forward  # noqa: N815 - http.server's names

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Forwarder)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Front(f"http://127.0.0.1:{server.server_port}", one, other, keys)
        finally:
            server.shutdown()
            thread.join(20)
            server.server_close()


@pytest.fixture(scope="module")
def shared_front() -> Iterator[Front]:
    with fronted() as front:
        yield front


@pytest.fixture
def front(shared_front: Front) -> Front:
    shared_front.reset()
    return shared_front


@dataclass(slots=True)
class Checkout:
    """A folder of two functions that somebody syncs, and everything about it that may change."""

    front: Front
    home: Path
    folder: str = "flows"
    path: str = "functions"
    key: str = "key-1"
    text: str = "one"
    known: set[tuple[str, str]] = field(default_factory=set)

    @property
    def root(self) -> Path:
        return self.home / self.folder

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def remembered(self) -> bool:
        """Whether there is a state folder for this checkout."""
        return (self.folder, self.path) in self.known

    def begin(self) -> None:
        self.write()
        git(self.root, "init", "--quiet", "--initial-branch=main")

    def write(self) -> None:
        write_functions(self.root / self.path, {"greet": answering(self.text), "part": answering("bye")})

    def set_remote(self, url: str | None) -> None:
        if git(self.root, "remote").strip():
            git(self.root, "remote", "remove", "origin")
        if url is not None:
            git(self.root, "remote", "add", "origin", url)

    def sync(self, *flags: str) -> Ran:
        ran = kapso_sync(
            "sync", str(self.root), "--path", self.path, *flags, environment=self.front.environment(self.state, self.key)
        )
        if ran.code == 0:
            self.known.add((self.folder, self.path))
        return ran

    def sync_as_advised(self) -> None:
        """Sync; where that is refused, do what it says, once."""
        ran = self.sync()
        if ran.code != 0:
            owners = set(re.findall(r"--take-from ([^\s`]+)", ran.out + ran.err))
            assert owners, ran.out + ran.err
            ran = self.sync(*(word for owner in sorted(owners) for word in ("--take-from", owner)))
        assert ran.code == 0, ran.out + ran.err
        self.check()

    def check(self) -> None:
        """Git's code runs, in one function for each slug, and nothing else does."""
        live = self.front.one.world.live_code()
        assert live == {"greet": answering(self.text), "part": answering("bye")}
        assert not self.front.other.world.functions


@pytest.fixture
def checkout(front: Front, tmp_path: Path) -> Checkout:
    """A work tree that was synced once, with its remote."""
    made = Checkout(front, tmp_path)
    made.begin()
    made.set_remote(REMOTE)
    assert made.sync().code == 0
    return made


def unchanged(checkout: Checkout) -> None:
    """A plain sync is enough, and writes nothing."""
    checkout.front.one.forget_requests()
    assert checkout.sync().code == 0
    assert {call.split()[0] for call in checkout.front.one.calls()} == {"GET"}
    checkout.check()


@pytest.mark.parametrize("spelling", SPELLINGS[1:])
@pytest.mark.parametrize("remembered", [True, False])
def test_another_spelling_of_the_remote_changes_nothing(checkout: Checkout, spelling: str, remembered: bool) -> None:
    """With the state folder, and without it: the owner is the same."""
    checkout.set_remote(spelling)
    if not remembered:
        shutil.rmtree(checkout.state)
    unchanged(checkout)


def test_a_renamed_remote_keeps_the_functions_of_the_state_folder(checkout: Checkout) -> None:
    """The functions of the former owner are ours; they get the new mark with their next write."""
    ids = checkout.front.functions
    checkout.set_remote(RENAMED)
    unchanged(checkout)
    checkout.text = "two"
    checkout.write()
    assert checkout.sync().code == 0
    assert checkout.front.functions == ids
    descriptions = {f.slug: str(f.description) for f in checkout.front.one.world.functions.values()}
    assert "github.com/acme/functions//" in descriptions["greet"]
    assert "github.com/acme/flows//" in descriptions["part"]


def test_a_renamed_remote_without_state_is_a_conflict_that_names_the_way_out(checkout: Checkout) -> None:
    """No function changes before a person says so; then all of them are taken over, and stay the same functions."""
    ids, before = checkout.front.functions, checkout.front.one.world.live_code()
    checkout.set_remote(RENAMED)
    shutil.rmtree(checkout.state)
    checkout.text = "two"
    checkout.write()
    assert checkout.sync().code == 1
    assert checkout.front.one.world.live_code() == before
    checkout.sync_as_advised()
    assert checkout.front.functions == ids


def test_a_moved_work_tree_has_its_functions_by_their_marks(checkout: Checkout) -> None:
    """Its state folder is another one, and its remote is the same."""
    checkout.root.rename(checkout.home / "moved")
    checkout.folder = "moved"
    unchanged(checkout)


def test_a_moved_folder_without_a_remote_takes_its_functions_with_it_when_it_is_told(front: Front, tmp_path: Path) -> None:
    """The first sync warned of it: the owner is the folder's path."""
    checkout = Checkout(front, tmp_path)
    checkout.write()
    assert "temporary-owner" in checkout.sync("--json").out
    checkout.root.rename(tmp_path / "moved")
    checkout.folder = "moved"
    refused = checkout.sync()
    assert (refused.code, "give both the same KAPSO_SYNC_OWNER" in refused.out) == (1, True), refused.out
    checkout.sync_as_advised()


@pytest.mark.parametrize("change", ["--path", "--env"])
def test_another_path_or_environment_is_another_owner_and_the_conflict_names_it(checkout: Checkout, change: str) -> None:
    """Two sets of functions with the same slugs: the second touches nothing of the first."""
    before = checkout.front.one.world.live_code()
    if change == "--path":
        checkout.path = "fns"
        checkout.text = "two"
        checkout.write()
        ran = checkout.sync()
    else:
        ran = checkout.sync("--env", "staging")
    assert (ran.code, "it is owned by github.com/acme/flows//functions" in ran.out) == (1, True), ran.out
    assert checkout.front.one.world.live_code() == before


def test_a_rotated_key_changes_nothing(checkout: Checkout) -> None:
    """The project is the same, and so is what the state folder knows."""
    checkout.key = "key-2"
    unchanged(checkout)


def test_a_key_of_another_project_is_refused_before_any_write(checkout: Checkout) -> None:
    """With exit code 78, both projects named where both are known; an empty project is as foreign."""
    checkout.key = "key-of-other"
    empty = checkout.sync()
    assert (empty.code, "opens an empty project" in empty.err) == (78, True), empty.err
    function = {"slug": "theirs", "name": "theirs", "code": answering("theirs")}
    checkout.front.other.control("POST", "/functions", {"function": function, "deployed": True})
    ran = checkout.sync()
    one, other = checkout.front.one.world.project_id, checkout.front.other.world.project_id
    assert (ran.code, one in ran.err, other in ran.err) == (78, True, True), ran.err
    assert checkout.front.other.world.live_code() == {"theirs": answering("theirs")}
    checkout.key = "key-1"
    assert checkout.sync().code == 0


def test_an_emptied_project_is_filled_again_only_when_it_is_asked_for(checkout: Checkout) -> None:
    """An emulator that was restarted, or a project whose functions were all deleted."""
    checkout.front.one.control("POST", "/reset")
    refused = checkout.sync()
    assert (refused.code, checkout.front.functions) == (78, {}), refused.err
    assert "--allow-recreate" in refused.err
    assert checkout.sync("--allow-recreate").code == 0
    checkout.check()


def test_the_state_of_another_machine_makes_no_second_function_and_no_conflict(checkout: Checkout, tmp_path: Path) -> None:
    """Another clone of the same remote has state of its own; both take turns."""
    colleague = Checkout(checkout.front, tmp_path / "colleague")
    colleague.begin()
    colleague.set_remote(SPELLINGS[1])
    unchanged(colleague)
    ids = checkout.front.functions
    for author, text in ((colleague, "two"), (checkout, "three"), (colleague, "four")):
        author.text = text
        author.write()
        assert author.sync().code == 0
    assert checkout.front.functions == ids
    colleague.check()


@dataclass(slots=True)
class Branches:
    """A bare repository with the branches main and develop, of the same functions, and a reader of it."""

    front: Front
    home: Path

    def begin(self) -> None:
        tree = self.home / "tree"
        write_functions(tree / "functions", {"greet": answering("one"), "part": answering("bye")})
        git(tree, "init", "--quiet", "--initial-branch=main")
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "--message", "One")
        git(tree, "branch", "develop")
        git(self.home, "clone", "--quiet", "--bare", str(tree), "upstream.git")

    @property
    def owner(self) -> str:
        """The owner on the default branch."""
        return f"file{self.home}/upstream//functions"

    def set_default(self, branch: str) -> None:
        git(self.home / "upstream.git", "symbolic-ref", "HEAD", f"refs/heads/{branch}")

    def run(self, command: str, branch: str, *flags: str, state: str = "state") -> Ran:
        environment = self.front.environment(self.home / state)
        return kapso_sync(command, (self.home / "upstream.git").as_uri(), "--branch", branch, *flags, environment=environment)

    def owner_of(self, branch: str, state: str = "state") -> object:
        return self.run("plan", branch, "--json", state=state).document["owner"]


@pytest.fixture
def branches(front: Front, tmp_path: Path) -> Branches:
    made = Branches(front, tmp_path)
    made.begin()
    return made


def nothing_is_written(branches: Branches, branch: str, state: str = "state") -> None:
    branches.front.one.forget_requests()
    ran = branches.run("sync", branch, state=state)
    assert ran.code == 0, ran.out + ran.err
    assert {call.split()[0] for call in branches.front.one.calls()} == {"GET"}


def test_a_default_branch_that_moves_away_changes_no_owner(branches: Branches) -> None:
    """Whoever may set it must not be able to change whose the functions are; it may move there and back."""
    assert branches.run("sync", "main").code == 0
    for default in ("develop", "main", "develop"):
        branches.set_default(default)
        assert branches.owner_of("main") == branches.owner
        nothing_is_written(branches, "main")


@pytest.mark.parametrize("remembered", [True, False])
def test_a_branch_that_becomes_the_default_keeps_its_functions(branches: Branches, remembered: bool) -> None:
    """With the state folder the owner stays; without it the marks of the branch are known to be ours."""
    branches.set_default("develop")
    assert branches.run("sync", "main").code == 0
    assert branches.owner_of("main") == f"{branches.owner}#main"
    branches.set_default("main")
    state = "state" if remembered else "another state"
    assert branches.owner_of("main", state) == (f"{branches.owner}#main" if remembered else branches.owner)
    nothing_is_written(branches, "main", state)
    nothing_is_written(branches, "main", state)


def test_a_state_folder_may_be_a_relative_path(branches: Branches, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is below the current folder, for git as well, which runs in another."""
    monkeypatch.chdir(branches.home)
    for command in ("plan", "sync"):
        ran = branches.run(command, "main", "--state-dir", "here")
        assert ran.code == 0, ran.out + ran.err
    assert list((branches.home / "here").glob("*/git"))


def test_two_branches_never_share_an_owner(branches: Branches) -> None:
    """Nor where one of them has no state: its functions may be those of the other. The error says what to do in each case."""
    assert branches.run("sync", "main").code == 0
    before = branches.front.one.world.live_code()
    refused = branches.run("sync", "develop", state="another state")
    assert (refused.code, branches.front.one.world.live_code()) == (1, before)
    assert "did you mean to run without `--branch`" in refused.out
    taken = branches.run("sync", "develop", "--take-from", branches.owner, state="another state")
    assert taken.code == 0, taken.out + taken.err
    again = branches.run("sync", "main", state="a third state")
    assert (again.code, "did you mean its `--branch`" in again.out) == (1, True), again.out


@pytest.mark.parametrize("inside", ["", "functions"])
def test_a_branch_of_a_work_tree_has_the_owner_of_its_remote(front: Front, tmp_path: Path, inside: str) -> None:
    """What is checked out there is no default branch, and the folder's path is no owner."""
    checkout = Checkout(front, tmp_path)
    checkout.begin()
    checkout.set_remote(REMOTE)
    git(checkout.root, "add", "--all")
    git(checkout.root, "commit", "--quiet", "--message", "One")
    git(checkout.root, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    git(checkout.root, "checkout", "--quiet", "-b", "feature")
    environment = front.environment(checkout.state)

    def owner(*flags: str) -> object:
        return kapso_sync("plan", str(checkout.root / inside), *flags, "--json", environment=environment).document["owner"]

    assert owner() == owner("--branch", "main") == "github.com/acme/flows//functions"
    assert owner("--branch", "feature") == "github.com/acme/flows//functions#feature"


class Changes(RuleBasedStateMachine):
    """One checkout and one project, whose owner, state folder and key change in any order, between syncs and without."""

    front: Front
    home: Path
    runs = 0

    @initialize(remote=st.none() | st.sampled_from(SPELLINGS))
    def begin(self, remote: str | None) -> None:
        self.front.reset()
        Changes.runs += 1
        self.checkout = Checkout(self.front, self.home / f"run-{Changes.runs}")
        self.checkout.begin()
        self.checkout.set_remote(remote)
        self.ids: dict[str, str] = {}

    @rule(remote=st.none() | st.sampled_from((*SPELLINGS, RENAMED)))
    def change_the_remote(self, remote: str | None) -> None:
        self.checkout.set_remote(remote)

    @rule(text=st.sampled_from(["one", "two", "three"]))
    def edit(self, text: str) -> None:
        self.checkout.text = text
        self.checkout.write()

    @rule(name=st.sampled_from(["flows", "moved"]))
    def move_the_folder(self, name: str) -> None:
        self.checkout.root.rename(self.checkout.home / name)
        self.checkout.folder = name

    @rule(path=st.sampled_from(["functions", "fns"]))
    def move_inside_the_repository(self, path: str) -> None:
        (self.checkout.root / self.checkout.path).rename(self.checkout.root / path)
        self.checkout.path = path

    @rule()
    def lose_the_state(self) -> None:
        shutil.rmtree(self.checkout.state, ignore_errors=True)
        self.checkout.known.clear()

    @rule(key=st.sampled_from(["key-1", "key-2"]))
    def rotate_the_key(self, key: str) -> None:
        self.checkout.key = key

    @precondition(lambda self: self.checkout.remembered)
    @rule()
    def use_the_key_of_another_project(self) -> None:
        key, self.checkout.key = self.checkout.key, "key-of-other"
        ran = self.checkout.sync()
        self.checkout.key = key
        assert ran.code == 78, ran.out + ran.err
        assert not self.front.other.world.functions

    @precondition(lambda self: self.checkout.remembered)
    @rule()
    def empty_the_project(self) -> None:
        self.front.one.control("POST", "/reset")
        refused = self.checkout.sync()
        assert (refused.code, self.front.functions) == (78, {}), refused.out + refused.err
        assert self.checkout.sync("--allow-recreate").code == 0
        self.checkout.check()
        self.ids = self.front.functions

    @rule()
    def sync(self) -> None:
        self.checkout.sync_as_advised()
        assert self.ids in ({}, self.front.functions), "a function came back under another id"
        self.ids = self.front.functions

    def teardown(self) -> None:
        if hasattr(self, "checkout"):
            self.sync()
            self.checkout.front.one.forget_requests()
            assert self.checkout.sync().code == 0
            assert {call.split()[0] for call in self.front.one.calls()} == {"GET"}, "a second sync still writes"


@pytest.mark.history
def test_any_order_of_changes_ends_in_sync_in_one_project_with_the_same_functions(front: Front, tmp_path: Path) -> None:
    """Never blocked for good, never written into the wrong project, never a second function."""
    machine = type("Chosen", (Changes,), {"front": front, "home": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)),
    )
