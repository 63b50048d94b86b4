"""Deployment files: image, compose, unit, dashboard and alerts agree with the program."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kapso_sync.clock import SystemClock
from kapso_sync.settings import VARIABLES
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.telemetry.metrics import Metrics
from kapso_sync.tools import VERSION
from tests.deploy.manifests import DEPLOY

ROOT = Path(__file__).parents[2]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_every_setting_in_deployment_files_and_docs_exists() -> None:
    """A misspelt variable in an image, a manifest, a unit or a page would have no effect."""
    files = [ROOT / "Dockerfile", *DEPLOY.rglob("*.*"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    for path in files:
        if path.is_file():
            named = set(re.findall(r"\bKAPSO_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
            unknown = named - set(VARIABLES) - {"KAPSO_SYNC", "KAPSO_SYNC_COMPLETE", "KAPSO_SYNC_INSTALL"}
            assert not unknown, path


def test_every_page_names_the_esbuild_that_is_used() -> None:
    """Another version is refused: a command that installs one would not help."""
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    named = {version for path in pages for version in re.findall(r"esbuild@([\d.]+\d)", path.read_text(encoding="utf-8"))}
    assert named == {VERSION}


def metric_names() -> frozenset[str]:
    board = StatusTracker(SystemClock(), "0", "x")
    return Metrics("0", board.status).names


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    """Every name in every query is one that the program exposes."""
    dashboard = json.loads((DEPLOY / "grafana" / "kapso-sync.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [rule["expr"] for group in load(DEPLOY / "prometheus" / "alerts.yaml")["groups"] for rule in group["rules"]]
    asked = {name for query in queries for name in re.findall(r"(?:kapso_sync|process)_\w+", query)}
    assert asked
    assert asked <= metric_names()
    assert {"kapso_sync_function_ready", "kapso_sync_suspended", "kapso_sync_api_rate_limit"} <= asked


def test_every_alert_links_to_its_runbook() -> None:
    """Summary, description, and a heading that says what to do."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in page.splitlines() if line[:1] == "#"
    }
    rules = [rule for group in load(DEPLOY / "prometheus" / "alerts.yaml")["groups"] for rule in group["rules"]]
    assert len(rules) >= 6
    for rule in rules:
        assert {"summary", "description", "runbook"} <= set(rule["annotations"])
        assert rule["annotations"]["runbook"].partition("#")[2] in anchors, rule["alert"]


HOUR = 60
"""Prometheus looks once a minute in these tests, and begins at the epoch."""


LEASE = 'kapso_sync_lease_info, lease="apps/kapso-sync"}'
STANDBY = {"kapso_sync_leader}": f"0x{HOUR * 3}", LEASE: f"1x{HOUR * 3}"}
LEADER = {"kapso_sync_leader}": f"1x{HOUR * 3}", LEASE: f"1x{HOUR * 3}"}
NEVER_IN_SYNC = {"kapso_sync_last_success_timestamp_seconds}": f"0x{HOUR * 3}"}
NO_PASSES = {'kapso_sync_reconcile_total, result="success"}': f"0x{HOUR * 3}"}
TROUBLE = {
    **NEVER_IN_SYNC,
    **NO_PASSES,
    'kapso_sync_deploy_total, result="failed"}': f"0x{HOUR + 40} 1 2 3 4x{HOUR}",
    'kapso_sync_drift_total, slug="greet", field="code"}': f"0x{HOUR} 1 2 3 4x{HOUR}",
    'kapso_sync_api_requests_total, status="401"}': f"0x{HOUR * 2 - 5} 1x{HOUR}",
    "kapso_sync_api_rate_limit_remaining}": f"90x{HOUR} 1x{HOUR * 2}",
    "kapso_sync_source_unverified}": f"1x{HOUR * 3}",
}
"""What would raise every alert at a leader."""


def series(values: dict[str, str], instance: str = "a:8321") -> list[dict[str, str]]:
    """Return what a healthy daemon that started an hour ago shows, with other values laid over it."""
    shared = f'{{instance="{instance}", job="kapso-sync"'
    healthy = {
        "process_start_time_seconds}": f"0x{HOUR * 3}",
        "kapso_sync_last_success_timestamp_seconds}": f"0+60x{HOUR * 3}",
        "kapso_sync_suspended}": f"0x{HOUR * 3}",
        "kapso_sync_source_unverified}": f"0x{HOUR * 3}",
        "kapso_sync_build_info}": f"1x{HOUR * 3}",
        "up}": f"1x{HOUR * 3}",
        'kapso_sync_reconcile_total, result="success"}': f"0+1x{HOUR * 3}",
        'kapso_sync_deploy_total, result="failed"}': f"0x{HOUR * 3}",
        'kapso_sync_drift_total, slug="greet", field="code"}': f"0x{HOUR * 3}",
        'kapso_sync_api_requests_total, status="401"}': f"0x{HOUR * 3}",
        "kapso_sync_api_rate_limit}": f"100x{HOUR * 3}",
        "kapso_sync_api_rate_limit_remaining}": f"90x{HOUR * 3}",
        "kapso_sync_leader}": f"1x{HOUR * 3}",
    }
    assert values.keys() <= {*healthy, LEASE}
    found = []
    for name, value in (healthy | values).items():
        metric, comma, labels = name.removesuffix("}").partition(",")
        found.append({"series": f"{metric}{shared}{comma}{labels}}}", "values": value})
    return found


