"""Install the programs that kapso-sync is compared with, and say how each is run."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import SCRIPTS
from benchmarks.scene import Scene
from kapso_sync.tools import own_copies

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements" / "bench.txt"
ESBUILD_MISSING = "esbuild is not installed: run `make node_modules/.installed`"


@dataclass(frozen=True, slots=True)
class Others:
    """Where the programs are; ``missing`` says why those from PyPI could not be installed, and is empty if they are there."""

    folder: Path
    missing: str = ""

    @property
    def python(self) -> str:
        """The interpreter of their environment."""
        return str(self.folder / "bin" / "python")

    def kapso_push(self, functions: Path, url: str) -> list[str]:
        """Return the command that pushes a folder with the classes of Kapso's own CLI."""
        return [self.python, str(SCRIPTS / "kapso_push.py"), str(functions), url]

    def octodns_plan(self, config: Path) -> list[str]:
        """Return the command that plans with octoDNS, and writes nothing."""
        return [str(self.folder / "bin" / "octodns-sync"), f"--config-file={config}", "--quiet"]


def install(folder: Path) -> Others:
    """Install the pinned programs into an environment of their own below ``folder``, unless they are there."""
    environment, digest = folder / "venv", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = environment / ".installed"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return Others(environment)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--retries=1", "--timeout=10"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(environment)],
        [*pip, "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(REQUIREMENTS)],
    ):
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if ran.returncode:
            said = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            return Others(environment, f"not installed: {said[0].removeprefix('ERROR: ')[:160]}")
    stamp.write_text(digest, encoding="utf-8")
    return Others(environment)


def pinned(name: str) -> str:
    """Return the version of a package that is compared; raises ValueError if none is pinned."""
    found = re.search(rf"^{name}==([^ ;\\]+)", REQUIREMENTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"{name} is not in {REQUIREMENTS.name}")
    return found[1]


def find_esbuild() -> Path | None:
    """Return our own copy of esbuild, or None."""
    return next((path for path in own_copies(ROOT / "kapso_sync", Path(sys.prefix)) if path.is_file()), None)


def kapso_environment(scene: Scene, home: Path) -> dict[str, str]:
    """Return the environment for Kapso's CLI: no error report leaves this machine, and nothing is kept in the user's home."""
    theirs = {"KAPSO_API_KEY": scene.kapso.key, "KAPSO_DISABLE_ERROR_TRACKING": "1", "HOME": str(home)}
    return {**scene.environment(), **theirs}


def write_zone(folder: Path, records: int) -> Path:
    """Write a zone of ``count`` records for octoDNS, equal at its source and its target, and return the configuration."""
    zone = "---\n" + "".join(
        f"record-{number:04d}:\n  ttl: 300\n  type: A\n  value: 192.0.2.{number % 250 + 1}\n" for number in range(records)
    )
    for name in ("source", "target"):
        (folder / name).mkdir(parents=True)
        (folder / name / "example.com.yaml").write_text(zone, encoding="utf-8")
    provider = "{{class: octodns.provider.yaml.YamlProvider, directory: {}}}"
    config = (
        f"---\nproviders:\n  source: {provider.format(folder / 'source')}\n  target: {provider.format(folder / 'target')}\n"
        "zones:\n  example.com.:\n    sources: [source]\n    targets: [target]\n"
    )
    path = folder / "config.yaml"
    path.write_text(config, encoding="utf-8")
    return path
