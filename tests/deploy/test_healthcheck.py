"""The image's HEALTHCHECK: asks the daemon where KAPSO_SYNC_LISTEN says that it listens."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "healthcheck.py"


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()
        self.wfile.write(b"the loop is stuck" if self.status == 503 else b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""


class _Stuck(_Answer):
    status = 503


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Serve /healthz on loopback; the parameter is what answers."""
    with HTTPServer(("127.0.0.1", 0), getattr(request, "param", _Answer)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def check(listen: str | None) -> subprocess.CompletedProcess[str]:
    """Run the check as the image does."""
    environment = {"PATH": os.environ["PATH"], **({} if listen is None else {"KAPSO_SYNC_LISTEN": listen})}
    command = [sys.executable, "-IS", str(SCRIPT)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize("listen", ["127.0.0.1:{port}", "0.0.0.0:{port}", ":{port}", " localhost:{port} "])
def test_the_health_check_follows_the_address(port: int, listen: str) -> None:
    """Every spelling of the setting that the daemon takes; a wildcard is asked on loopback."""
    ran = check(listen.format(port=port))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("port", [_Stuck], indirect=True)
def test_an_unhealthy_daemon_fails_the_check_with_its_reason(port: int) -> None:
    """`docker inspect` shows what was printed."""
    ran = check(f"127.0.0.1:{port}")
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (1, "the loop is stuck", "")


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "nonsense"])
def test_no_answer_fails_the_check_and_names_the_setting(listen: str) -> None:
    """Without a traceback."""
    ran = check(listen)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert f"no answer at KAPSO_SYNC_LISTEN {listen}" in ran.stdout


def test_a_daemon_without_a_server_counts_as_healthy() -> None:
    """An empty address is a choice: there is nothing to ask."""
    assert check("").returncode == 0
