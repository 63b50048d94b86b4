"""The daemon against random API behaviour: secrets stay, functions in use stay, and no secret value is shown."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings

from kapso_sync.emulator.options import Behaviour
from tests.e2e.test_daemon import daemon, until
from tests.program import answering, write_functions
from tests.served import QUICK, Served, served
from tests.worlds import worlds

pytestmark = [pytest.mark.e2e, pytest.mark.history]

LONG_VALUE = "value-of-the-long-secret\n" * 80
"""Two thousand characters on many lines: no shortening of an error may cut it so that it is not known any more."""
MODULE = "export default function handler(request) {\n  return new Response('module');\n}\n"
HARSH = Behaviour().changed(
    {
        "secrets_on_deploy": "drop",
        "post_of_existing": "refuse",
        "inherited_secrets": ["SHARED"],
        "lock_version": "deploy",
        "keeps_public_endpoint": False,
        "function_type_required": True,
        "module_code": "error",
        "errors_quote": True,
        "status_word": "active",
        "list_code": False,
    }
)


def shows_failures(behaviour: Behaviour) -> bool:
    """Return whether a repeated failure shows at once: one that moves no time counts after 90 s, too long for this test."""
    return behaviour.error_moves_updated_at or (behaviour.script_code, behaviour.module_code) == ("runs", "runs")


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(behaviour=HARSH)
@given(behaviour=worlds().filter(shows_failures))
def test_daemon_keeps_secrets_and_used_functions_with_any_api_behaviour(behaviour: Behaviour) -> None:
    """First sync, a rotation, drift by hand and a removal: in sync means that the code and every secret of git's are there."""
    with (
        tempfile.TemporaryDirectory() as place,
        served(replace(QUICK, behaviour=behaviour)) as kapso,
    ):
        _live_through(kapso, Path(place))


def _live_through(kapso: Served, place: Path) -> None:
    folder, secrets, state = place / "functions", place / "secrets", place / "state"
    secrets.mkdir()
    (secrets / "long").write_text(LONG_VALUE)
    (secrets / "json").write_text('{"pin": "value-of-the-json-secret"}')
    fields = "    secrets: {LONG: {file: long}, JSON: {file: json, json: true}}\n"
    write_functions(folder, {"greet": answering("one"), "used": answering("used")}, fields)
    environment = {
        **kapso.environment(state),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_DEBOUNCE": "50ms",
        "KAPSO_SYNC_INTERVAL": "500ms",
        "KAPSO_SYNC_PRUNE": "true",
        "KAPSO_SYNC_PRUNE_GRACE": "0s",
        "KAPSO_SYNC_MAX_DELETE": "100%",
        "KAPSO_SYNC_SECRETS_DIR": str(secrets),
    }

    def settled(code: str) -> bool:
        return code in (kapso.live_code().get("greet") or "") and {"LONG", "JSON"} <= kapso.secrets("greet").keys()

    with daemon(str(folder), environment) as running:
        until(lambda: settled("one") and running.status()["in_sync"], what=lambda: running.raw)
        assert kapso.secrets("greet")["LONG"] == LONG_VALUE.rstrip("\n")
        used = kapso.look(lambda world: world.function("used").id)
        kapso.look(lambda world: world.add_webhook(f"https://api.kapso.ai/platform/v1/functions/{used}/invoke"))

        (secrets / "long").write_text(LONG_VALUE.upper())
        until(lambda: str(kapso.secrets("greet").get("LONG")).isupper(), what=lambda: running.raw)

        (folder / "greet.js").write_text(MODULE)
        until(lambda: settled("module") and running.status()["in_sync"], what=lambda: running.raw)

        kapso.edit("greet", code=answering("by hand"), deploy=True)
        running.event("drift.corrected")
        until(lambda: settled("module") and running.status()["in_sync"], what=lambda: running.raw)

        write_functions(folder, {"greet": MODULE}, fields)
        assert "webhook" in running.event("prune.blocked")["reason"]
        assert kapso.live_code()["used"] is not None
        status = str(running.status())
    kept = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    for value in ("value-of-the-long-secret", "value-of-the-json-secret"):
        assert value not in "".join(running.raw).lower() + status.lower()
        assert value.encode() not in kept.lower()
