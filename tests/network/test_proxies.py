"""Real proxies that ask for a password: everything that leaves the machine goes through them, and nothing of loopback."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from pathlib import Path

import pytest

from kapso_sync.network import read_network
from kapso_sync.notifications.commit_status import CommitState, CommitStatus
from kapso_sync.notifications.commit_status_client import CommitStatusClient
from kapso_sync.notifications.destinations import AppriseSender, Destination
from kapso_sync.notifications.forges import Forge, Repository
from kapso_sync.notifications.messages import Kind, Message
from tests.network.conftest import Company
from tests.network.servers import PASSWORD, Authority, proxying, tls_before
from tests.notifications.servers import listening
from tests.program import kapso_sync

MESSAGE = Message("a title", "a body", Kind.FAILURE)
STATUS = CommitStatus("c" * 40, CommitState.SUCCESS, "in sync")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
def test_the_api_and_git_go_through_the_proxy_with_its_password(kind: str, variable: str, company: Company) -> None:
    """Names that only the proxy can resolve; the password is in no output."""
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(proxying(company.routes, "socks5" if kind == "socks5" else "http"))
        if kind == "https":
            proxy.port = stack.enter_context(tls_before(company.authority, f"http://127.0.0.1:{proxy.port}"))
        address = proxy.address("socks5h" if kind == "socks5" else kind)
        network = {variable: address, "SSL_CERT_FILE": company.authority.certificate}
        ran = kapso_sync("sync", company.named_source, environment=company.environment(**network))
    assert ran.code == 0, ran.out + ran.err
    assert company.is_live
    counted = Counter(proxy.targets)
    assert set(counted) == {"api.acme.example:443", "git.acme.example:443"}
    assert counted["git.acme.example:443"] >= 2
    assert PASSWORD not in ran.out + ran.err


def test_an_env_file_may_name_the_proxy(company: Company, tmp_path: Path) -> None:
    """Like every other setting."""
    with proxying(company.routes) as proxy:
        file = tmp_path / "settings.env"
        file.write_text(f"HTTPS_PROXY={proxy.address()}\nSSL_CERT_FILE={company.authority.certificate}\n")
        ran = kapso_sync("sync", company.named_source, "--env-file", str(file), environment=company.environment())
    assert (ran.code, set(proxy.targets)) == (0, {"api.acme.example:443", "git.acme.example:443"}), ran.out + ran.err


def test_loopback_goes_through_no_proxy(company: Company) -> None:
    """Whatever NO_PROXY says: the emulator and a git server here are reached as before. The proxy would be reached, too."""
    with proxying(company.routes) as proxy:
        network = {"ALL_PROXY": proxy.address(), "SSL_CERT_FILE": company.authority.certificate}
        base = company.kapso.emulator.base("/api/v1")
        ran = kapso_sync("sync", company.direct_source, environment=company.environment(**network, KAPSO_API_BASE_URL=base))
        assert (ran.code, company.is_live) == (0, True), ran.out + ran.err
        assert (proxy.targets, proxy.refused) == ([], 0)
        kapso_sync("plan", company.named_source, environment=company.environment(**network))
        assert proxy.targets


def test_what_no_proxy_names_is_reached_directly(company: Company) -> None:
    """A name that only the proxy knows is not found then, by git and by the API."""
    with proxying(company.routes) as proxy:
        network = {"HTTPS_PROXY": proxy.address(), "NO_PROXY": ".acme.example", "SSL_CERT_FILE": company.authority.certificate}
        no_git = kapso_sync("plan", company.named_source, environment=company.environment(**network))
        no_api = kapso_sync("plan", company.direct_source, environment=company.environment(**network))
    assert (no_git.code, no_api.code, proxy.targets) == (69, 69, [])
    assert "git.acme.example" in no_git.err
    assert "api.acme.example" in no_api.err


# httpcore 1.0 leaves the socket of a refused SOCKS connection to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("what", ["git", "api"])
def test_a_wrong_password_of_the_proxy_is_an_error_that_names_the_variable(what: str, kind: str, company: Company) -> None:
    """It shows no password, neither the wrong one."""
    with proxying(company.routes, kind) as proxy:
        address = proxy.address("socks5h" if kind == "socks5" else kind, "wr0ng-pr0xy-s3cret")
        network = {"HTTPS_PROXY": address, "SSL_CERT_FILE": company.authority.certificate}
        source = company.named_source if what == "git" else company.direct_source
        environment = company.environment(**network, KAPSO_SYNC_REQUEST_TIMEOUT="2s")
        ran = kapso_sync("plan", source, environment=environment)
    gc.collect()
    assert (ran.code, proxy.targets) == (69, []), ran.err
    assert proxy.refused
    assert "HTTPS_PROXY" in ran.err
    assert "wr0ng" not in ran.out + ran.err


async def test_commit_statuses_go_through_the_proxy(authority: Authority) -> None:
    """With its authority; without the proxy the host has no address."""
    repository = Repository(Forge.GITEA, "https://forge.acme.example/api/v1", "acme/flows")
    with listening() as forge, tls_before(authority, forge.url) as port, proxying({"forge.acme.example": port}) as proxy:
        variables = {"HTTPS_PROXY": proxy.address(), "SSL_CERT_FILE": str(authority.certificate)}
        client = CommitStatusClient(repository, "kapso-sync", lambda: "token", network=read_network(variables))
        assert (await client.post(STATUS)).error is None
        assert ([post.path for post in forge.heard], proxy.targets) == (
            [f"/api/v1/repos/acme/flows/statuses/{STATUS.commit}"],
            ["forge.acme.example:443"],
        )
        direct = CommitStatusClient(repository, "kapso-sync", lambda: "token", network=read_network({}))
        assert (await direct.post(STATUS)).error is not None
        wrong = {**variables, "HTTPS_PROXY": proxy.address(password="wr0ng")}
        refused = await CommitStatusClient(repository, "x", lambda: "token", network=read_network(wrong)).post(STATUS)
    assert "HTTPS_PROXY" in str(refused.hint)


async def test_messages_go_through_the_proxy(authority: Authority) -> None:
    """Those to loopback do not."""
    with listening() as ear, tls_before(authority, ear.url) as port, proxying({"chat.acme.example": port}) as proxy:
        variables = {"HTTPS_PROXY": proxy.address(), "HTTP_PROXY": proxy.address(), "SSL_CERT_FILE": str(authority.certificate)}
        sender = AppriseSender(read_network(variables).requests_environment)
        assert await sender.send(Destination("jsons://chat.acme.example/hook", "", "far"), MESSAGE) is None
        assert (len(ear.heard), proxy.targets) == (1, ["chat.acme.example:443"])
        assert await sender.send(Destination(f"{ear.address}/hook", "", "near"), MESSAGE) is None
        assert (len(ear.heard), len(proxy.targets)) == (2, 1)
