"""Check a release before it is published: reproducible, sound, tried on each Python, without a known vulnerability.

Every step says what it saw. A step whose tool or service cannot be reached says that it was skipped, and why; with
`--no-skips`, as in the release workflow, that is a failure.

    make release-check
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"
TYPESCRIPT = "export default async (request: Request): Promise<Response> => new Response('built');\n"


class Failed(Exception):
    """A step found something that keeps this from being released."""


class Skipped(Exception):
    """A step cannot be done here; the text says why."""


@dataclass(frozen=True, slots=True)
class Release:
    """What is checked: a clean copy of the commit, the folder of the tools, and the folder of what is published."""

    tree: Path
    tools: Path
    dist: Path
    scratch: Path
    epoch: str

    @property
    def version(self) -> str:
        """The version in the package."""
        return _version(self.tree)

    def run(self, *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Run a command in the tree and return its output; raises `Failed` with it if the command fails."""
        ran = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.tree,
            env={**os.environ, "SOURCE_DATE_EPOCH": self.epoch} if environment is None else dict(environment),
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise Failed(f"{command[0]} ended with {ran.returncode}:\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}")
        return ran.stdout + ran.stderr

    def tool(self, name: str) -> Path:
        """Return the path of a tool that is pinned in `requirements/release.txt`."""
        return self.tools / name


