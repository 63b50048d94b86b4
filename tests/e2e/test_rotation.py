"""Every credential is replaced while a daemon runs, as docs/security.md says: the new one counts, the old one no more."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.quoting import Quoting, quoting
from tests.e2e.test_daemon import Running, commit, daemon, kapso, until  # noqa: F401 - fixtures
from tests.notifications.servers import Ear, listening
from tests.program import answering, git
from tests.served import Served
from tests.sources.servers import GitServer, serving

pytestmark = pytest.mark.e2e

CREDENTIALS = ("api_key", "git_token", "webhook_secret", "admin_token", "commit_status_token")


def value_of(credential: str, generation: int) -> str:
    return f"{credential}-of-generation-{generation}-0123456789"


@dataclass
class Place:
    """A daemon's credentials, and those who accept them."""

    folder: Path
    server: GitServer
    api: Quoting
    forge: Ear
    destination: Ear
    inner_key: str
    generation: int = 1

    @property
    def repository(self) -> Path:
        return self.folder / "served" / "acme" / "flows"

    def rotate(self) -> None:
        """Replace every credential by a new one."""
        self.generation += 1
        self.write()

    def write(self) -> None:
        """Let every other side know the credentials, and no former ones, and write every file."""
        self.server.password = value_of("git_token", self.generation)
        self.api.keys = {value_of("api_key", self.generation): self.inner_key}
        for credential in CREDENTIALS:
            (self.folder / credential).write_text(value_of(credential, self.generation), encoding="utf-8")
        address = f"{self.destination.address}/channel-{self.generation}\n"
        (self.folder / "notify_urls").write_text(address, encoding="utf-8")
        (self.folder / "secrets" / "token").write_text(value_of("token", self.generation), encoding="utf-8")

    def environment(self, kapso: Served) -> dict[str, str]:  # noqa: F811 - not the fixture
        """The settings of the daemon."""
        given = kapso.environment(self.folder / "state")
        del given["KAPSO_API_KEY"]
        return {
            **given,
            "KAPSO_API_BASE_URL": kapso.emulator.base("/api/v1").replace(kapso.emulator.url, self.api.url),
            "KAPSO_API_KEY_FILE": str(self.folder / "api_key"),
            **{f"KAPSO_SYNC_{name.upper()}_FILE": str(self.folder / name) for name in (*CREDENTIALS[1:], "notify_urls")},
            "KAPSO_SYNC_SECRETS_DIR": str(self.folder / "secrets"),
            "KAPSO_SYNC_COMMIT_STATUS": "gitea",
            "KAPSO_SYNC_COMMIT_STATUS_URL": self.forge.url,
            "KAPSO_SYNC_NOTIFY_INTERVAL": "100ms",
            "KAPSO_SYNC_OWNER": "acme/flows",
            "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
            "KAPSO_SYNC_INTERVAL": "300ms",
            "KAPSO_SYNC_GIT_INTERVAL": "1h",
        }

    def push(self, functions: dict[str, str]) -> str:
        """Commit functions whose secret comes from the mounted folder."""
        commit_id = commit(self.repository, functions)
        manifest = self.repository / "functions" / "manifest.yaml"
        manifest.write_text(manifest.read_text() + "    secrets: {TOKEN: {file: token}}\n", encoding="utf-8")
        git(self.repository, "commit", "--quiet", "--all", "--amend", "--no-edit")
        return git(self.repository, "rev-parse", "HEAD").strip() or commit_id

    def ring(self, running: Running, generation: int, commit_id: str) -> int:
        """Send a webhook that is signed with the secret of a generation."""
        body = json.dumps({"ref": "refs/heads/main", "after": commit_id}).encode()
        signature = hmac.new(value_of("webhook_secret", generation).encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Signature": f"sha256={signature}"}
        return httpx.post(f"{running.url}/hooks/git", content=body, headers=headers, timeout=20, trust_env=False).status_code

    def ask(self, running: Running, generation: int) -> int:
        """Ask for what only the admin token opens."""
        headers = {"Authorization": f"Bearer {value_of('admin_token', generation)}"}
        return httpx.post(f"{running.url}/api/resume", headers=headers, timeout=20, trust_env=False).status_code


@pytest.fixture
def place(kapso: Served, tmp_path: Path) -> Iterator[Place]:  # noqa: F811 - a fixture
    root = tmp_path / "served"
    repository = root / "acme" / "flows"
    repository.mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    api = Quoting(kapso.emulator.url)
    with serving(GitServer(root)) as server, listening() as forge, listening() as destination, quoting(api):
        found = Place(tmp_path, server, api, forge, destination, kapso.emulator.key)
        found.push({"greet": answering("one")})
        found.write()
        yield found


def test_every_credential_is_replaced_without_a_restart(kapso: Served, place: Place) -> None:  # noqa: F811 - a fixture
    """A push, its status and its messages pass with new credentials alone; what was live stays live meanwhile."""
    with daemon(f"{place.server.url}/acme/flows/.git", place.environment(kapso)) as running:
        until(lambda: kapso.live_code() == {"greet": answering("one")}, what=lambda: running.raw)
        until(lambda: place.forge.heard and place.forge.heard[-1].body["state"] == "success", what=lambda: running.raw)
        assert place.ask(running, 1) == 202
        place.rotate()
        assert (place.ask(running, 1), place.ask(running, 2)) == (401, 202)
        commit_id = place.push({"greet": answering("two")})
        assert place.ring(running, 1, commit_id) == 401
        assert place.ring(running, 2, commit_id) == 202
        until(lambda: kapso.live_code() == {"greet": answering("two")}, what=lambda: running.raw)
        until(lambda: kapso.secrets("greet").get("TOKEN") == value_of("token", 2), what=lambda: running.raw)
        until(lambda: place.forge.heard[-1].path.endswith(f"/{commit_id}"), what=lambda: running.raw)
        assert place.forge.heard[-1].headers["Authorization"] == f"token {value_of('commit_status_token', 2)}"
        commit_id = place.push({"greet": "async function handler( {"})
        assert place.ring(running, 2, commit_id) == 202
        until(lambda: place.destination.heard, what=lambda: running.raw)
        assert place.destination.heard[-1].path == "/channel-2"
        assert not running.named("api.unauthorized")
        assert running.stop() == 0
    shown = "".join(running.raw)
    assert not [name for name in (*CREDENTIALS, "token") for generation in (1, 2) if value_of(name, generation) in shown]
