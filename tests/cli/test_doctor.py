"""``doctor`` at the command line: it asks only when it may, and what it learns is kept for the base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kapso_sync.doctor.setup import Level, check_authorities, check_clock, check_git, check_proxies, check_state_folder
from tests.program import kapso_sync
from tests.served import Served

Environment = Mapping[str, str]


def facts_of(environment: Environment) -> dict[str, object]:
    (file,) = Path(environment["KAPSO_SYNC_STATE_DIR"]).glob("api-*.json")
    found: dict[str, object] = json.loads(file.read_text())
    return found


@pytest.mark.e2e
def test_doctor_tests_the_api_and_stores_the_api_facts(kapso: Served, environment: Environment) -> None:
    """Over HTTP, on a base that drops secrets: the next sync uses the facts."""
    kapso.control("PATCH", "/world", {"secrets_on_deploy": "drop"})
    fast = {**environment, "KAPSO_SYNC_DEPLOY_POLL": "50ms"}
    document = kapso_sync("doctor", "--yes", "--json", environment=fast).document
    assert document["api"]["facts"]["secrets_survive"] is False
    assert facts_of(environment)["secrets_survive"] is False
    assert kapso.control("GET", "/state")["functions"] == []


def test_doctor_without_yes_and_without_a_terminal_makes_no_api_call(kapso: Served, environment: Environment) -> None:
    """It prints what it would do."""
    ran = kapso_sync("doctor", environment=environment)
    assert (ran.code, kapso.calls()) == (0, [])
    assert "`kapso-sync doctor --yes` asks it.\nIt creates one function" in ran.out
    assert kapso_sync("doctor", "--json", environment=environment).document["api"] is None


def test_doctor_without_an_api_key_checks_only_the_local_setup(environment: Environment) -> None:
    """It names the missing variable."""
    without = {name: value for name, value in environment.items() if not name.startswith("KAPSO_API_KEY")}
    ran = kapso_sync("doctor", environment=without)
    assert (ran.code, "Set KAPSO_API_KEY" in ran.out) == (0, True)


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("2.39.4", Level.OK),
        ("2.39.5 (Apple Git-154)", Level.OK),
        ("2.45.1", Level.OK),
        ("2.51.0", Level.OK),
        ("2.43.5", Level.OK),
        ("2.39.3", Level.WARNING),
        ("2.43.0", Level.WARNING),
        ("2.34.1", Level.WARNING),
        ("2.30.9", Level.ERROR),
        ("1.8.3", Level.ERROR),
        ("a new way to say it", Level.WARNING),
        (None, Level.WARNING),
    ],
)
def test_doctor_warns_of_a_vulnerable_git_version(version: str | None, level: Level) -> None:
    """Each release line has its own first good version; one that ignores our settings cannot be used."""
    assert check_git(version).level is level


def test_doctor_reports_a_broken_setup_with_a_hint(tmp_path: Path) -> None:
    """A wrong clock, a missing certificate file, a folder that others may write."""
    assert check_clock(datetime(1970, 1, 1, tzinfo=UTC)).level is Level.ERROR
    missing = check_authorities({"SSL_CERT_FILE": str(tmp_path / "none.pem")})
    assert (missing.level, "SSL_CERT_FILE" in str(missing.hint)) == (Level.ERROR, True)
    (tmp_path / "empty.pem").write_text("no certificate")
    assert check_authorities({"SSL_CERT_FILE": str(tmp_path / "empty.pem")}).level is Level.ERROR
    assert check_authorities({}).level is Level.OK
    wrong = check_proxies({"HTTPS_PROXY": "ftp://ada:s3cr3t@proxy.example"})
    assert (wrong.level, "s3cr3t" in f"{wrong.found} {wrong.hint}") == (Level.ERROR, False)
    assert check_proxies({"https_proxy": "http://proxy.example:3128"}).found == "set: HTTPS_PROXY"
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert check_state_folder(shared).level is Level.WARNING
    assert check_state_folder(tmp_path / "new" / "deeper").level is Level.OK


def test_doctor_checks_the_keys_that_may_sign(environment: Environment, tmp_path: Path) -> None:
    """A daemon would end at its start: the check says the same, before that."""
    keys = tmp_path / "keys"
    keys.write_text("ada@example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE9ePKzjXEHSmeUQQ4qWSxYR8h8XcCeaK8ZYZhP8bBHF\n")
    wanted = {**environment, "KAPSO_SYNC_VERIFY_FILE": str(keys)}

    def check(given: Environment) -> tuple[int, str, str]:
        ran = kapso_sync("doctor", "--json", environment=given)
        (found,) = [each for each in ran.document["setup"] if each["name"] == "signatures"]
        return ran.code, found["level"], found["found"]

    assert check(environment)[:2] == (0, "ok")
    assert check(wanted) == (0, "ok", "KAPSO_SYNC_VERIFY_FILE has 1 line of ssh keys")
    keys.write_text("ada@example.com\n")
    assert check(wanted) == (
        78,
        "error",
        f"KAPSO_SYNC_VERIFY_FILE {keys}: line 1 is not an allowed signer, and not a part of an OpenPGP key",
    )
