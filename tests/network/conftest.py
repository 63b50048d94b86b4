"""A company's own network: an authority, a git server and an API with its certificates, and a proxy in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.network.servers import Authority, make_authority, tls_before
from tests.program import answering, git, write_functions
from tests.served import QUICK, Served, served
from tests.sources.servers import GitServer, serving

NETWORK_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")


@dataclass(frozen=True)
class Company:
    """Kapso and a git server behind TLS; ``routes`` are the ports of both by the names under which a proxy knows them."""

    kapso: Served
    git: GitServer
    authority: Authority
    state: Path
    api_port: int
    git_port: int

    @property
    def routes(self) -> dict[str, int]:
        return {"api.acme.example": self.api_port, "git.acme.example": self.git_port}

    @property
    def named_source(self) -> str:
        """The repository as the proxy knows it."""
        return "https://git.acme.example/upstream/.git"

    @property
    def direct_source(self) -> str:
        """The repository on loopback."""
        return f"https://127.0.0.1:{self.git_port}/upstream/.git"

    def environment(self, **variables: object) -> dict[str, str]:
        """The variables of a process: the API by name, behind the proxy, unless something else is given."""
        found = {**self.kapso.environment(self.state), "KAPSO_API_BASE_URL": "https://api.acme.example/api/v1"}
        return {**found, **{name: str(value) for name, value in variables.items()}}

    @property
    def is_live(self) -> bool:
        return self.kapso.live_code() == {"greet": answering("hello")}


@pytest.fixture(autouse=True)
def _bare_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NETWORK_VARIABLES:
        for spelled in (name, name.lower()):
            monkeypatch.delenv(spelled, raising=False)
    assert os.environ["PATH"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "made")


@pytest.fixture
def company(authority: Authority, tmp_path: Path) -> Iterator[Company]:
    upstream = tmp_path / "repositories" / "upstream"
    write_functions(upstream / "functions", {"greet": answering("hello")})
    git(upstream, "init", "--quiet", "--initial-branch=main")
    git(upstream, "add", "--all")
    git(upstream, "commit", "--quiet", "--message", "One")
    with (
        served(replace(QUICK, names=("api.acme.example",))) as kapso,
        serving(GitServer(tmp_path / "repositories")) as server,
        tls_before(authority, kapso.emulator.url) as api_port,
        tls_before(authority, server.url) as git_port,
    ):
        yield Company(kapso, server, authority, tmp_path / "state", api_port, git_port)
