"""The API server's answers over real HTTP: what each means, and that credentials are read again."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kapso_sync.daemon.lease import Lease
from kapso_sync.daemon.lease_api import KubeAccess, KubeLeaseApi, find_access
from kapso_sync.errors import ConfigError, LeaseConflict, LeaseError, LeaseForbidden, LeaseMissing
from kapso_sync.settings import load_settings
from tests.lease_server import TOKEN, LeaseServer, lease_server

WALL = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def kube() -> Iterator[LeaseServer]:
    with lease_server() as running:
        yield running


@pytest.fixture
def access(kube: LeaseServer, tmp_path: Path) -> KubeAccess:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return KubeAccess(kube.url, "apps", "kapso-sync", tmp_path / "token")


def claimed(lease: Lease) -> Lease:
    return lease.claimed("a", WALL, 15.0)


async def test_a_lease_is_created_read_updated_and_annotated(kube: LeaseServer, access: KubeAccess) -> None:
    """With the four verbs that the Role allows, and a User-Agent for the audit log."""
    api = KubeLeaseApi(access, "replica")
    assert await api.read(2) is None
    created = await api.create(claimed, 2)
    assert created.holder == "a"
    annotated = await api.annotate({"kapso-sync/webhook": "1", "kapso-sync/none": None}, 2)
    assert (annotated.annotations, annotated.holder) == ({"kapso-sync/webhook": "1"}, "a")
    updated = await api.replace(annotated.released(WALL), 2)
    assert (updated.holder, kube.holder, kube.annotations) == ("", "", {"kapso-sync/webhook": "1"})
    assert await api.read(2) == updated
    assert kube.methods("replica") == ["GET", "POST", "PATCH", "PUT", "GET"]
    await api.close()


async def test_an_update_of_an_older_version_is_a_conflict(kube: LeaseServer, access: KubeAccess) -> None:
    """The resourceVersion goes with each update; a second Lease of the name is a conflict as well."""
    api = KubeLeaseApi(access, "replica")
    first = await api.create(claimed, 2)
    kube.annotate("example.com/x", "1")
    with pytest.raises(LeaseConflict):
        await api.replace(claimed(first), 2)
    with pytest.raises(LeaseConflict):
        await api.create(claimed, 2)
    without = {**first.document, "metadata": {"name": "kapso-sync"}}
    with pytest.raises(LeaseError, match="no resourceVersion"):
        await api.replace(Lease(without), 2)
    assert kube.annotations == {"example.com/x": "1"}
    await api.close()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + TOKEN.encode(), TOKEN.encode() + b"\n"])
async def test_a_token_may_have_a_byte_order_mark_and_a_line_end(
    kube: LeaseServer, access: KubeAccess, tmp_path: Path, content: bytes
) -> None:
    """Neither is part of it."""
    (tmp_path / "token").write_bytes(content)
    api = KubeLeaseApi(replace(access, token_file=tmp_path / "token"), "replica")
    try:
        assert await api.read(2) is None
    finally:
        await api.close()


@pytest.mark.parametrize("content", [b"to\xc3\xa9ken", b"one\ntwo", b"\xff\xfe"])
async def test_a_token_that_no_header_can_carry_is_an_error_that_names_the_file(
    kube: LeaseServer, access: KubeAccess, tmp_path: Path, content: bytes
) -> None:
    """And never the token."""
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(LeaseError) as caught:
        await KubeLeaseApi(replace(access, token_file=tmp_path / "token"), "replica").read(2)
    assert str(tmp_path / "token") in caught.value.message
    assert "ken" not in caught.value.message.replace("token", "")


async def test_a_rotated_token_is_used_with_the_next_call(kube: LeaseServer, access: KubeAccess) -> None:
    """Kubernetes replaces the mounted file; the old token is refused, and named by its file alone."""
    api = KubeLeaseApi(access, "replica")
    await api.create(claimed, 2)
    kube.token = "the-next-token"
    with pytest.raises(LeaseForbidden) as caught:
        await api.read(2)
    assert str(access.token_file) in str(caught.value.hint)
    assert TOKEN not in f"{caught.value.message} {caught.value.hint}"
    assert access.token_file is not None
    access.token_file.write_text("the-next-token")
    assert (await api.read(2)) is not None
    await api.close()


@pytest.mark.parametrize(("method", "verb"), [("GET", "get"), ("POST", "create"), ("PUT", "update"), ("PATCH", "patch")])
async def test_403_names_the_verb_and_the_object(kube: LeaseServer, access: KubeAccess, method: str, verb: str) -> None:
    """So that the Role can be mended from the log line alone."""
    api = KubeLeaseApi(access, "replica")
    lease = await api.create(claimed, 2) if method != "POST" else Lease({})
    kube.fault = lambda asked, _: 403 if asked == method else None
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "GET": lambda: api.read(2),
        "POST": lambda: api.create(claimed, 2),
        "PUT": lambda: api.replace(claimed(lease), 2),
        "PATCH": lambda: api.annotate({}, 2),
    }
    with pytest.raises(LeaseForbidden) as caught:
        await calls[method]()
    assert f"{verb} of the Lease apps/kapso-sync answered 403" in caught.value.message
    assert f"`{verb}` of `leases` in `coordination.k8s.io`" in str(caught.value.hint)
    await api.close()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_api_server_in_trouble_is_an_error(kube: LeaseServer, access: KubeAccess, status: int) -> None:
    """Never taken for a Lease that is not there."""
    kube.fault = lambda *_: status
    api = KubeLeaseApi(access, "replica")
    with pytest.raises(LeaseError, match=str(status)) as caught:
        await api.read(2)
    assert type(caught.value) is LeaseError
    await api.close()


async def test_a_hanging_api_server_is_given_up_in_time(kube: LeaseServer, access: KubeAccess) -> None:
    """And the next call works."""
    api = KubeLeaseApi(access, "replica")
    kube.fault = lambda *_: 0
    with pytest.raises(LeaseError, match=r"no answer within 0\.2 s"):
        await api.read(0.2)
    kube.fault = lambda *_: None
    assert await api.read(2) is None
    await api.close()


async def test_what_is_missing_is_told_apart(kube: LeaseServer, access: KubeAccess, tmp_path: Path) -> None:
    """A Lease, its namespace, the token's file, the server."""
    api = KubeLeaseApi(access, "replica")
    with pytest.raises(LeaseMissing):
        await api.annotate({"kapso-sync/webhook": "1"}, 2)
    await api.close()
    elsewhere = KubeLeaseApi(replace(access, namespace="nowhere"), "replica")
    with pytest.raises(LeaseError, match="no namespace nowhere"):
        await elsewhere.create(claimed, 2)
    await elsewhere.close()
    with pytest.raises(LeaseError, match=r"token .* cannot be read"):
        await KubeLeaseApi(replace(access, token_file=tmp_path / "gone"), "replica").read(2)
    with pytest.raises(LeaseError):
        await KubeLeaseApi(replace(access, url="http://127.0.0.1:9"), "replica").read(2)
    assert kube.methods() == ["PATCH", "POST"]


