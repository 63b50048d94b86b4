"""Make a wheel for each platform from the one without esbuild, so that TypeScript is built without Node.

The executable is that of the npm package which `package-lock.json` pins, and its sha512 is checked before anything is unpacked.
esbuild is a static Go program: on Linux one runs beside every C library.

    python deploy/release/platform_wheels.py dist/kapso_sync-0.2.0-py3-none-any.whl --into dist
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import io
import json
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wheel.wheelfile import WheelFile  # type: ignore[import-untyped]  # the package is not marked as typed

REGISTRY = "https://registry.npmjs.org"
MAX_TARBALL = 32 * 1024 * 1024
MAX_FILE = 64 * 1024 * 1024
TIMEOUT = 60.0
"""Seconds without a byte after which a download fails."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform by its name in npm, and the platform tags of its wheel: https://packaging.python.org/specifications/."""

    npm: str
    tags: tuple[str, ...]


PLATFORMS = (
    Platform("linux-x64", ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "musllinux_1_1_x86_64")),
    Platform("linux-arm64", ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "musllinux_1_1_aarch64")),
    Platform("darwin-x64", ("macosx_12_0_x86_64",)),
    Platform("darwin-arm64", ("macosx_12_0_arm64",)),
)
"""Go 1.26, which compiled esbuild 0.28, needs macOS 12: https://go.dev/doc/go1.26."""


class WrongPackage(Exception):
    """An npm package is not the one that the lock file pins, or has no such file."""


@dataclass(frozen=True, slots=True)
class LockedPackages:
    """The packages of a `package-lock.json`, and the registry that has them."""

    packages: Mapping[str, Mapping[str, str]]
    registry: str

    @classmethod
    def read(cls, lock: Path, registry: str) -> LockedPackages:
        """Read a lock file."""
        return cls(json.loads(lock.read_text(encoding="utf-8"))["packages"], registry)

    def file(self, package: str, name: str) -> bytes:
        """Download a package and return one of its files; raises `WrongPackage`, or OSError if the registry does not answer."""
        entry = self.packages[f"node_modules/{package}"]
        url = f"{self.registry}/{package}/-/{package.rpartition('/')[2]}-{entry['version']}.tgz"
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - the registry's own scheme
            tarball = answer.read(MAX_TARBALL + 1)
        algorithm, _, wanted = entry["integrity"].partition("-")
        got = base64.b64encode(hashlib.sha512(tarball).digest()).decode("ascii")
        if algorithm != "sha512" or not hmac.compare_digest(wanted, got):
            raise WrongPackage(f"{url} has the hash sha512-{got}, and the lock file wants {entry['integrity']}")
        with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.name == f"package/{name}" and member.isfile() else None
                if source is not None and member.size <= MAX_FILE:
                    return source.read()
        raise WrongPackage(f"{url} has no file {name}")


def make_platform_wheel(pure: Path, platform: Platform, packages: LockedPackages, into: Path) -> Path:
    """Write the wheel of one platform into a folder, and return its path; raises like `LockedPackages.file`."""
    added = {
        "kapso_sync/bin/esbuild": (packages.file(f"@esbuild/{platform.npm}", "bin/esbuild"), 0o755),
        "kapso_sync/bin/LICENSE-esbuild.md": (packages.file("esbuild", "LICENSE.md"), 0o644),
    }
    name = pure.name.removesuffix("any.whl") + ".".join(platform.tags) + ".whl"
    with tempfile.TemporaryDirectory() as scratch, WheelFile(pure) as wheel:
        wheel.extractall(scratch)  # noqa: S202 - we built it
        root = Path(scratch)
        for member in wheel.infolist():
            (root / member.filename).chmod(member.external_attr >> 16 & 0o777)
        for path, (content, mode) in added.items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_bytes(content)
            (root / path).chmod(mode)
        metadata = root / wheel.dist_info_path / "WHEEL"
        metadata.write_text(_tagged(metadata.read_text(encoding="utf-8"), platform.tags), encoding="utf-8")
        (root / wheel.record_path).unlink()
        with WheelFile(into / name, "w") as made:
            made.write_files(scratch)
    return into / name


def _tagged(metadata: str, tags: Sequence[str]) -> str:
    """Return the text of a wheel's `WHEEL` file for platforms: it holds a program of theirs, so it is not pure."""
    lines = [line for line in metadata.splitlines() if not line.startswith(("Tag:", "Root-Is-Purelib:"))]
    return "\n".join([*lines, "Root-Is-Purelib: false", *(f"Tag: py3-none-{tag}" for tag in tags), ""])


def main(arguments: Sequence[str]) -> int:
    """Make the wheels of all platforms, or of those that are named; print each path."""
    parser = argparse.ArgumentParser(description="Make a wheel with esbuild for each platform.")
    parser.add_argument("wheel", type=Path, help="the wheel for every platform, as `make dist` builds it")
    parser.add_argument("--into", type=Path, default=Path("dist"))
    parser.add_argument("--lock", type=Path, default=Path(__file__).parents[2] / "package-lock.json")
    parser.add_argument("--registry", default=REGISTRY)
    parser.add_argument("--platform", action="append", choices=[platform.npm for platform in PLATFORMS])
    options = parser.parse_args(arguments)
    packages = LockedPackages.read(options.lock, options.registry)
    options.into.mkdir(parents=True, exist_ok=True)
    for platform in PLATFORMS:
        if not options.platform or platform.npm in options.platform:
            try:
                print(make_platform_wheel(options.wheel, platform, packages, options.into))
            except (WrongPackage, OSError) as error:
                print(f"{platform.npm}: {error}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
