"""Kubernetes manifests: valid, restricted, and safe with several replicas. `make e2e-kubernetes` asks a real API server."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from kapso_sync.settings import load_settings
from tests.deploy.manifests import (
    BASE,
    DEPLOY,
    KUSTOMIZATIONS,
    SIDECARS,
    containers_of,
    daemon_of,
    deployment_of,
    one,
    pod_of,
    render,
    variables_of,
)

pytestmark = pytest.mark.e2e
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Any]]:
    return {name: render(name) for name in KUSTOMIZATIONS}


def test_kubernetes_manifests_are_valid(rendered: dict[str, list[Any]]) -> None:
    """Strictly, as the real kustomize renders them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kubernetes_validate  # type: ignore[import-untyped]
    for documents in rendered.values():
        for document in documents:
            if document["kind"] != "PodMonitor":
                kubernetes_validate.validate(document, "1.33", strict=True)


def test_the_base_needs_no_custom_resource(rendered: dict[str, list[Any]]) -> None:
    """`kubectl apply -k base` works in any cluster; the Prometheus operator's object comes from a component."""
    kinds = {name: sorted(document["kind"] for document in documents) for name, documents in rendered.items()}
    assert kinds[BASE] == [
        *("ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Role", "RoleBinding", "Service"),
        "ServiceAccount",
    ]
    assert kinds["overlays/prometheus-operator"] == sorted([*kinds[BASE], "PodMonitor"])
    for name in SIDECARS:
        assert kinds[name] == ["Deployment", "PodDisruptionBudget", "Role", "RoleBinding", "ServiceAccount"]


def test_pods_meet_the_restricted_pod_security_standard(rendered: dict[str, list[Any]]) -> None:
    """Field by field, for every container, with a read-only root file system besides."""
    for documents in rendered.values():
        pod = pod_of(documents)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in containers_of(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert "privileged" not in context
            assert {"requests", "limits"} <= set(container["resources"])
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= {"emptyDir", "secret", "persistentVolumeClaim", "projected"}
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


def test_several_replicas_share_one_lease_and_one_replica_has_the_disk(rendered: dict[str, list[Any]]) -> None:
    """A sidecar rolls like its application, which Pods that overlap allow; the base waits for its disk. All take the Lease."""
    for name, documents in rendered.items():
        found = deployment_of(documents)["spec"]
        values = variables_of(daemon_of(pod_of(documents)))
        assert values["KAPSO_SYNC_LEASE"]
        claims = [volume for volume in pod_of(documents)["volumes"] if "persistentVolumeClaim" in volume]
        if name in SIDECARS:
            rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
            assert (found["replicas"], found["strategy"], claims) == (2, rolling, [])
            budget = one(documents, "PodDisruptionBudget")["spec"]
            assert (budget["maxUnavailable"], budget["selector"]) == (1, found["selector"])
        else:
            assert (found["replicas"], found["strategy"], len(claims)) == (1, {"type": "Recreate"}, 1)


def test_the_role_allows_what_the_lease_needs_and_no_more(rendered: dict[str, list[Any]]) -> None:
    """Get, update and patch of the Lease that the daemon is told to take; create, which no name can limit."""
    for documents in rendered.values():
        pod = pod_of(documents)
        role, binding, account = (one(documents, kind) for kind in ("Role", "RoleBinding", "ServiceAccount"))
        leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
        name = variables_of(daemon_of(pod))["KAPSO_SYNC_LEASE"]
        assert role["rules"] == [
            {**leases, "resourceNames": [name], "verbs": ["get", "update", "patch"]},
            {**leases, "verbs": ["create"]},
        ]
        assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["metadata"]["name"]}]
        assert pod["serviceAccountName"] == account["metadata"]["name"]


def test_only_the_container_of_kapso_sync_sees_the_token(rendered: dict[str, list[Any]]) -> None:
    """Where the program looks for it, with the authority and the namespace; neither application nor git-sync has the mount."""
    for documents in rendered.values():
        pod = pod_of(documents)
        assert pod["automountServiceAccountToken"] is False
        assert one(documents, "ServiceAccount")["automountServiceAccountToken"] is False
        (volume,) = [volume for volume in pod["volumes"] if "projected" in volume]
        paths = set()
        for source in volume["projected"]["sources"]:
            ((kind, value),) = source.items()
            paths |= {value["path"]} if kind == "serviceAccountToken" else {item["path"] for item in value["items"]}
        assert paths == {"token", "ca.crt", "namespace"}
        for container in containers_of(pod):
            mounts = [mount for mount in container.get("volumeMounts", ()) if mount["name"] == volume["name"]]
            expected = {"name": volume["name"], "mountPath": TOKEN_FOLDER, "readOnly": True}
            assert mounts == ([expected] if container["name"] == "kapso-sync" else [])


