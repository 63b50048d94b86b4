"""``logs``: the invocations of a function, for people and for programs, without a word that nobody should see."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from kapso_sync.store.lock import held
from tests.clock import VirtualClock
from tests.program import kapso_sync, started
from tests.served import Served

SECRET = "correct-horse-battery-staple"
IN_JSON, IN_ENV_FILE = "lazy-dog", "quick-fox"
TRACE = "TypeError: no\n    at handler (greet.js:2:10)"

Environment = dict[str, str]


@pytest.fixture
def synced(folder: Path, environment: Environment, tmp_path: Path) -> Environment:
    """Two functions that are live, ``greet`` and ``part``, and values that functions may have as secrets."""
    (tmp_path / "secrets" / "shop").mkdir(parents=True)
    (tmp_path / "secrets" / "shop" / "token").write_text(f'{{"inner": "{IN_JSON}"}}\n')
    (tmp_path / "secrets" / "all.env").write_text(f"TOKEN={IN_ENV_FILE}\n")
    environment = {**environment, "SHOP_TOKEN": SECRET, "KAPSO_SYNC_SECRET_ENV": "SHOP_*"}
    environment["KAPSO_SYNC_SECRETS_DIR"] = str(tmp_path / "secrets")
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    return environment


def invoke(kapso: Served, *console: tuple[str, str], status: int = 200, error: str | None = None, body: object = None) -> None:
    """Let ``greet`` be invoked."""
    function = kapso.world.function("greet")
    kapso.world.record_invocation(function, body, status, error=error, duration_ms=12, console=console)  # type: ignore[arg-type]


def test_an_invocation_is_shown_with_its_console_and_its_error(kapso: Served, synced: Environment, folder: Path) -> None:
    """Oldest first; an error that the console shows is not shown again, and one that Kapso cut is told."""
    invoke(kapso, ("log", "one\ntwo"), ("error", TRACE), status=500, error="TypeError: no")
    invoke(kapso, status=404, error="x" * 600)
    invoke(kapso, ("debug", "fine"))
    ran = kapso_sync("logs", "greet", str(folder), environment=synced)
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert [line[24:] for line in lines if line.startswith("20")] == ["UTC  500  12 ms", "UTC  404  12 ms", "UTC  200  12 ms"]
    assert [line for line in lines if line and not line.startswith("20")] == [
        "  log     one",
        "          two",
        "  error   TypeError: no",
        "              at handler (greet.js:2:10)",
        f"          {'x' * 512}… (Kapso keeps 512 characters)",
        "  debug   fine",
    ]


def test_a_stack_of_its_own_is_shown_below_its_message(kapso: Served, synced: Environment) -> None:
    """Without the first line, which says the same."""
    invoke(kapso, ("error", "TypeError: no"), status=500, error="TypeError: no")
    items = kapso.world._invocations[kapso.world.function("greet").id]
    items[-1] = replace(items[-1], console_logs=({**items[-1].console_logs[0], "stack": TRACE},))
    shown = kapso_sync("logs", "greet", environment=synced).out.splitlines()[1:]
    assert shown == ["  error   TypeError: no", "              at handler (greet.js:2:10)"]


def test_programs_get_one_document(kapso: Served, synced: Environment) -> None:
    """Every field is documented; bodies are there only when they were asked for."""
    invoke(kapso, ("error", TRACE), status=500, error="TypeError: no", body={"name": "Ada"})
    document = kapso_sync("logs", "greet", "--json", environment=synced).document
    (shown,) = document["invocations"]
    assert (document["slug"], document["id"]) == ("greet", kapso.world.function("greet").id)
    assert {**shown, "id": "", "at": ""} == {
        "id": "",
        "at": "",
        "slug": "greet",
        "status_code": 500,
        "duration_ms": 12.0,
        "error": "TypeError: no",
        "console": [{"level": "error", "message": TRACE, "at": shown["at"], "stack": None}],
        "places": "as-written",
        "places_reason": None,
    }
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    documented = page.partition("## Why did it fail?")[2].partition("\n## ")[0]
    assert [name for name in (*shown, "request", "response") if f"`{name}`" not in documented] == []
    with_bodies = kapso_sync("logs", "greet", "--json", "--bodies", environment=synced).document["invocations"][0]
    assert (with_bodies["request"], with_bodies["response"]) == ({"name": "Ada"}, None)


def test_failed_ones_and_their_number_are_asked_of_kapso(kapso: Served, synced: Environment) -> None:
    """Two calls, one for the id of the function; the newest are shown."""
    for number in range(4):
        invoke(kapso, ("log", f"ok {number}"))
        invoke(kapso, ("log", f"bad {number}"), status=500)
    kapso.forget_requests()
    ran = kapso_sync("logs", "greet", "--failed", "--limit", "2", environment=synced)
    assert [line.split()[-1] for line in ran.out.splitlines() if "bad" in line] == ["2", "3"]
    assert "ok" not in ran.out
    assert kapso.calls() == ["GET /functions", "GET /functions/{id}/invocations"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_secret_and_no_control_character_is_shown(kapso: Served, synced: Environment, form: list[str]) -> None:
    """The key, every value that a function may have, and fields named like secrets; what is harmless is shown."""
    key = kapso.emulator.key
    invoke(
        kapso,
        ("log", f"\x1b[31m::error::{SECRET} ok-in-the-console"),
        status=500,
        error=f"no {key} ok-in-the-error",
        body={"password": "hunter2", "note": f"{SECRET} ok-in-the-body", "file": key[:-3], "all": [IN_JSON, IN_ENV_FILE]},
    )
    quiet = kapso_sync("logs", "greet", *form, environment=synced).out
    ran = kapso_sync("logs", "greet", "--bodies", *form, environment=synced).out
    assert "ok-in-the-console" in ran
    assert "ok-in-the-error" in ran
    assert "ok-in-the-body" in ran
    assert "ok-in-the-body" not in quiet
    assert [word for word in (SECRET, IN_JSON, IN_ENV_FILE, key, key[:-3], "hunter2", "\x1b") if word in ran + quiet] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gret"], ["no function `gret` on Kapso", "hint: did you mean `greet`?"]),
        (["nothing-like-it"], ["no function `nothing-like-it` on Kapso", "`kapso-sync status"]),
        (["greet", "--limit", "21"], ["--limit 21 is too many: Kapso lists the newest 20", "`--follow`"]),
        (["greet", "--limit", "0", "--follow"], ["--limit 0 shows nothing", "from 1 to 20"]),
        (["greet", "--limit", "some"], ["'some' is not a valid"]),
    ],
)
def test_what_cannot_be_shown_is_a_usage_error(synced: Environment, arguments: list[str], words: list[str]) -> None:
    """Exit code 64, and what to type instead."""
    ran = kapso_sync("logs", *arguments, environment=synced)
    assert (ran.code, ran.out) == (64, "")
    assert [word for word in words if word not in ran.err] == []


def test_a_function_without_invocations_says_so(kapso: Served, synced: Environment) -> None:
    """It was never deployed, or never invoked, or never failed: no error."""
    kapso.world.create({"name": "draft", "code": "x"})
    assert kapso_sync("logs", "draft", environment=synced).out == "draft was never deployed, so nothing has invoked it.\n"
    assert kapso_sync("logs", "greet", environment=synced).out == "Kapso knows no invocation of greet.\n"
    ran = kapso_sync("logs", "greet", "--failed", environment=synced)
    assert (ran.code, ran.out) == (0, "Kapso knows no failed invocation of greet.\n")
    assert kapso_sync("logs", "greet", "--json", environment=synced).document["invocations"] == []


def test_it_needs_no_state_folder_and_takes_no_lock(kapso: Served, synced: Environment, folder: Path, tmp_path: Path) -> None:
    """It runs beside a daemon, which holds the lock, and where nothing was ever synced; neither makes a file."""
    invoke(kapso, ("error", TRACE), status=500)
    (state,) = (tmp_path / "state").glob("functions-*")
    with held(state, VirtualClock().now()):
        beside = kapso_sync("logs", "greet", str(folder), environment=synced)
    elsewhere = kapso_sync("logs", "greet", environment={**synced, "KAPSO_SYNC_STATE_DIR": str(tmp_path / "none")})
    assert (beside.code, elsewhere.code) == (0, 0)
    assert "at handler (greet.js:2:10)" in elsewhere.out
    assert not (tmp_path / "none").exists()
    assert kapso_sync("logs", "greet", "https://user:pass@example.com/x", environment=synced).code == 78


def test_trouble_at_the_api_has_its_exit_code(kapso: Served, synced: Environment) -> None:
    """A wrong key, and an API that is down."""
    assert kapso_sync("logs", "greet", environment={**synced, "KAPSO_API_KEY": "wrong-key-of-nobody"}).code == 77
    kapso.faults({"what": "status", "status": 503})
    assert kapso_sync("logs", "greet", environment={**synced, "KAPSO_SYNC_REQUEST_TIMEOUT": "1s"}).code == 69


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_following_streams_a_document_a_line_until_a_signal(kapso: Served, synced: Environment, number: signal.Signals) -> None:
    """Each is written at once; the end is no error, and says nothing."""
    invoke(kapso, ("log", "first"))
    with started("logs", "greet", "--follow", "--json", environment=synced) as process:
        assert process.stdout is not None
        said = [json.loads(process.stdout.readline())]
        invoke(kapso, ("log", "second"))
        said.append(json.loads(process.stdout.readline()))
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert [each["console"][0]["message"] for each in said] == ["first", "second"]
    assert (process.returncode, out, err) == (0, "", "")