def test_a_pod_finds_everything_in_its_service_account(tmp_path: Path) -> None:
    """The address in its environment, the rest in the mounted folder; settings come first."""
    for name, text in {"token": TOKEN, "ca.crt": "pem", "namespace": "apps\n"}.items():
        (tmp_path / name).write_text(text)
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443", "KAPSO_SYNC_LEASE": "flows"}
    found = find_access(load_settings({}, environment=pod), tmp_path)
    assert found == KubeAccess("https://10.0.0.1:6443", "apps", "flows", tmp_path / "token", tmp_path / "ca.crt")
    pod |= {"KUBERNETES_SERVICE_HOST": "fd00::1", "KAPSO_SYNC_LEASE_NAMESPACE": "team", "KAPSO_SYNC_KUBE_TOKEN_FILE": "/token"}
    found = find_access(load_settings({}, environment=pod), tmp_path)
    assert found is not None
    assert (found.url, found.namespace, found.token_file) == ("https://[fd00::1]:6443", "team", Path("/token"))
    assert find_access(load_settings({}, environment={}), tmp_path) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "there is no Kubernetes here"),
        ({"KAPSO_SYNC_KUBE_API": "http://10.0.0.1"}, "in the clear"),
        ({"KAPSO_SYNC_KUBE_API": "10.0.0.1:6443"}, "it is not an http.* URL"),
        ({"KAPSO_SYNC_KUBE_API": "https://user:secret@10.0.0.1"}, "it carries a user name or password"),
        ({"KAPSO_SYNC_KUBE_API": "https://10.0.0.1"}, "the namespace of the Lease flows is not known"),
        ({"KAPSO_SYNC_LEASE": "Not A Name"}, "expected a name"),
    ],
)
def test_access_that_cannot_work_is_a_config_error(tmp_path: Path, values: dict[str, str], message: str) -> None:
    """Before anything starts; no password is repeated."""
    with pytest.raises(ConfigError, match=message) as caught:
        find_access(load_settings({}, environment={"KAPSO_SYNC_LEASE": "flows", **values}), tmp_path)
    assert "secret" not in caught.value.message


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A key, and a certificate for loopback that is its own authority, as `kubeadm` may make it: without a key identifier."""
    key, pem = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "subjectKeyIdentifier=none"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    return key, pem


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe\0", None])
async def test_an_authority_that_cannot_be_read_is_an_error_that_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    """A pipe without a writer as well, which would block."""
    mounted, token = tmp_path / "ca.crt", tmp_path / "token"
    token.write_text(TOKEN)
    if content is None:
        os.mkfifo(mounted)
    else:
        mounted.write_bytes(content)
    with pytest.raises(LeaseError, match=r"ca\.crt"):
        await KubeLeaseApi(KubeAccess("https://127.0.0.1:1", "apps", "kapso-sync", token, mounted), "replica").read(5)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_the_clusters_authority_is_checked_and_read_again(tmp_path: Path) -> None:
    """Another authority is refused, the token is not sent to it, and a replaced file holds with the next call."""
    (key, pem), (_, other) = certificate(tmp_path, "cluster"), certificate(tmp_path, "other")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem, key)
    mounted, token = tmp_path / "ca.crt", tmp_path / "token"
    mounted.write_bytes(other.read_bytes())
    token.write_text(TOKEN)
    with lease_server(tls) as running:
        api = KubeLeaseApi(KubeAccess(running.url, "apps", "kapso-sync", token, mounted), "replica")
        with pytest.raises(LeaseError, match="certificate"):
            await api.read(5)
        assert running.requests == []
        mounted.write_bytes(b"\xef\xbb\xbf# gr\xc3\xbc\xc3\x9fe\n" + pem.read_bytes())
        assert await api.read(5) is None
        await api.close()