def test_no_mount_lies_inside_another_one(rendered: dict[str, list[Any]]) -> None:
    """A folder for it could not be made in a read-only volume; /var/run is a link to /run in the image."""
    for documents in rendered.values():
        for container in containers_of(pod_of(documents)):
            mounts = container.get("volumeMounts", ())
            places = [PurePosixPath(mount["mountPath"].replace("/var/run/", "/run/")) for mount in mounts]
            assert not [(one, other) for one in places for other in places if one != other and one.is_relative_to(other)]
            assert all("subPath" not in mount for mount in mounts), "a changed secret would not reach the running daemon"


def test_functions_secrets_are_read_from_their_own_mount(rendered: dict[str, list[Any]]) -> None:
    """Who pushes chooses names below that folder: neither the token nor the key is there."""
    for documents in rendered.values():
        daemon = daemon_of(pod_of(documents))
        folder = load_settings({}, environment=variables_of(daemon)).secrets_dir
        assert folder == Path("/run/function-secrets")
        mounts = {mount["name"]: Path(mount["mountPath"]) for mount in daemon["volumeMounts"]}
        assert [name for name, path in mounts.items() if path.is_relative_to(folder)] == ["function-secrets"]


def test_where_backups_go_with_the_pod_drift_is_reported_and_nothing_deleted(rendered: dict[str, list[Any]]) -> None:
    """Without a volume that stays there would be no copy of what is overwritten. The probes never depend on git or Kapso."""
    for name, documents in rendered.items():
        daemon = daemon_of(pod_of(documents))
        probes = {probe: daemon[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert probes == {"startupProbe": "/readyz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
        values = variables_of(daemon)
        if name in SIDECARS:
            assert daemon["restartPolicy"] == "Always", "a native sidecar"
            assert (values["KAPSO_SYNC_DRIFT"], values["KAPSO_SYNC_PRUNE"]) == ("report", "false")
        else:
            assert not {"KAPSO_SYNC_DRIFT", "KAPSO_SYNC_PRUNE"} & values.keys()


def test_selectors_mean_our_own_pods(rendered: dict[str, list[Any]]) -> None:
    """An empty selector would mean every Pod of the namespace: its traffic would be cut, and its Pods scraped."""
    found = 0
    for documents in rendered.values():
        labels = deployment_of(documents)["spec"]["template"]["metadata"]["labels"]
        for document in documents:
            spec = document.get("spec", {})
            selector = spec.get("podSelector", spec.get("selector"))
            if selector is not None:
                assert selector.get("matchLabels", selector) == labels, document["kind"]
                found += 1
    assert found == 3 + 4 + 2 * 2, "of the base, of the base with a PodMonitor, of two sidecars"


def test_the_network_policy_lets_the_daemon_reach_what_it_needs(rendered: dict[str, list[Any]]) -> None:
    """Names, https, ssh, and the API server at its own port."""
    policy = one(rendered[BASE], "NetworkPolicy")["spec"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443, 6443, 22}
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [8321]


def test_an_edit_of_the_settings_starts_a_new_pod(rendered: dict[str, list[Any]], tmp_path: Path) -> None:
    """The ConfigMap's name ends in a hash of its content; the Role's names stay as they are."""
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    settings = tmp_path / "kubernetes" / BASE / "settings.env"
    settings.write_text(settings.read_text().replace("acme/flows", "acme/others"))
    edited = render(BASE, root=tmp_path / "kubernetes")
    names = []
    for documents in (rendered[BASE], edited):
        name = one(documents, "ConfigMap")["metadata"]["name"]
        assert daemon_of(pod_of(documents))["envFrom"] == [{"configMapRef": {"name": name}}]
        assert one(documents, "Role")["rules"][0]["resourceNames"] == ["kapso-sync-leader"]
        names.append(name)
    assert names[0] != names[1]
    assert one(edited, "ConfigMap")["data"]["KAPSO_SYNC_SOURCE"] == "https://github.com/acme/others"


def test_a_generated_secret_does_not_rename_the_lease(tmp_path: Path) -> None:
    """In kustomize, `resourceNames` are names of ConfigMaps and Secrets: the Lease has a name that no generator here uses."""
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "mine"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        "resources: [../base]\nsecretGenerator:\n  - name: kapso-sync\n    literals: [api-key=k]\n"
        "configMapGenerator:\n  - name: kapso-sync-settings\n    behavior: merge\n    literals: [KAPSO_SYNC_BRANCH=live]\n"
    )
    documents = render("mine", root=tmp_path / "kubernetes")
    secret = one(documents, "Secret")["metadata"]["name"]
    assert [volume["secret"]["secretName"] for volume in pod_of(documents)["volumes"] if volume["name"] == "secrets"] == [
        secret
    ]
    assert one(documents, "Role")["rules"][0]["resourceNames"] == ["kapso-sync-leader"]
    assert one(documents, "ConfigMap")["data"]["KAPSO_SYNC_BRANCH"] == "live"
