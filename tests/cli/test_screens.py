"""What every command shows in each situation, on a terminal of 80 columns without colours.

``UPDATE_SCREENS=1`` writes the files in ``screens/`` instead of comparing with them. What no two runs share is replaced by text
of the same length, so that lines break at the same places.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from kapso_sync.cli.app import app
from kapso_sync.store.database import StateStore
from kapso_sync.store.lock import HOLDER_NAME, held
from tests.builders import DAWN
from tests.program import Ran, answering, git, kapso_sync, write_functions
from tests.served import Served

SCREENS = Path(__file__).parent / "screens"
UPDATE = "UPDATE_SCREENS" in os.environ

NINE = (
    *("confirm-payment", "fetch-order", "greet", "quote-order", "receive-webhook"),
    *("remind-batch", "route-message", "shipping-cost", "transform-contact"),
)
BROKEN = "async function handler(request, env) {\n  return new Response('oops'\n}\n"

SAME_LENGTH = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "74bee355-6c14-4061-b456-c0ffee42c0ff"),
    (r"127\.0\.0\.1:\d{5}", "127.0.0.1:50000"),
    (r"sha256:[0-9a-f]{64}", "sha256:" + "c0ffee42" * 8),
    (r"folder:[0-9a-f]{12}", "folder:c0ffee42c0ff"),
    (r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{16}\b", "c0ffee42c0ffee42"),
    (r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{12}\b", "c0ffee42c0ff"),
    (r"20[2-9]\d-\d\d-\d\d([T ])\d\d:\d\d:\d\d", r"2026-01-01\g<1>12:00:00"),
    (r"20[2-9]\d-\d\d-\d\d \d\d:\d\d UTC", "2026-01-01 12:00 UTC"),
    (r"\b\d\.\d s", "0.1 s"),
    (r"for \d s", "for 0 s"),
    (r"\b\d API calls?", "N API calls"),
    (r"\b\d\d API calls", "NN API calls"),
)


@dataclass(frozen=True)
class Stage:
    """A terminal in a folder of somebody who has functions in git, and a project on Kapso."""

    kapso: Served
    home: Path
    environment: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.home / "flows" / "functions"

    def run(self, line: str, environment: Mapping[str, str] | None = None) -> Ran:
        """Type a line, whose first word is the program's own name."""
        return kapso_sync(
            *shlex.split(line)[1:],
            environment={**self.environment, "TERM": "dumb", **(environment or {})},
            terminal=True,
            width=80,
        )

    def sync(self) -> None:
        """Make everything as git says, out of sight."""
        self.run("kapso-sync sync flows")

    def functions(self, functions: Mapping[str, str], extra: str = "") -> None:
        """Commit these functions."""
        write_functions(self.folder, functions, extra)
        git(self.home / "flows", "add", "--all")
        git(self.home / "flows", "commit", "--quiet", "--allow-empty", "--message", "Say it better")

    def blurred(self, text: str) -> str:
        """Take out what no two runs share."""
        text = text.replace(str(self.home), "/home/ada/orders")
        if text.startswith("$ kapso-sync doctor"):
            text = re.sub(r"^[✓!✗] ([\w ]+): .*(?:\n +.*)*", r"✓ \1: …", text, flags=re.MULTILINE)
        if text.startswith("$ kapso-sync version"):
            text = re.sub(r"^(kapso-sync| +[\w.-]+ +).*", r"\1…", text, flags=re.MULTILINE)
        for pattern, constant in SAME_LENGTH:
            text = re.sub(pattern, constant, text)
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.fixture
def stage(kapso: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A repository with a remote, in a folder whose path is always as long."""
    home = Path(f"/tmp/ks-{secrets.token_hex(4)}")
    home.mkdir(mode=0o700)
    monkeypatch.chdir(home)
    (home / "flows").mkdir()
    git(home / "flows", "init", "--quiet", "--initial-branch=main")
    git(home / "flows", "remote", "add", "origin", "https://github.com/acme/flows.git")
    environment = {**kapso.environment(home / "state"), "KAPSO_SYNC_REQUEST_TIMEOUT": "2s"}
    del environment["KAPSO_SYNC_LOG_FORMAT"]
    yield Stage(kapso, home, environment)
    shutil.rmtree(home)


def first_sync(stage: Stage) -> None:
    """Nine functions in git, and an empty project."""
    stage.functions({slug: answering(slug) for slug in NINE})


def in_sync(stage: Stage) -> None:
    """Three functions that run what git says."""
    stage.functions({slug: answering(slug) for slug in NINE[:3]})
    stage.sync()


def one_of_nine_broken(stage: Stage) -> None:
    """Nine functions were changed, one of them into nonsense."""
    stage.functions({slug: answering(slug) for slug in NINE})
    stage.sync()
    stage.functions({slug: BROKEN if slug == "receive-webhook" else answering(f"{slug}, better") for slug in NINE})


def one_of_nine_refused(stage: Stage) -> None:
    """Kapso refuses one of nine new functions."""
    stage.functions({slug: answering(slug) for slug in NINE})
    body = {"error": "Name is too long (maximum is 60 characters)"}
    stage.kapso.faults(
        {"what": "status", "status": 422, "method": "POST", "route": "/functions", "slug": "greet", "body": body}
    )


def deployment_fails(stage: Stage) -> None:
    """New code of one function does not start, so the previous version is restored."""
    in_sync(stage)
    stage.kapso.faults({"what": "deploy_fails", "slug": "greet", "times": 2, "message": "Uncaught Error: no such binding"})
    stage.functions({slug: answering(f"{slug}, better" if slug == "greet" else slug) for slug in NINE[:3]})


def git_and_drift(stage: Stage) -> None:
    """One function changed in git, one on Kapso, one on both sides."""
    in_sync(stage)
    stage.functions({slug: answering(f"{slug}, better" if slug != "greet" else slug) for slug in NINE[:3]})
    for slug in ("greet", "fetch-order"):
        stage.kapso.edit(slug, code=answering("by hand"), deploy=True)


def drift_reported(stage: Stage) -> None:
    """The same three, and drift is only reported."""
    git_and_drift(stage)
    stage.environment["KAPSO_SYNC_DRIFT"] = "report"


def many_unowned(stage: Stage) -> None:
    """Thirty functions are on Kapso already, with other code, and are unowned."""
    slugs = [f"flow-{number:02}" for number in range(1, 31)]
    for slug in slugs:
        function = {"name": slug, "slug": slug, "code": answering("from the dashboard")}
        stage.kapso.control("POST", "/functions", {"function": function})
    stage.functions({slug: answering(slug) for slug in slugs})


def other_owner(stage: Stage) -> None:
    """Two functions belong to another repository."""
    stage.functions({slug: answering(slug) for slug in NINE[:2]})
    stage.run(f"kapso-sync sync flows --owner github.com/acme/website --state-dir {stage.home}/other")


def broken_manifest(stage: Stage) -> None:
    """Two unknown keys, and a file that is not there."""
    in_sync(stage)
    entries = "".join(f"  {slug}:\n    file: {slug}.js\n    protectd: true\n" for slug in NINE[:2])
    (stage.folder / "manifest.yaml").write_text(f"version: 1\nfunctions:\n{entries}  lost:\n    file: lost.js\n")


def many_mistakes(stage: Stage) -> None:
    """The same mistake in each of nine files."""
    stage.functions(dict.fromkeys(NINE, BROKEN))


def left_git(stage: Stage) -> None:
    """Two of four functions left git, and stay on Kapso."""
    stage.functions({slug: answering(slug) for slug in NINE[:4]})
    stage.sync()
    stage.functions({slug: answering(slug) for slug in NINE[:2]})


def deletions_wait(stage: Stage) -> None:
    """One of four functions left git, and is deleted after a day."""
    stage.functions({slug: answering(slug) for slug in NINE[:4]})
    stage.sync()
    stage.functions({slug: answering(slug) for slug in NINE[:3]})
    stage.environment.update(KAPSO_SYNC_PRUNE="true", KAPSO_SYNC_PRUNE_GRACE="24h")


def deletions_too_many(stage: Stage) -> None:
    """Three of four functions left git at once."""
    deletions_wait(stage)
    stage.functions({"greet": answering("greet")})
    stage.environment["KAPSO_SYNC_PRUNE_GRACE"] = "0"


def no_key(stage: Stage) -> None:
    """A new computer: there is no key."""
    stage.functions({slug: answering(slug) for slug in NINE[:3]})
    del stage.environment["KAPSO_API_KEY"]


def wrong_key(stage: Stage) -> None:
    """The key was revoked."""
    in_sync(stage)
    stage.environment["KAPSO_API_KEY"] = "a-key-that-was-revoked"


def kapso_down(stage: Stage) -> None:
    """Kapso answers nothing but 503."""
    in_sync(stage)
    stage.kapso.faults({"what": "status", "status": 503})


def state_held(stage: Stage) -> None:
    """Another process holds the state folder, and runs a pass."""
    in_sync(stage)
    (state,) = [path for path in (stage.home / "state").iterdir() if path.is_dir()]
    with StateStore(state, lambda: DAWN) as store:
        store.remember_pass("sync")


def empty_project(stage: Stage) -> None:
    """There is neither a manifest nor a function."""
    stage.folder.mkdir()


def renamed(stage: Stage) -> None:
    """A slug was changed, with `moved_from`."""
    in_sync(stage)
    functions = {slug: answering(slug) for slug in NINE[:2]}
    write_functions(stage.folder, {**functions, "greet-customer": answering("greet")})
    with (stage.folder / "manifest.yaml").open("a") as manifest:
        manifest.write("    moved_from: greet\n")


def renamed_and_forgotten(stage: Stage) -> None:
    """A slug was changed, without `moved_from`."""
    in_sync(stage)
    functions = {slug: answering(slug) for slug in NINE[:2]}
    stage.functions({**functions, "greet-customer": answering("greet")})


def at_home(stage: Stage) -> None:
    """Somebody looks around."""


SITUATIONS: Mapping[Callable[[Stage], None], tuple[str, ...]] = {
    first_sync: ("validate flows", "plan flows", "status flows", "sync flows", "status flows after", "history greet flows"),
    in_sync: (
        *("plan flows", "sync flows", "status flows", "pull flows --diff", "history greet flows", "restore greet flows"),
        *(
            "invoke greet",
            "invoke gret",
            "doctor",
            "disown flows",
            "reconcile flows",
            "suspend flows --reason moving",
            "resume flows",
        ),
    ),
    one_of_nine_broken: ("plan flows", "sync flows", "status flows", "validate flows"),
    one_of_nine_refused: ("sync flows", "status flows", "plan flows"),
    deployment_fails: ("sync flows", "status flows", "sync flows again", "plan flows", "history greet flows"),
    git_and_drift: (
        *("plan flows", "plan flows --format markdown", "pull flows --diff --all", "sync flows", "status flows"),
        *("history greet flows", "restore greet flows --diff"),
    ),
    drift_reported: ("plan flows", "sync flows", "status flows"),
    many_unowned: ("plan flows --only flow-01 --only flow-02", "sync flows", "status flows", "pull flows --diff"),
    other_owner: ("plan flows", "sync flows", "pull flows --diff"),
    broken_manifest: ("validate flows", "plan flows", "sync flows", "status flows", "pull flows --diff"),
    many_mistakes: ("validate flows", "sync flows", "status flows"),
    left_git: ("plan flows", "sync flows", "status flows", "disown flows"),
    deletions_wait: ("plan flows", "sync flows", "status flows"),
    deletions_too_many: ("plan flows", "sync flows", "status flows"),
    no_key: (
        *("plan flows", "sync flows", "run flows", "validate flows", "status flows", "invoke greet", "pull flows --diff"),
        "doctor",
    ),
    wrong_key: ("plan flows", "sync flows", "status flows", "invoke greet"),
    kapso_down: ("sync flows", "status flows"),
    state_held: ("sync flows", "plan flows", "status flows"),
    empty_project: ("validate flows", "plan flows", "sync flows", "status flows", "pull flows --diff"),
    renamed: ("plan flows", "sync flows", "status flows"),
    renamed_and_forgotten: ("plan flows", "sync flows", "status flows"),
    at_home: (
        *("--help", "version", "help nonsense", "nonsense", "sync --prunne", "plan one two", "invoke", "history greet nowhere"),
        *("sync nowhere", "sync flows --only nonsense --env tow"),
        *(f"help {command}" for command in app.commands),
    ),
}
"""The lines that are typed in each situation, in order; ``again`` and ``after`` are no part of them."""


def name_of(situation: Callable[[Stage], None], line: str) -> str:
    return f"{situation.__name__.replace('_', '-')}.{re.sub(r'[^a-z0-9]+', '-', line.replace('flows', '')).strip('-')}.txt"


def screen(stage: Stage, line: str) -> str:
    """Type a line; the prompt, what the screen shows, and the exit code."""
    typed = re.sub(r" (again|after)$", "", line)
    ran = stage.run(f"kapso-sync {typed}")
    return stage.blurred(f"$ kapso-sync {typed}\n{ran.screen}[exit code {ran.code}]\n")


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_every_screen_is_as_it_was_read(stage: Stage, situation: Callable[[Stage], None]) -> None:
    """A screen changes only with a file that somebody reads."""
    situation(stage)
    shown = {}
    for line in SITUATIONS[situation]:
        if situation is state_held:
            (state,) = [path for path in (stage.home / "state").iterdir() if path.is_dir()]
            with held(state, DAWN):
                note = {"pid": 4711, "host": "build-7", "since": DAWN.isoformat()}
                (state / HOLDER_NAME).write_text(json.dumps(note), encoding="utf-8")
                shown[name_of(situation, line)] = screen(stage, line)
        else:
            shown[name_of(situation, line)] = screen(stage, line)
    assert len(shown) == len(SITUATIONS[situation])
    if UPDATE:
        for name, text in shown.items():
            (SCREENS / name).write_text(text, encoding="utf-8")
    assert shown == {name: (SCREENS / name).read_text(encoding="utf-8") for name in shown}


def test_no_line_of_help_is_longer_than_the_terminal_is_wide() -> None:
    """And the list of commands has one line for each."""
    for path in SCREENS.glob("at-home.help*.txt"):
        assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 80, path.name
    listed = (SCREENS / "at-home.help.txt").read_text(encoding="utf-8").partition("To begin:")[2]
    assert re.findall(r"^  ([a-z]+) +[A-Z].*[.]$", listed, flags=re.MULTILINE) == app.list_commands(click.Context(app))
    assert not re.search(r"^ {3}", listed, flags=re.MULTILINE)


def test_every_file_of_a_screen_is_shown_somewhere() -> None:
    """None is left behind when a situation goes."""
    names = {name_of(situation, line) for situation, lines in SITUATIONS.items() for line in lines}
    if UPDATE:
        for left in {path.name for path in SCREENS.iterdir()} - names:
            (SCREENS / left).unlink()
    assert {path.name for path in SCREENS.iterdir()} == names
