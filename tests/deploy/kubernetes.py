"""Runs a real kube-apiserver with its etcd, built from source once. Nothing runs Pods."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

MODULE = Path(__file__).with_name("control_plane")
PROGRAMS = ("etcd", "kube-apiserver")
BUILD_TIMEOUT = 3600
START_TIMEOUT = 120.0

KINDS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Lease": "leases",
    "NetworkPolicy": "networkpolicies",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running API server: its URL, the file of its certificate authority, and the token of an administrator."""

    url: str
    ca_file: Path
    token: str

    def client(self, token: str | None = None) -> httpx.Client:
        """Return a client with a token, the administrator's by default."""
        verify = ssl.create_default_context(cafile=self.ca_file)
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=verify, timeout=30, trust_env=False)


def address(document: Mapping[str, Any], namespace: str, *, collection: bool = False) -> str:
    """Return the path of an object, or of the collection it belongs to."""
    version, kind = document["apiVersion"], document["kind"]
    base = f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/{namespace}/{KINDS[kind]}"
    return base if collection else f"{base}/{document['metadata']['name']}"


def build() -> Path:
    """Return the folder with both programs, built into the user's cache; skips where that cannot be."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed, which builds the kube-apiserver")
    version = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "kapso-sync-tests" / f"control-plane-{version}"
    if not all((folder / name).exists() for name in PROGRAMS):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", f"{folder}/", *(f"./{name}" for name in PROGRAMS)]
        ran = subprocess.run(command, cwd=MODULE, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT)
        if ran.returncode:
            pytest.skip(f"the kube-apiserver cannot be built: {ran.stderr.strip()[-300:]}")
    return folder


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run etcd and the API server on loopback, with everything they keep in ``folder``."""
    programs = build()
    etcd_port, peer_port, port = _free_ports(3)
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    key = folder / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    etcd = [
        str(programs / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
        f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
        "--unsafe-no-fsync",
    ]
    server = [
        str(programs / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--cert-dir={folder / 'certificates'}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--endpoint-reconciler-type=none",
    ]
    with _process(etcd, folder / "etcd.log"), _process(server, folder / "kube-apiserver.log") as running:
        found = Cluster(f"https://127.0.0.1:{port}", folder / "certificates" / "apiserver.crt", token)
        _wait_until_ready(found, running, folder / "kube-apiserver.log")
        yield found


def _wait_until_ready(found: Cluster, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        assert running.poll() is None, log.read_text(errors="replace")[-2000:]
        with contextlib.suppress(httpx.TransportError, OSError), found.client() as client:
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as running:
        try:
            yield running
        finally:
            running.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in found]