def _version(tree: Path) -> str:
    found = re.search(
        r'^__version__ = "(.+)"$', (tree / "kapso_sync" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    if found is None:
        raise Failed("kapso_sync/__init__.py has no __version__")
    return found[1]


def check_versions(release: Release) -> str:
    """Every file that names our version names this one, and the changelog has a date for it."""
    version = release.version
    changelog = (release.tree / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(r"^## (.+)$", changelog, re.MULTILINE)
    if heading is None or not re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", heading[1]):
        raise Failed(f"the changelog's first heading is {heading and heading[1]!r}, not `{version} (YYYY-MM-DD)`")
    files = [release.tree / "Dockerfile", *(release.tree / "deploy").rglob("*.yaml")]
    named = {
        (path.relative_to(release.tree).as_posix(), other)
        for path in files
        for other in re.findall(r"(?:ARG VERSION=|image: \S*kapso-sync:)([\w.-]+)", path.read_text(encoding="utf-8"))
    }
    wrong = sorted(f"{path} names {other}" for path, other in named if other != version)
    if wrong or not named:
        raise Failed("; ".join(wrong) or "no file of the deployment names a version")
    return f"{version}, in {len({path for path, _ in named})} files too"


def check_builds(release: Release) -> str:
    """The source distribution and the wheel, built twice in different folders, are the same byte for byte."""
    made = []
    for name in ("one", "another"):
        tree, out = release.scratch / name, release.scratch / f"{name}-dist"
        shutil.copytree(release.tree, tree, symlinks=True)
        release.run(release.tool("pyproject-build"), "--no-isolation", "--outdir", out, cwd=tree)
        made.append(out)
    names = sorted(path.name for path in made[0].iterdir())
    _, differing, missing = filecmp.cmpfiles(made[0], made[1], names, shallow=False)
    if differing or missing or len(names) != 2:
        raise Failed(f"two builds differ: {differing or missing or names}")
    for path in made[0].iterdir():
        shutil.copy2(path, release.dist)
    return ", ".join(names)


def check_platform_wheels(release: Release) -> str:
    """A wheel for each platform has the esbuild that the lock file pins."""
    pure = next(release.dist.glob("*-none-any.whl"))
    script = release.tree / "deploy" / "release" / "platform_wheels.py"
    try:
        release.run(release.tool("python"), script, pure, "--into", release.dist)
    except Failed as failure:
        if "urlopen error" in str(failure):
            raise Skipped("the npm registry cannot be reached") from None
        raise
    return f"{len(list(release.dist.glob('*.whl'))) - 1} platforms"


def check_metadata(release: Release) -> str:
    """The index takes the files, and renders the README."""
    release.run(release.tool("twine"), "check", "--strict", *sorted(release.dist.glob("*.whl")), *release.dist.glob("*.tar.gz"))
    with tarfile.open(next(release.dist.glob("*.tar.gz"))) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    lacking = sorted({"README.md", "LICENSE", "CHANGELOG.md", "kapso_sync/__main__.py", "kapso_sync/py.typed"} - held)
    if lacking:
        raise Failed(f"the source distribution lacks {', '.join(lacking)}")
    return "twine check --strict"


def check_installations(release: Release) -> str:
    """Installed into a fresh environment of each Python, with no Node in sight, it builds TypeScript."""
    wheel = _wheel_for_this_machine(release.dist)
    tried, lacking = [], []
    for version in PYTHONS:
        python = _python(version)
        if python is None:
            lacking.append(version)
            continue
        venv = release.scratch / f"venv-{version}"
        release.run(python, "-m", "venv", venv)
        release.run(
            venv / "bin" / "pip", "install", "--quiet", "--require-hashes", "-r", release.tree / "requirements" / "run.txt"
        )
        release.run(venv / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
        _try_installed(release, venv)
        tried.append(version)
    if not tried:
        raise Skipped(f"none of the Pythons {', '.join(PYTHONS)} is installed")
    return f"Python {', '.join(tried)}" + (f"; not installed here: {', '.join(lacking)}" if lacking else "")


def _try_installed(release: Release, venv: Path) -> None:
    folder = release.scratch / f"{venv.name}-functions"
    (folder / "hello").mkdir(parents=True)
    (folder / "hello" / "function.yaml").write_text("name: Hello\nentrypoint: index.ts\n", encoding="utf-8")
    (folder / "hello" / "index.ts").write_text(TYPESCRIPT, encoding="utf-8")
    empty = release.scratch / "empty"
    empty.mkdir(exist_ok=True)
    environment = {"PATH": str(empty), "HOME": str(empty)}
    said = json.loads(release.run(venv / "bin" / "kapso-sync", "version", "--json", cwd=empty, environment=environment))
    if said["kapso-sync"] != release.version or f"{venv}/" not in said["esbuild"]:
        raise Failed(f"{venv.name}: kapso-sync {said['kapso-sync']}, esbuild {said['esbuild']}")
    release.run(venv / "bin" / "kapso-sync", "validate", folder, cwd=empty, environment=environment)


def _wheel_for_this_machine(dist: Path) -> Path:
    machine = {"arm64": "arm64" if sys.platform == "darwin" else "aarch64"}.get(platform.machine(), platform.machine())
    system = "macosx" if sys.platform == "darwin" else "manylinux"
    found = [path for path in dist.glob("*.whl") if system in path.name and machine in path.name]
    if not found:
        raise Skipped(f"there is no wheel with esbuild for {sys.platform} on {platform.machine()}")
    return found[0]


def _python(version: str) -> str | None:
    """Return the path of a Python that runs: a version manager may have a command for one that is not installed."""
    path = shutil.which(f"python{version}")
    works = path is not None and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
    return path if works else None


def check_promises(release: Release) -> str:
    """The names that this version promises to keep are stored in its golden file, for the tests of later versions."""
    python = next(release.scratch.glob("venv-*/bin/python"), None)
    if python is None:
        raise Skipped("no installation has what is needed to list the names")
    kept = release.tree / "tests" / "golden" / f"v{release.version}" / "contract.json"
    names = json.loads(release.run(python, "-m", "tests.docs.contract"))
    if not kept.exists() or json.loads(kept.read_text(encoding="utf-8")) != names:
        raise Failed(f"{kept.relative_to(release.tree)} is old: write the output of `python -m tests.docs.contract` to it")
    return f"{len(names['events'])} events, {len(names['settings'])} settings, {len(names['documents'])} documents"


def check_advisories(release: Release) -> str:
    """No pinned dependency has a known vulnerability."""
    requirements = release.tree / "requirements" / "run.txt"
    try:
        text = release.run(
            release.tool("pip-audit"), "--requirement", requirements, "--require-hashes", "--disable-pip", "--format", "json"
        )
    except Failed as failure:
        if "ConnectionError" in str(failure) or "could not be reached" in str(failure):
            raise Skipped("the index's advisories cannot be reached") from None
        raise
    audited = json.loads(text[text.index("{") : text.rindex("}") + 1])["dependencies"]
    unknown = [item["name"] for item in audited if "skip_reason" in item]
    if len(unknown) == len(audited):
        raise Skipped("the index that this machine reaches has no advisories")
    if unknown:
        raise Failed(f"not audited: {', '.join(unknown)}")
    return f"{len(audited)} packages, no known vulnerability"


def check_bill_of_materials(release: Release) -> str:
    """The bill of materials lists every pinned package, and validates."""
    out = release.dist / f"kapso-sync-{release.version}.cdx.json"
    requirements = release.tree / "requirements" / "run.txt"
    release.run(
        *(release.tool("cyclonedx-py"), "requirements", requirements, "--pyproject", release.tree / "pyproject.toml"),
        *("--output-reproducible", "--validate", "--of", "JSON", "-o", out),
    )
    document = json.loads(out.read_text(encoding="utf-8"))
    document["components"].append(_esbuild_component(release))
    out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    listed = {component["name"].lower() for component in document["components"]}
    pinned = set(re.findall(r"^([\w.-]+)==", requirements.read_text(encoding="utf-8"), re.MULTILINE))
    if pinned - listed:
        raise Failed(f"the bill of materials lacks {', '.join(sorted(pinned - listed))}")
    return f"{len(listed)} components, CycloneDX {document['specVersion']}"


def _esbuild_component(release: Release) -> dict[str, object]:
    """Return the entry of what the platform wheels carry."""
    lock = json.loads((release.tree / "package-lock.json").read_text(encoding="utf-8"))
    version = lock["packages"]["node_modules/esbuild"]["version"]
    return {
        "type": "application",
        "bom-ref": f"pkg:npm/esbuild@{version}",
        "name": "esbuild",
        "version": version,
        "purl": f"pkg:npm/esbuild@{version}",
        "licenses": [{"license": {"id": "MIT"}}],
        "description": "In the wheels for one platform: kapso_sync/bin/esbuild.",
    }


def check_workflows(release: Release) -> str:
    """The workflows and the action are sound, and give away no more than they must."""
    release.run(release.tool("zizmor"), "--offline", "--no-progress", ".")
    if shutil.which("actionlint"):
        release.run("actionlint")
    elif shutil.which("go"):
        try:
            release.run("go", "run", ACTIONLINT)
        except Failed as failure:
            if "dial tcp" in str(failure) or "no such host" in str(failure):
                raise Skipped("zizmor is clean; actionlint cannot be fetched") from None
            raise
    else:
        raise Skipped("zizmor is clean; there is neither actionlint nor Go")
    return "zizmor, actionlint"


def check_hook(release: Release) -> str:
    """Our own commits pass our hooks, and the hook that we offer runs in a repository of functions."""
    release.run(release.tool("pre-commit"), "run", "--all-files")
    project = release.scratch / "project"
    shutil.copytree(release.tree / "functions.example", project / "functions")
    release.run("git", "init", "--quiet", cwd=project)
    release.run("git", "add", ".", cwd=project)
    esbuild = next(release.scratch.glob("venv-*/lib/python*/site-packages/kapso_sync/bin/esbuild"), None)
    if esbuild is None:
        raise Skipped("no installation has an esbuild, which the example's TypeScript needs")
    said = release.run(
        *(release.tool("pre-commit"), "try-repo", release.tree, "--all-files", "--verbose"),
        cwd=project,
        # pre-commit installs from the repository, and only a wheel for one platform has esbuild.
        environment={**os.environ, "KAPSO_SYNC_ESBUILD": str(esbuild)},
    )
    if "Passed" not in said:
        raise Failed(said[-2000:])
    return "pre-commit run, pre-commit try-repo"


def check_documentation(release: Release) -> str:
    """The documentation builds in strict mode."""
    release.run("make", "--no-print-directory", "docs", cwd=ROOT)
    return "make docs"


STEPS: tuple[Callable[[Release], str], ...] = (
    check_versions,
    check_builds,
    check_platform_wheels,
    check_metadata,
    check_installations,
    check_promises,
    check_advisories,
    check_bill_of_materials,
    check_workflows,
    check_hook,
    check_documentation,
)


def main(arguments: Sequence[str]) -> int:
    """Run every step on the commit that is checked out, and return 1 if one failed."""
    parser = argparse.ArgumentParser(description="Check a release before it is published.")
    parser.add_argument("--tools", type=Path, default=Path(sys.executable).parent, help="folder of the pinned tools")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder for what is published")
    parser.add_argument("--no-skips", action="store_true", help="a step that cannot be done here is a failure")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.dist, ignore_errors=True)
    options.dist.mkdir(parents=True)
    worst = 0
    with tempfile.TemporaryDirectory(prefix="kapso-sync-release-") as scratch:
        tree = Path(scratch, "tree")
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(tree)], check=True)
        epoch = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
        release = Release(tree, options.tools.absolute(), options.dist.absolute(), Path(scratch), epoch.stdout.strip())
        for step in STEPS:
            name = step.__name__.removeprefix("check_").replace("_", " ")
            try:
                print(f"ok       {name}: {step(release)}", flush=True)
            except Skipped as skipped:
                worst = max(worst, int(options.no_skips))
                print(f"skipped  {name}: {skipped}", flush=True)
            except Failed as failed:
                worst = 1
                print(f"FAILED   {name}: {failed}", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
