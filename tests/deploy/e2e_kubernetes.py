"""The manifests before a real API server: `make e2e-kubernetes`, which builds the server and is not a part of `make check`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.kubernetes import Cluster, address, cluster
from tests.deploy.manifests import (
    BASE,
    KUSTOMIZATIONS,
    SIDECARS,
    daemon_of,
    deployment_of,
    pod_of,
    render,
    variables_of,
)
from tests.e2e.test_daemon import Running, daemon, live, until
from tests.program import answering, write_functions
from tests.served import served

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
APPLY = {"Content-Type": "application/apply-patch+yaml"}


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as running:
        yield running


@pytest.fixture
def admin(kubernetes: Cluster) -> Iterator[httpx.Client]:
    with kubernetes.client() as client:
        yield client


def new_namespace(admin: httpx.Client, name: str) -> str:
    """Create a namespace at the restricted Pod Security level, and return its name."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    assert admin.post("/api/v1/namespaces", json=body).status_code == 201
    return name


def apply(admin: httpx.Client, documents: list[Any], namespace: str, **options: str) -> None:
    """Apply every object as `kubectl apply --server-side` does, strictly; a warning is a failure."""
    for document in documents:
        if document["kind"] == "PodMonitor":
            continue  # the operator's own kind, which this API server does not know
        asked = {"fieldManager": "tests", "fieldValidation": "Strict", **options}
        answer = admin.patch(address(document, namespace), params=asked, headers=APPLY, json=document)
        assert answer.status_code in (200, 201), answer.text
        assert "warning" not in answer.headers, answer.headers["warning"]


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_every_manifest_is_accepted_at_the_restricted_level(admin: httpx.Client, name: str) -> None:
    """Validated by a dry run, then applied twice; the level is enforced for Pods, so the Pod of each Deployment is created."""
    documents = render(name)
    namespace = new_namespace(admin, f"accepted-{name.rpartition('/')[2]}")
    apply(admin, documents, namespace, dryRun="All")
    apply(admin, documents, namespace)
    apply(admin, documents, namespace)
    template = deployment_of(documents)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "one"}, "spec": template["spec"]}
    path = address(pod, namespace, collection=True)
    admitted = admin.post(path, params={"fieldValidation": "Strict"}, json=pod)
    assert admitted.status_code == 201, admitted.text
    daemon = daemon_of(admitted.json()["spec"])
    tokens = [mount["name"] for mount in daemon["volumeMounts"] if "serviceaccount" in mount["mountPath"]]
    assert tokens == ["kube-token"], "admission added no mount of its own"
    others = [container for container in admitted.json()["spec"]["containers"] if container["name"] != "kapso-sync"]
    assert all("serviceaccount" not in mount["mountPath"] for other in others for mount in other.get("volumeMounts", ()))


def test_the_restricted_level_refuses_a_pod_that_breaks_it(admin: httpx.Client) -> None:
    """The control: the level is in force here."""
    namespace = new_namespace(admin, "refused")
    apply(admin, render(BASE), namespace)
    template = deployment_of(render(BASE))["spec"]["template"]
    template["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": template["spec"]}
    answer = admin.post(address(pod, namespace, collection=True), json=pod)
    assert answer.status_code == 403
    assert "PodSecurity" in answer.text


