"""An authority of a company's own: known by SSL_CERT_FILE or SSL_CERT_DIR to everything, and an error where it is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kapso_sync.network import read_network
from kapso_sync.notifications.commit_status_client import CommitStatusClient
from kapso_sync.notifications.destinations import AppriseSender, Destination
from kapso_sync.notifications.forges import Forge, Repository
from tests.network.conftest import Company
from tests.network.servers import Authority, tls_before
from tests.network.test_proxies import MESSAGE, STATUS
from tests.notifications.servers import listening
from tests.program import kapso_sync


def _direct(company: Company, **variables: object) -> dict[str, str]:
    return company.environment(KAPSO_API_BASE_URL=f"https://127.0.0.1:{company.api_port}/api/v1", **variables)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_private_authority_is_known_to_the_api_and_git(variable: str, company: Company) -> None:
    """A file, or a folder as OpenSSL reads it."""
    named = {"SSL_CERT_FILE": company.authority.certificate, "SSL_CERT_DIR": company.authority.directory}[variable]
    ran = kapso_sync("sync", company.direct_source, environment=_direct(company, **{variable: named}))
    assert (ran.code, company.is_live) == (0, True), ran.out + ran.err


@pytest.mark.parametrize("what", ["git", "api"])
def test_an_unknown_authority_is_an_error_whose_hint_names_the_variable(what: str, company: Company) -> None:
    """The connection is refused, and nothing is sent over it."""
    source = company.direct_source if what == "git" else "."
    environment = _direct(company, KAPSO_SYNC_REQUEST_TIMEOUT="2s")
    if what == "api":
        environment["GIT_SSL_CAINFO"] = str(company.authority.certificate)
        source = company.direct_source
    ran = kapso_sync("plan", source, environment=environment)
    assert (ran.code, company.kapso.requests()) == (69, []), ran.err
    assert "SSL_CERT_FILE" in ran.err
    assert bool(company.git.paths) == (what == "api")


def test_git_may_have_an_authority_of_its_own(company: Company) -> None:
    """GIT_SSL_CAINFO holds for git alone, and before SSL_CERT_FILE."""
    base = company.kapso.emulator.base("/api/v1")
    environment = company.environment(KAPSO_API_BASE_URL=base, GIT_SSL_CAINFO=company.authority.certificate)
    assert kapso_sync("sync", company.direct_source, environment=environment).code == 0
    assert company.is_live


@pytest.mark.parametrize("command", ["sync", "plan", "run"])
@pytest.mark.parametrize("wrong", ["absent", "empty", "directory", "words", "pipe"])
def test_a_wrong_file_of_authorities_ends_the_program_at_its_start(
    wrong: str, command: str, company: Company, tmp_path: Path
) -> None:
    """With 78, before anything is read or asked: other authorities must not be trusted in its place."""
    file = tmp_path / "authorities.pem"
    if wrong == "directory":
        file.mkdir()
    elif wrong == "pipe":
        os.mkfifo(file)
    elif wrong != "absent":
        file.write_text("" if wrong == "empty" else "these are no certificates\n")
    ran = kapso_sync(command, company.direct_source, environment=_direct(company, SSL_CERT_FILE=file, KAPSO_SYNC_LISTEN=""))
    assert ran.code == 78, ran.out + ran.err
    assert f"SSL_CERT_FILE {file}" in ran.err
    assert (company.git.paths, company.kapso.requests()) == ([], [])


async def test_a_private_authority_is_known_to_commit_statuses_and_messages(authority: Authority) -> None:
    """Without it both say that they could not connect; a commit status names the variable."""
    with listening() as ear, tls_before(authority, ear.url) as port:
        repository = Repository(Forge.GITEA, f"https://127.0.0.1:{port}/api/v1", "acme/flows")
        far = Destination(f"jsons://localhost:{port}/hook", "", "key")
        for variables in ({"SSL_CERT_FILE": str(authority.certificate)}, {"SSL_CERT_DIR": str(authority.directory)}):
            network = read_network(variables)
            client = CommitStatusClient(repository, "kapso-sync", lambda: "token", network=network)
            assert (await client.post(STATUS)).error is None
            assert await AppriseSender(network.requests_environment).send(far, MESSAGE) is None
        assert len(ear.heard) == 4
        unknown = read_network({})
        refused = await CommitStatusClient(repository, "kapso-sync", lambda: "token", network=unknown).post(STATUS)
        assert "SSL_CERT_FILE" in str(refused.hint)
        assert await AppriseSender(unknown.requests_environment).send(far, MESSAGE) is not None
        assert len(ear.heard) == 4