STARTED = 105
QUIET_START = {
    "process_start_time_seconds}": f"_x{STARTED} {STARTED * 60}x15",
    "kapso_sync_last_success_timestamp_seconds}": f"_x{STARTED} {STARTED * 60}+60x15",
    "kapso_sync_suspended}": f"_x{STARTED} 0x15",
    "kapso_sync_build_info}": f"_x{STARTED} 1x15",
    'kapso_sync_reconcile_total, result="success"}': f"_x{STARTED} 1x15",
}
"""A daemon that started a quarter of an hour before two o'clock, and has had one pass since."""


@pytest.mark.parametrize(
    ("values", "alert"),
    [
        ({}, None),
        (LEADER, None),
        ({**TROUBLE, **STANDBY}, "KapsoSyncNoLeader"),
        ({**LEADER, "kapso_sync_leader}": f"1x{HOUR * 2 - 4} 0x{HOUR}"}, "KapsoSyncNoLeader"),
        ({**LEADER, "kapso_sync_leader}": f"1x{HOUR * 2 - 1} 0x{HOUR}"}, None),
        ({**NEVER_IN_SYNC, **LEADER, "kapso_sync_leader}": f"0x{HOUR * 2 - 5} 1x{HOUR}"}, None),
        ({"kapso_sync_last_success_timestamp_seconds}": f"0+60x{HOUR} {HOUR * 60}x{HOUR * 2}"}, "KapsoSyncNotInSync"),
        ({"kapso_sync_last_success_timestamp_seconds}": f"0x{HOUR * 3}"}, "KapsoSyncNotInSync"),
        ({'kapso_sync_deploy_total, result="failed"}': f"0x{HOUR + 40} 1 2 3 4x{HOUR}"}, "KapsoSyncDeploymentsFail"),
        ({"kapso_sync_source_unverified}": f"0x{HOUR * 2 - 1} 1x{HOUR}"}, "KapsoSyncRevisionUnverified"),
        ({"kapso_sync_source_unverified}": f"1x{HOUR} 0x{HOUR * 2}"}, None),
        ({'kapso_sync_drift_total, slug="greet", field="code"}': f"0x{HOUR} 1 2 3 4x{HOUR}"}, "KapsoSyncDriftRecurs"),
        ({'kapso_sync_api_requests_total, status="401"}': f"0x{HOUR * 2 - 5} 1x{HOUR}"}, "KapsoSyncKeyRejected"),
        ({"kapso_sync_api_rate_limit_remaining}": f"90x{HOUR} 1x{HOUR * 2}"}, "KapsoSyncRateLimitExhausted"),
        ({'kapso_sync_reconcile_total, result="success"}': f"0+1x{HOUR} {HOUR}x{HOUR * 2}"}, "KapsoSyncSilent"),
        ({"up}": f"1x{HOUR} 0x{HOUR * 2}"}, "KapsoSyncGone"),
        (QUIET_START, None),
    ],
)
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path, values: dict[str, str], alert: str | None) -> None:
    """Two hours after the start, as evaluated by Prometheus' own tool."""
    check_alerts(tmp_path, series(values), {alert})


@pytest.mark.parametrize(
    ("other", "alerts"),
    [
        ({**TROUBLE, **STANDBY}, set()),
        (LEADER, {"KapsoSyncTwoLeaders"}),
        ({**LEADER, "kapso_sync_leader}": f"0x{HOUR * 2 - 3} 1x{HOUR}"}, {"KapsoSyncTwoLeaders"}),
        ({**LEADER, "kapso_sync_leader}": f"1x{HOUR * 2 - 1} 0x{HOUR}"}, set()),
        ({**LEADER, "kapso_sync_leader}": f"0x{HOUR * 2 - 1} 1x{HOUR}"}, set()),
    ],
    ids=["standby", "two leaders", "a second leader since three minutes", "one hands over", "one takes over"],
)
def test_a_standby_raises_no_alert_and_two_leaders_do(tmp_path: Path, other: dict[str, str], alerts: set[str | None]) -> None:
    """Beside a healthy leader; a hand-over that two scrapes see as two leaders is none."""
    check_alerts(tmp_path, [*series(LEADER), *series(other, "b:8321")], alerts)