def service_account_token(admin: httpx.Client, namespace: str, account: str) -> str:
    """Return a token as the projected volume of a Pod would hold it."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    answer = admin.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", json=body)
    token: str = answer.json()["status"]["token"]
    return token


def test_two_daemons_with_the_role_of_the_manifests_take_turns(
    kubernetes: Cluster, admin: httpx.Client, tmp_path: Path
) -> None:
    """One writes, and is suspended by way of the other; when it ends, that one takes over, and writes what was saved."""
    documents = render(BASE)
    namespace = new_namespace(admin, "replicas")
    apply(admin, documents, namespace)
    (tmp_path / "token").write_text(service_account_token(admin, namespace, pod_of(documents)["serviceAccountName"]))
    folder = tmp_path / "functions"
    write_functions(folder, {"greet": answering("one")})
    with served() as kapso:
        environment = {
            "KAPSO_SYNC_OWNER": "acme/flows",
            "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
            "KAPSO_SYNC_ADMIN_TOKEN": "admin-token-of-this-test",
            "KAPSO_SYNC_LEASE": variables_of(daemon_of(pod_of(documents)))["KAPSO_SYNC_LEASE"],
            "KAPSO_SYNC_LEASE_NAMESPACE": namespace,
            "KAPSO_SYNC_KUBE_API": kubernetes.url,
            "KAPSO_SYNC_KUBE_TOKEN_FILE": str(tmp_path / "token"),
            "KAPSO_SYNC_KUBE_CA_FILE": str(kubernetes.ca_file),
        }
        with (
            daemon(str(folder), {**kapso.environment(tmp_path / "one"), **environment}) as first,
            daemon(str(folder), {**kapso.environment(tmp_path / "two"), **environment}) as second,
        ):
            until(lambda: [one for one in (first, second) if one.named("lease.acquired")])
            leader, standby = (first, second) if first.named("lease.acquired") else (second, first)
            until(live(kapso, greet="one"))
            assert standby.named("lease.acquired") == []
            post(standby, "/api/suspend", {"reason": "a freeze"})
            leader.event("suspended")
            write_functions(folder, {"greet": answering("two")})
            leader.process.terminate()
            assert leader.process.wait(20) == 0
            until(lambda: standby.named("lease.acquired"))
            assert standby.status()["suspended"]["reason"] == "a freeze"
            assert live(kapso, greet="one")()
            post(standby, "/api/resume")
            until(live(kapso, greet="two"))


def post(running: Running, path: str, body: object = None) -> None:
    """Ask a daemon as an admin does."""
    headers = {"Authorization": "Bearer admin-token-of-this-test"}
    assert httpx.post(f"{running.url}{path}", json=body, headers=headers, timeout=10, trust_env=False).status_code == 202


@pytest.mark.parametrize("name", [BASE, *SIDECARS])
def test_the_role_allows_the_one_lease_and_nothing_else(kubernetes: Cluster, admin: httpx.Client, name: str) -> None:
    """With a token of the Pod's own service account: get, create, update and patch of its Lease; no other object, no list."""
    documents = render(name)
    namespace = new_namespace(admin, f"lease-{name.rpartition('/')[2]}")
    apply(admin, documents, namespace)
    pod = pod_of(documents)
    lease_name = variables_of(daemon_of(pod))["KAPSO_SYNC_LEASE"]
    token = service_account_token(admin, namespace, pod["serviceAccountName"])
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": lease_name}}
    leases, own = address(lease, namespace, collection=True), address(lease, namespace)
    patch = {"Content-Type": "application/merge-patch+json"}
    with kubernetes.client(token) as client:
        assert client.get(own).status_code == 404
        assert client.post(leases, json={**lease, "spec": {"holderIdentity": "one"}}).status_code == 201
        read = client.get(own)
        assert read.status_code == 200
        assert client.put(own, json={**read.json(), "spec": {"holderIdentity": "two"}}).status_code == 200
        assert client.patch(own, headers=patch, json={"spec": {"holderIdentity": "three"}}).status_code == 200
        assert client.delete(own).status_code == 403
        assert client.get(leases).status_code == 403
        other = {**lease, "metadata": {"name": "another"}}
        assert admin.post(leases, json=other).status_code == 201
        assert client.get(address(other, namespace)).status_code == 403
        assert client.patch(address(other, namespace), headers=patch, json={"spec": {}}).status_code == 403
        assert client.get(f"/api/v1/namespaces/{namespace}/secrets").status_code == 403
        assert client.get(f"/api/v1/namespaces/{namespace}/secrets/kapso-sync").status_code == 403
