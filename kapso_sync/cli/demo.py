"""``kapso-sync demo``: the whole loop in under a minute, on an emulator and a throw-away git repository."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import kapso_sync
from kapso_sync.advice import Advice
from kapso_sync.cli.console import stdout_console
from kapso_sync.cli.render import print_plan, print_report
from kapso_sync.cli.runner import run_to_end
from kapso_sync.cli.workerd import find_workerd, start_locally
from kapso_sync.emulator.options import EmulatorOptions, random_token
from kapso_sync.emulator.server import Emulator, running_emulator
from kapso_sync.errors import ConfigError, ExitCode
from kapso_sync.model.report import Report, Result
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.session import Session
from kapso_sync.settings import load_settings
from kapso_sync.wiring.engine import open_session
from kapso_sync.wiring.log import make_event_bus

DEPLOY_DELAY = (0.4, 1.2)
"""Seconds that a deployment takes here; on Kapso it is 10 to 60."""

HOTFIX = "async function handler(request, env) {\n  return new Response('a hotfix that is not in git');\n}\n"
CHECK = """\
  shipping-cost:
    checks:
      - request: { country: CO, weightGrams: 500, orderCents: 4500 }
        expect: { json: { totalCents: 600 } }
"""
WRONG = "async function handler(request, env) {\n  return Response.json({ totalCents: 0 });\n}\n"
BROKEN = "async function handler(request, env) {\n  return new Response('oops'\n}\n"


def demo() -> int:
    """Run the demo; return 0 if everything converged."""
    if shutil.which("git") is None:
        raise ConfigError("the demo needs git", hint="install git and try again")

    async def work() -> int:
        with tempfile.TemporaryDirectory(prefix="kapso-sync-demo-") as folder:
            workerd = find_workerd()
            # A key of its own, as other users of this machine know the usual one.
            options = EmulatorOptions(
                deploy_delay=DEPLOY_DELAY, workerd=workerd.path if workerd else None, api_key=random_token()
            )
            async with running_emulator(options) as kapso:
                return await _Show(Path(folder), kapso).run(runs_code=workerd is not None)

    return run_to_end(work)


class _Show:
    """The demo, scene by scene."""

    def __init__(self, folder: Path, kapso: Emulator) -> None:
        self._repository = folder / "flows"
        self._state = folder / "state"
        self._kapso = kapso
        self._console = stdout_console()

    async def run(self, *, runs_code: bool) -> int:
        """Play all scenes; return 1 if one did not end as announced. Without a runtime, no check can fail."""
        self._say("Everything here is local and thrown away at the end: a Kapso emulator, and a git repository.")
        self._make_repository()
        good = [
            await self._first_sync(),
            await self._nothing_to_do(),
            await self._push(),
            await self._drift(),
            await self._broken(),
            not runs_code or await self._taken_back(),
        ]
        self._scene("That was the loop")
        self._say("Try it on your own functions:  kapso-sync plan ./functions   (writes nothing)")
        return int(ExitCode.OK if all(good) else ExitCode.FUNCTION_FAILED)

    async def _first_sync(self) -> bool:
        self._scene("1. A git repository with eight functions, and an empty Kapso project")
        self._command("git log --oneline", self._git("log", "--oneline"))
        self._command("kapso-sync sync flows/")
        report = await self._sync()
        blocked = len(report.results(Result.BLOCKED))
        if blocked:
            self._say(f"{blocked} functions must be built and stay blocked, since there is no esbuild; the others go on.")
        return report.failed == 0 and report.deployed == report.count("create") == len(report.outcomes) - blocked

    async def _nothing_to_do(self) -> bool:
        self._scene("2. Once more: in sync is one API call and no write")
        self._command("kapso-sync sync flows/")
        report = await self._sync()
        return report.deployed == 0 and report.api_calls == 1

    async def _push(self) -> bool:
        self._scene("3. A commit changes one function")
        slug, path = self._pick()
        path.write_text(f"// Reviewed today.\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
        self._commit(f"Note the review of {slug}")
        self._command("kapso-sync plan flows/")
        await self._plan()
        self._command("kapso-sync sync flows/")
        report = await self._sync()
        return report.count("update") == 1 and report.deployed == 1

    async def _drift(self) -> bool:
        self._scene("4. Somebody edits a function in the dashboard")
        slug, _ = self._pick()
        function = self._kapso.world.function(slug)
        self._kapso.world.update(function, {"code": HOTFIX})
        await self._kapso.parts.deployer.deploy(function)
        self._command("kapso-sync sync flows/   # drift is found, saved to backups/, and corrected")
        report = await self._sync()
        return report.drifted == 1 and report.deployed == 1

    async def _broken(self) -> bool:
        self._scene("5. A commit breaks one function and mends another: the broken one fails alone")
        slug, path = self._pick()
        other = self._plain()[1]
        path.write_text(BROKEN, encoding="utf-8")
        other.write_text(f"{other.read_text(encoding='utf-8')}\n// Mended.\n", encoding="utf-8")
        self._commit(f"Break {slug}, fix {other.stem}")
        self._command("kapso-sync sync flows/")
        report = await self._sync()
        self._say(f"`{slug}` keeps running its last good version; exit code {int(report.exit_code)} tells CI.")
        return report.failed == 1 and report.deployed == 1

    async def _taken_back(self) -> bool:
        self._scene("6. A commit deploys well and answers wrong: its check takes it back")
        self._git("checkout", "--quiet", "HEAD~1", "--", str(self._pick()[1]))
        manifest = self._functions() / "manifest.yaml"
        manifest.write_text(manifest.read_text("utf-8").replace("  shipping-cost:\n", CHECK), encoding="utf-8")
        (self._functions() / "shipping-cost.js").write_text(WRONG, encoding="utf-8")
        self._commit("Ship for nothing, and check what it costs")
        self._command("kapso-sync sync flows/")
        report = await self._sync()
        self._say("The old code runs again; the new one is in quarantine until git changes.")
        return report.failed == 1 and any(outcome.quarantine for outcome in report.outcomes)

    async def _sync(self) -> Report:
        async with self._session(writes=True) as session:
            report = await session.sync(PassRequest("demo"))
        print_report(self._console, report, _advise)
        return report

    async def _plan(self) -> None:
        async with self._session(writes=False) as session:
            print_plan(self._console, await session.plan(PassRequest("demo")), _advise)

    def _session(self, *, writes: bool) -> AbstractAsyncContextManager[Session]:
        settings = load_settings(
            {
                "source": self._repository.as_uri(),
                "state_dir": str(self._state),
                "api_base_url": self._kapso.base("/api/v1"),
                "api_key": self._kapso.key,
                "deploy_poll": "500ms",
                "check_delay": "200ms",
                "check_window": "500ms",
            },
            environment={},
        )
        bus = make_event_bus(settings, io.StringIO(), level="error")
        return open_session(settings, bus, writes=writes, start_locally=start_locally)

    def _make_repository(self) -> None:
        shutil.copytree(example_folder(), self._functions())
        self._git("init", "--quiet", "--initial-branch=main")
        self._commit("Eight functions to start from")

    def _functions(self) -> Path:
        return self._repository / "functions"

    def _pick(self) -> tuple[str, Path]:
        path = self._plain()[0]
        return path.stem, path

    def _plain(self) -> list[Path]:
        """Return the functions that are uploaded unchanged; a build drops comments, so a new comment is no change there."""
        return [file for file in sorted(self._functions().glob("*.js")) if "export default" not in file.read_text("utf-8")]

    def _commit(self, message: str) -> None:
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", message)
        self._command(f"git commit -m {message!r}")

    def _git(self, *arguments: str) -> str:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=self._repository,
            env=_git_environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return answer.stdout

    def _scene(self, title: str) -> None:
        self._console.blank()
        self._console.title(title)

    def _command(self, line: str, output: str = "") -> None:
        self._console.verbatim(f"$ {line}", "bold cyan")
        for each in output.splitlines():
            self._console.verbatim(each)

    def _say(self, text: str) -> None:
        self._console.line(text, style="italic")


def example_folder() -> Path:
    """Return where the example functions are: beside the package in a checkout, inside it when installed."""
    package = Path(kapso_sync.__file__).parent
    for folder in (package / "functions.example", package.parent / "functions.example"):
        if folder.is_dir():
            return folder
    raise ConfigError("the example functions are missing from this installation", hint="install kapso-sync again")


_advise = Advice(dict.fromkeys(("sync", "plan", "validate"), "flows/"))
"""Completes commands as the demo shows them."""


def _git_environment() -> Mapping[str, str]:
    """Keep the user's own git configuration out of the throw-away repository."""
    name, mail = "Demo", "demo@example.invalid"
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": tempfile.gettempdir(),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": mail,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": mail,
    }
