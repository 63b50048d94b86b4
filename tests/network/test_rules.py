"""Which proxy, and which authorities: the rules of the variables, without a connection."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest

from kapso_sync.errors import ConfigError
from kapso_sync.network import read_network

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTPS_PROXY": PROXY}, "https://app.kapso.ai/api/v1", PROXY),
        ({"https_proxy": PROXY}, "https://app.kapso.ai/api/v1", PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other.example"}, "https://app.kapso.ai", PROXY),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "https://app.kapso.ai", PROXY),
        ({"HTTPS_PROXY": "proxy.example"}, "https://app.kapso.ai", "http://proxy.example:80"),
        ({"HTTPS_PROXY": "https://u:p@proxy.example/"}, "https://app.kapso.ai", "https://u:p@proxy.example:443/"),
        ({"HTTPS_PROXY": "SOCKS5://proxy.example"}, "https://app.kapso.ai", "socks5://proxy.example:1080"),
        ({"HTTPS_PROXY": "http://[2001:db8::1]"}, "https://app.kapso.ai", "http://[2001:db8::1]:80"),
        ({"HTTPS_PROXY": ""}, "https://app.kapso.ai", None),
        ({"HTTPS_PROXY": PROXY}, "http://app.kapso.ai", None),
        ({"HTTP_PROXY": PROXY}, "http://app.kapso.ai", PROXY),
        ({"ALL_PROXY": PROXY}, "https://app.kapso.ai", PROXY),
        (
            {"ALL_PROXY": PROXY, "HTTPS_PROXY": "socks5h://other.example:1080"},
            "https://app.kapso.ai",
            "socks5h://other.example:1080",
        ),
        *(
            ({"ALL_PROXY": PROXY}, url, None)
            for url in ("http://127.0.0.1:8000", "https://localhost/x", "http://[::1]:80", "http://127.9.9.9")
        ),
        ({"ALL_PROXY": PROXY}, "ssh://git@git.example/a/b", None),
        ({"ALL_PROXY": PROXY}, "git@git.example:a/b", None),
    ],
)
def test_the_proxy_follows_the_scheme_and_never_leads_to_loopback(
    variables: dict[str, str], url: str, proxy: str | None
) -> None:
    """Lower case counts first, an empty variable is none, and a proxy without a scheme speaks http, as with curl.

    Its port is spelled out, since git's library would take another default than ours.
    """
    assert read_network(variables).proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("entry", "reached_directly", "through_the_proxy"),
    [
        ("*", ["https://app.kapso.ai", "https://10.1.2.3"], []),
        ("acme.example", ["https://acme.example", "https://git.ACME.example/x"], ["https://not-acme.example", "https://example"]),
        (".acme.example", ["https://git.acme.example", "https://acme.example"], ["https://app.kapso.ai"]),
        ("*.acme.example", ["https://git.acme.example"], ["https://app.kapso.ai"]),
        ("kapso.ai, acme.example", ["https://git.acme.example", "https://app.kapso.ai"], ["https://github.com"]),
        ("kapso.ai acme.example", ["https://git.acme.example", "https://app.kapso.ai"], ["https://github.com"]),
        ("10.0.0.0/8", ["https://10.200.3.4:6443"], ["https://11.0.0.1", "https://ten.example"]),
        ("192.168.1.7", ["https://192.168.1.7/api"], ["https://192.168.1.70"]),
        ("[2001:db8::1]", ["https://[2001:db8::1]/a"], ["https://[2001:db8::2]/a"]),
        ("2001:db8::/32", ["https://[2001:db8:7::2]/a"], ["https://[2001:db9::2]/a"]),
        ("[2001:db8::]/32", ["https://[2001:db8:7::2]/a"], ["https://[2001:db9::2]/a"]),
        ("git.acme.example:8443", ["https://git.acme.example:8443/x"], ["https://git.acme.example/x"]),
        ("git.acme.example:443", ["https://git.acme.example/x"], ["https://git.acme.example:8443/x"]),
        (".svc,.cluster.local", ["https://gitea.git.svc", "https://gitea.git.svc.cluster.local."], ["https://svc.example"]),
        ("", [], ["https://app.kapso.ai"]),
    ],
)  # fmt: skip
def test_no_proxy_names_hosts_domains_networks_and_ports(
    entry: str, reached_directly: list[str], through_the_proxy: list[str]
) -> None:
    """As curl and Kubernetes write them."""
    network = read_network({"HTTPS_PROXY": PROXY, "NO_PROXY": entry})
    assert [network.proxy_for(url) for url in reached_directly] == [None] * len(reached_directly)
    assert [network.proxy_for(url) for url in through_the_proxy] == [PROXY] * len(through_the_proxy)


@pytest.mark.parametrize(
    "value",
    [
        "ftp://proxy.example",
        "http://",
        "http://proxy.example:port",
        "http://u:s3cr3t@[::1",
        "://",
        "http://u:s3cr3t@a\n.example",
    ],
)
def test_a_proxy_that_is_no_address_is_an_error_that_does_not_show_it(value: str) -> None:
    """It may hold a password; the variable is named."""
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        read_network({"HTTPS_PROXY": value})
    assert "s3cr3t" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "GIT_SSL_CAINFO"])
@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_authorities_is_an_error(name: str, content: bytes | None, tmp_path: Path) -> None:
    """It is never replaced in silence by what the system or a package trusts."""
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_bytes(content)
    for value in (path, tmp_path):
        with pytest.raises(ConfigError, match=f"{name} {value}") as caught:
            read_network({name: str(value)})
        assert name in str(caught.value.hint)


def test_a_folder_without_authorities_is_an_error(tmp_path: Path) -> None:
    """Missing, or with names that OpenSSL does not look for."""
    for value in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match=f"SSL_CERT_DIR {value}") as caught:
            read_network({"SSL_CERT_DIR": str(value)})
        assert "openssl rehash" in str(caught.value.hint)


def test_an_empty_network_variable_is_one_that_is_not_set() -> None:
    """Compose files and CI systems write them."""
    names = ("HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK")
    assert read_network(dict.fromkeys(names, "")) == read_network({})


def test_relative_paths_are_those_of_our_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git and ssh run in another one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_bytes(Path(certifi.where()).read_bytes())
    (tmp_path / "0123abcd.0").symlink_to("ca.pem")
    variables = {
        "SSL_CERT_FILE": "ca.pem",
        "GIT_SSL_CAINFO": "./ca.pem",
        "SSL_CERT_DIR": f".:{tmp_path}",
        "SSH_AUTH_SOCK": "agent",
    }
    network = read_network(variables)
    assert (network.cert_file, network.git_ca_info) == (f"{tmp_path}/ca.pem", f"{tmp_path}/ca.pem")
    assert (network.cert_dir, network.ssh_agent) == (f"{tmp_path}:{tmp_path}", f"{tmp_path}/agent")
