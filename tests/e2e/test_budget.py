"""With 256 MiB and half a processor a hostile input ends in a refusal, health answers meanwhile, the next push goes live."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.build.test_hostile_code import HOSTILE, MIB
from tests.e2e.budget import budget
from tests.e2e.quoting import JSON, Answer, Quoting, quoting
from tests.e2e.test_daemon import daemon, until
from tests.program import answering, git, write_functions
from tests.served import Served, served
from tests.sources.servers import GitServer, serving

pytestmark = pytest.mark.e2e

HEALTH_WITHIN = 2.0
"""The longest time, in s, that a health probe may wait."""

Attack = Callable[["Target"], str]
"""Does its worst, and returns an event of the log that ends it."""


@dataclass
class Target:
    """A repository that a daemon follows, and the API that it calls."""

    repository: Path
    api: Quoting
    url: str = ""
    manifest: str = "version: 1\nfunctions:\n  greet: {file: greet.js}\n"

    def push(self, files: Mapping[str, str | bytes], manifest: str | None = None) -> None:
        """Commit files beside the sound function, with entries of their own."""
        folder = self.repository / "functions"
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        if manifest is not None:
            (folder / "manifest.yaml").write_text(manifest, encoding="utf-8")
        git(self.repository, "add", "--all")
        git(self.repository, "commit", "--quiet", "--message", "Attack")

    def entry(self, file: str, **fields: object) -> str:
        """A manifest with one function more."""
        return self.manifest + f"  evil: {json.dumps({'file': file, **fields})}\n"

    def restore(self, text: str) -> None:
        """Push sound functions alone."""
        git(self.repository, "rm", "-r", "--quiet", "--cached", "functions")
        folder = self.repository / "functions"
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        write_functions(folder, {"greet": answering(text)})
        git(self.repository, "add", "--all")
        git(self.repository, "commit", "--quiet", "--message", "Restore")
        self.api.quote = None


def code(name: str) -> Attack:
    def attack(target: Target) -> str:
        file, text, _ = HOSTILE[name]
        target.push({f"evil{Path(file).suffix}": text}, target.entry(f"evil{Path(file).suffix}"))
        return "function.invalid"

    return attack


def manifest(text: str, said: str = "manifest.invalid") -> Attack:
    def attack(target: Target) -> str:
        target.push({}, text)
        return said

    return attack


def tree(levels: int, width: int) -> Attack:
    """Folders of equal folders: a few objects in git, and more files than there is memory."""

    def attack(target: Target) -> str:
        def made(command: str, text: str) -> str:
            line = ["git", "-C", str(target.repository), *command.split()]
            return subprocess.run(line, input=text.encode(), capture_output=True, check=True).stdout.decode().strip()

        object_id = made("mktree", f"100644 blob {made('hash-object -w --stdin', 'export const one = 1;')}\tcode.js\n")
        for _ in range(levels):
            object_id = made("mktree", "".join(f"040000 tree {object_id}\td{number}\n" for number in range(width)))
        root = made("mktree", f"040000 tree {object_id}\tfunctions\n")
        git(target.repository, "reset", "--quiet", "--soft", made(f"commit-tree -p HEAD -m Bomb {root}", ""))
        return "source.failed"

    return attack


def blob(size: int) -> Attack:
    def attack(target: Target) -> str:
        target.push({"evil.js": b"\0" * size}, target.entry("evil.js"))
        return "function.invalid"

    return attack


def answer(path: str, reply: Callable[[str], Answer], said: str, method: str = "GET") -> Attack:
    """Let the API answer badly from now on."""

    def attack(target: Target) -> str:
        target.api.method, target.api.path, target.api.quote = method, path, reply
        target.push({"greet.js": answering("while Kapso lies")})
        return said

    return attack


def body(text: str, status: int = 200) -> Callable[[str], Answer]:
    return lambda _: (status, JSON, text)


def hooks(text: str, count: int) -> Attack:
    """Send webhooks that nobody signed, and one more push."""

    def attack(target: Target) -> str:
        for _ in range(count):
            refused = httpx.post(f"{target.url}/hooks/git", content=text, timeout=10, trust_env=False)
            assert refused.status_code in (401, 413, 503), refused.text
        target.push({"evil.js": "("}, target.entry("evil.js"))
        return "function.invalid"

    return attack


DEEP = "[" * 200_000
ATTACKS: Mapping[str, Attack] = {
    **{f"code: {name}": code(name) for name in HOSTILE},
    "a tree of 10 billion files": tree(10, 10),
    "a tree of empty folders": tree(7, 20),
    "300 MiB of zeros": blob(300 * MIB),
    "14,000 checks": manifest(
        "version: 1\nfunctions:\n  greet:\n    file: greet.js\n    checks:\n" + "      - {expect: {status: 200}}\n" * 14_000
    ),
    "a manifest of aliases": manifest(
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
        + "functions: *a11\n"
    ),
    "a deep manifest": manifest("functions: " + DEEP),
    "a manifest of 8 MiB": manifest("functions:\n" + "  a: {file: greet.js}\n" * (8 * MIB // 22)),
    "100,000 entries": manifest("version: 1\nfunctions:\n" + "".join(f"  f{n}: {{file: f{n}.js}}\n" for n in range(100_000))),
    "a list of 100 MiB": answer(".*/functions", body('{"data": [' + "1," * (50 * MIB) + "1]}"), "reconcile.failed"),
    "a list of 46 MiB of code": answer(
        ".*/functions",
        body(json.dumps({"data": [{"id": f"f-{n}", "slug": f"f-{n}", "code": "x" * MIB} for n in range(46)]})),
        "plan.computed",
    ),
    "a list of empty records": answer(".*/functions", body('{"data": [' + "{}," * (2 * MIB) + "{}]}"), "reconcile.failed"),
    "a deep list": answer(".*/functions", body('{"data": ' + DEEP), "reconcile.failed"),
    "an error of 100 MiB": answer(".*/functions/.*", body("x" * (100 * MIB), 422), "function.failed", "PATCH"),
    "a page of webhooks": hooks("[" * MIB, 200),
}
SHORT = ("code: type assertions", "a tree of 10 billion files", "a list of 100 MiB")
"""What each run tries; the others are for `make thorough`."""


@dataclass
class Probe:
    """Asks for health again and again, as a kubelet does, and remembers the longest answer, in s."""

    url: str
    longest: float = 0.0
    failures: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.done.wait(0.05):
            before = time.monotonic()
            try:
                answered = httpx.get(f"{self.url}/healthz", timeout=20, trust_env=False)
                if answered.status_code != 200:
                    self.failures.append(answered.text)
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            self.longest = max(self.longest, time.monotonic() - before)


@pytest.fixture(scope="module")
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.thorough) for name in ATTACKS])
def test_a_hostile_input_is_refused_within_the_budget(kapso: Served, tmp_path: Path, name: str) -> None:
    """The daemon says why, stays healthy, applies the next push and ends in time."""
    kapso.control("POST", "/reset")
    repository = tmp_path / "served" / "repository"
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    write_functions(repository / "functions", {"greet": answering("one")})
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Begin")
    api = Quoting(kapso.emulator.url)
    target = Target(repository, api)
    with quoting(api), serving(GitServer(tmp_path / "served")) as server, budget() as limits:
        environment = {
            **kapso.environment(tmp_path / "state"),
            "KAPSO_API_BASE_URL": kapso.emulator.base("/api/v1").replace(kapso.emulator.url, api.url),
            "KAPSO_SYNC_OWNER": "acme/flows",
            "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
            "KAPSO_SYNC_WEBHOOK_SECRET": "webhook-secret-of-this-test",
            "KAPSO_SYNC_GIT_INTERVAL": "300ms",
            "KAPSO_SYNC_INTERVAL": "1s",
            "KAPSO_SYNC_REQUEST_TIMEOUT": "10s",
        }
        with daemon(f"{server.url}/repository/.git", environment, enter=limits.enter) as running:
            until(lambda: kapso.live_code() == {"greet": answering("one")}, 60, what=lambda: running.raw)
            target.url = running.url
            probe = Probe(running.url)
            asking = threading.Thread(target=probe.run)
            asking.start()
            try:
                running.event(ATTACKS[name](target), seconds=120)
                target.restore("well again")
                until(
                    lambda: kapso.live_code() == {"greet": answering("well again")} or running.process.poll() is not None,
                    90,
                    what=lambda: running.raw[-20:],
                )
            finally:
                probe.done.set()
                asking.join(30)
            assert running.process.poll() is None, running.raw[-20:]
            assert probe.failures == []
            assert probe.longest < HEALTH_WITHIN, limits.kind
            assert running.stop() == 0  # within 10 s
