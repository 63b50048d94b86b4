"""The Kubernetes manifests as kustomize renders them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = "base"
SIDECARS = ("overlays/sidecar-git", "overlays/sidecar-git-sync")
KUSTOMIZATIONS = (BASE, *SIDECARS, "overlays/prometheus-operator")
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"


def go_tool(module: str, name: str) -> Path:
    """Return a tool of Go's, installed once into the user's cache."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kapso-sync-tests" / module.replace("/", "-")
    if not (folder / name).exists():
        environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
        ran = subprocess.run(
            ["go", "install", module], env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        if ran.returncode:
            pytest.skip(f"{module} cannot be installed: {ran.stderr.strip()[-200:]}")
    return folder / name


def render(name: str, *, root: Path = DEPLOY / "kubernetes") -> list[Any]:
    """Return the objects of a kustomization, as the real kustomize builds them."""
    tool = go_tool(KUSTOMIZE, "kustomize")
    ran = subprocess.run([str(tool), "build", str(root / name)], capture_output=True, text=True, check=True)
    return [item for item in yaml.safe_load_all(ran.stdout) if item]


def one(documents: list[Any], kind: str) -> Any:
    """Return the only object of a kind."""
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def deployment_of(documents: list[Any]) -> Any:
    """Return the only Deployment."""
    return one(documents, "Deployment")


def pod_of(documents: list[Any]) -> Any:
    """Return the specification of the Deployment's Pods."""
    return deployment_of(documents)["spec"]["template"]["spec"]


def containers_of(pod: Any) -> list[Any]:
    """Return every container of a Pod, sidecars included."""
    return [*pod["containers"], *pod.get("initContainers", ())]


def daemon_of(pod: Any) -> Any:
    """Return the container of kapso-sync."""
    (found,) = [container for container in containers_of(pod) if container["name"] == "kapso-sync"]
    return found


def variables_of(container: Any) -> Mapping[str, str]:
    """Return the variables that a container's manifest spells out."""
    return {variable["name"]: variable["value"] for variable in container["env"]}