def check_alerts(folder: Path, given: list[dict[str, str]], alerts: set[str | None]) -> None:
    """Exactly these alerts fire two hours after the epoch."""
    rules = DEPLOY / "prometheus" / "alerts.yaml"
    names = [rule["alert"] for group in load(rules)["groups"] for rule in group["rules"]]
    expected = [
        {
            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
            "eval_time": "2h",
            "exp_samples": [{"labels": "{}", "value": int(name in alerts)}],
        }
        for name in names
    ]
    promtool(folder, {"input_series": given, "promql_expr_test": expected})


def test_the_alert_for_a_daemon_that_is_gone_names_it(tmp_path: Path) -> None:
    """As long as Prometheus knows which one that was; where it never heard of any, it says that."""
    (rule,) = [
        rule
        for group in load(DEPLOY / "prometheus" / "alerts.yaml")["groups"]
        for rule in group["rules"]
        if rule["alert"] == "KapsoSyncGone"
    ]
    for values, labels, summary in (
        (
            series({"up}": f"1x{HOUR} 0x{HOUR * 2}"}),
            {"instance": "a:8321", "job": "kapso-sync"},
            "kapso-sync a:8321 does not answer Prometheus",
        ),
        ([], {}, "Prometheus knows no kapso-sync"),
    ):
        alert = {"exp_labels": rule["labels"] | labels, "exp_annotations": rule["annotations"] | {"summary": summary}}
        test = {"eval_time": "2h", "alertname": "KapsoSyncGone", "exp_alerts": [alert]}
        promtool(tmp_path, {"input_series": values, "alert_rule_test": [test]})


def promtool(folder: Path, test: dict[str, Any]) -> None:
    """Let Prometheus' own tool evaluate the alert rules."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    case = {"rule_files": [str(DEPLOY / "prometheus" / "alerts.yaml")], "tests": [{"interval": "1m", **test}]}
    path = folder / "case.yaml"
    path.write_text(json.dumps(case), encoding="utf-8")
    ran = subprocess.run([tool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_dockerfile_passes_hadolint_and_runs_as_non_root() -> None:
    """The linter finds nothing; the final stage runs as a numeric user, and starts the daemon."""
    hadolint = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run([str(hadolint), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")
    final = (ROOT / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[-1]
    assert "USER 10001:10001" in final
    assert 'ENTRYPOINT ["/usr/bin/tini", "--", "kapso-sync"]' in final
    assert not re.search(r"\b(gcc|build-essential|make)\b", final)
    assert "kapso-sync:x:10001:10001:" in final, "ssh refuses to run for a user without a line in passwd"
    (installed,) = re.findall(r"apt-get install --yes --no-install-recommends (.*?) \\\n", final)
    assert "git" not in installed.split(), "Debian's git brings perl; its two programs are copied from a stage of their own"
    assert "healthcheck.py" in final[final.index("HEALTHCHECK") :]
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines().count("!deploy/healthcheck.py") == 1


@pytest.mark.e2e
def test_the_docker_image_installs_from_wheels_only(tmp_path: Path) -> None:
    """The build stage has no compiler: what the Dockerfile asks of pip is resolved for its Python, without installing."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (version,) = set(re.findall(r"^FROM python:(\d+\.\d+)-", dockerfile, re.MULTILINE))
    assert dockerfile.count("--require-hashes --only-binary :all:") == 2
    for name in ("run", "build"):
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--disable-pip-version-check"]
        command += ["--require-hashes", "--only-binary", ":all:", "--target", str(tmp_path), "--python-version", version]
        command += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64", "--retries", "1"]
        command += ["--requirement", str(ROOT / "requirements" / f"{name}.txt")]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if ran.returncode and ("Retrying" in ran.stderr or "connection" in ran.stderr):
            pytest.skip("no package index can be reached")
        assert ran.returncode == 0, ran.stderr[-1000:]


def test_the_systemd_unit_is_hardened() -> None:
    """It waits for our readiness, uses the watchdog, and grants no right that we do not need."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "systemd" / "kapso-sync.service", encoding="utf-8")
    service = parser["Service"]
    assert (service["Type"], service["NoNewPrivileges"], service["ProtectSystem"], service["CapabilityBoundingSet"]) == (
        *("notify", "yes", "strict", ""),
    )
    assert int(service["TimeoutStopSec"]) > 10
    verify = shutil.which("systemd-analyze")
    if verify is not None:
        command = [verify, "verify", "--man=no", str(DEPLOY / "systemd" / "kapso-sync.service")]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        problems = [line for line in ran.stderr.splitlines() if "kapso-sync" in line and "not executable" not in line]
        assert problems == []
        command = [verify, "security", "--offline=true", "--threshold=20", str(DEPLOY / "systemd" / "kapso-sync.service")]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0, "an exposure of at most 2.0 of 10"


def test_the_compose_service_is_hardened() -> None:
    """Read-only root, no capabilities, secrets as files, a volume for the state."""
    service = load(DEPLOY / "compose.yaml")["services"]["kapso-sync"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["environment"]["KAPSO_API_KEY_FILE"] == "/run/secrets/api-key"
    assert service["volumes"] == ["state:/var/lib/kapso-sync"]
