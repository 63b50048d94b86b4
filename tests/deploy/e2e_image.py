"""The image, built and run as the manifests run it, with docker or podman: `make image-test`, not a part of `make check`."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.test_daemon import live, until
from tests.program import answering, git, write_functions
from tests.served import Served, served

ROOT = Path(__file__).parents[2]
TAG = "kapso-sync:image-test"
TYPED = """const text: string = 'typed';
export default async function handler(): Promise<Response> {
  return new Response(text);
}
"""
HARDENED = [
    *("--read-only", "--tmpfs", "/tmp:size=256m,mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "256m", "--memory-swap", "256m", "--network", "host"),
]
UNREACHABLE = ("pinging container registry", "failed to do request", "failed to resolve", "no such host", "i/o timeout")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image, and the program that runs it."""

    engine: str

    def run(
        self, *arguments: str, environment: Mapping[str, str], options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line of kapso-sync to its end."""
        command = [self.engine, "run", "--rm", *HARDENED, *_variables(environment), *options, TAG, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    @contextlib.contextmanager
    def daemon(self, source: Path, environment: Mapping[str, str]) -> Iterator[str]:
        """Run the daemon in the background; yields the container's name."""
        name = f"kapso-sync-{uuid.uuid4().hex[:8]}"
        options = [*HARDENED, *_variables(environment), *_mounted(source)]
        subprocess.run([self.engine, "run", "--detach", "--name", name, *options, TAG, "run", "/source"], check=True)
        try:
            yield name
        finally:
            subprocess.run([self.engine, "rm", "--force", "--volumes", name], check=True, capture_output=True)

    def inspect(self, name: str, template: str) -> str:
        """Return what the engine knows of an image or a container; all of it, as JSON, without a template."""
        command = [self.engine, "inspect", *(["--format", template] if template else []), name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def check_health(self, name: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the image's own HEALTHCHECK in a container, as the engine does."""
        (document,) = json.loads(self.inspect(TAG, ""))
        kind, *check = (document["Config"].get("Healthcheck") or document["Healthcheck"])["Test"]  # docker's place, podman's
        assert kind == "CMD"
        command = [self.engine, "exec", *_variables(environment or {}), name, *check]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def _variables(environment: Mapping[str, str]) -> list[str]:
    return [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]


def _mounted(source: Path, place: str = "/source") -> list[str]:
    return ["--volume", f"{source}:{place}:ro"]


def find_engine() -> str:
    """Return docker or podman, whichever works; skips with what each of them said."""
    said = []
    for engine in ("docker", "podman"):
        if shutil.which(engine) is None:
            said.append(f"{engine} is not installed")
            continue
        ran = subprocess.run([engine, "info"], capture_output=True, text=True, check=False, timeout=60)
        if ran.returncode == 0:
            return engine
        said.append(f"{engine}: {(ran.stderr.strip() or ran.stdout.strip())[-120:]}")
    pytest.skip(f"no container engine works: {'; '.join(said)}")


@pytest.fixture(scope="module")
def image() -> Image:
    engine = find_engine()
    command = [engine, "build", "--tag", TAG, *(["--format", "docker"] if engine == "podman" else []), str(ROOT)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if ran.returncode and any(said in ran.stderr for said in UNREACHABLE):
        pytest.skip(f"the base images cannot be pulled: {ran.stderr.strip()[-200:]}")
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    return Image(engine)


@pytest.fixture
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def source() -> Iterator[Path]:
    """A folder that every user may read; pytest's own lets nobody else in."""
    with TemporaryDirectory(prefix="kapso-sync-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_functions(folder / "functions", {"greet": answering("one")})
        yield folder


def variables(kapso: Served, **more: str) -> dict[str, str]:
    """Return what points a container at the emulator; the state folder stays the image's own."""
    ours = kapso.environment(Path("unused"))
    return {**{name: value for name, value in ours.items() if name != "KAPSO_SYNC_STATE_DIR"}, **more}


def test_a_hardened_container_syncs_plain_code_and_typescript(image: Image, kapso: Served, source: Path) -> None:
    """Read-only root, no capability, 256 MB: esbuild builds, and the state folder and /tmp are all that is written."""
    functions = source / "functions"
    (functions / "typed.ts").write_text(TYPED)
    (functions / "manifest.yaml").write_text("version: 1\nfunctions:\n  greet: {file: greet.js}\n  typed: {file: typed.ts}\n")
    ran = image.run("sync", "/source", environment=variables(kapso), options=_mounted(functions))
    assert ran.returncode == 0, ran.stderr
    assert live(kapso, greet="one")()
    assert "typed" in (kapso.live_code()["typed"] or "")


def test_a_foreign_user_needs_a_state_folder_of_its_own(image: Image, kapso: Served, source: Path) -> None:
    """The image's belongs to 10001: the error names the setting, with which the same user syncs."""
    options = ["--user", "54321:54321", *_mounted(source / "functions")]
    refused = image.run("sync", "/source", environment=variables(kapso), options=options)
    assert refused.returncode == 78, refused.stderr
    assert "it belongs to uid 10001 with mode 0700, and this process is uid 54321" in refused.stderr
    assert "KAPSO_SYNC_STATE_DIR" in refused.stderr
    ran = image.run("sync", "/source", environment=variables(kapso, KAPSO_SYNC_STATE_DIR="/tmp/state"), options=options)
    assert ran.returncode == 0, ran.stderr
    assert live(kapso, greet="one")()


def test_git_reads_https_and_local_repositories(image: Image, kapso: Served, source: Path) -> None:
    """The part of git that is in the image is all that they take: only the refused connection is an error."""
    git(source, "init", "--quiet", "--initial-branch=main")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message", "One")
    ran = image.run("sync", "file:///source", environment=variables(kapso), options=_mounted(source))
    assert ran.returncode == 0, ran.stderr
    assert live(kapso, greet="one")()
    refused = image.run("plan", "https://127.0.0.1:1/flows", environment=variables(kapso))
    assert refused.returncode == 69, refused.stderr
    assert "Failed to connect" in refused.stderr


def test_an_ssh_repository_is_read_with_a_mounted_key(image: Image, kapso: Served, source: Path) -> None:
    """As the image's own user, which passwd names; a user without a name is told what to do."""
    git(source, "init", "--quiet", "--initial-branch=main")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message", "One")
    with ssh_server(source) as (url, files):
        environment = variables(
            kapso, KAPSO_SYNC_GIT_SSH_KEY_FILE="/ssh/key", KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE="/ssh/known_hosts"
        )
        ran = image.run("sync", url, environment=environment, options=_mounted(files, "/ssh"))
        assert ran.returncode == 0, ran.stderr
        assert live(kapso, greet="one")()
        environment["KAPSO_SYNC_STATE_DIR"] = "/tmp/state"
        unread = image.run("plan", url, environment=environment, options=["--user", "1:1", *_mounted(files, "/ssh")])
        assert unread.returncode == 69, unread.stderr
        assert "it belongs to uid 10001 with mode 0400, and this process is uid 1" in unread.stderr
        # podman writes a line into passwd for whoever it runs, unless it is told not to; docker never does.
        stranger = ["--user", "54321:54321", *(["--passwd=false"] if image.engine == "podman" else [])]
        nameless = image.run("plan", url, environment=environment, options=[*stranger, *_mounted(files, "/ssh")])
        assert nameless.returncode == 69, nameless.stderr
        assert "run as a user that /etc/passwd lists" in nameless.stderr


def test_the_health_check_follows_the_address_and_sigterm_ends_the_daemon(image: Image, kapso: Served, source: Path) -> None:
    """Healthy at another address than the default, not where nobody listens; exit code 0 in ten seconds, with memory left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = variables(kapso, KAPSO_SYNC_LISTEN=f"127.0.0.1:{port}", KAPSO_SYNC_OWNER="acme/flows")
    with image.daemon(source / "functions", environment) as name:
        until(live(kapso, greet="one"), 60)
        healthy = image.check_health(name)
        assert healthy.returncode == 0, healthy.stdout + healthy.stderr
        wrong = image.check_health(name, {"KAPSO_SYNC_LISTEN": "127.0.0.1:1"})
        assert (wrong.returncode, "no answer at KAPSO_SYNC_LISTEN 127.0.0.1:1" in wrong.stdout) == (1, True)
        assert image.check_health(name, {"KAPSO_SYNC_LISTEN": ""}).returncode == 0
        began = time.monotonic()
        subprocess.run([image.engine, "stop", "--time", "20", name], check=True, capture_output=True)
        assert time.monotonic() - began < 12
        assert image.inspect(name, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"


@contextlib.contextmanager
def ssh_server(repository: Path) -> Iterator[tuple[str, Path]]:
    """Serve a repository with the real sshd; yields its URL, and a folder with the key and the known hosts for uid 10001."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if sshd is None:
        pytest.skip("sshd is not installed")
    if os.getuid() != 0:
        pytest.skip("only root can give a key to the image's user")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with TemporaryDirectory(prefix="kapso-sync-") as name, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        folder = Path(name)
        folder.chmod(0o755)
        for key in ("host", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        (folder / "key").chmod(0o400)
        os.chown(folder / "key", 10001, 10001)
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'key.pub'}\n"
            "PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n"
        )
        with subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL) as server:
            try:
                until(lambda: _answers(port))
                yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}{repository}", folder
            finally:
                server.terminate()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
