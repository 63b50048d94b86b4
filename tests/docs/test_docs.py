"""The documentation is true: its tables match the code, its links work, and its commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kapso_sync.cli.app import app
from kapso_sync.cli.workerd import PACKAGE, find_workerd
from tests.docs.pictures import draw
from tests.docs.tables import TABLES, commands_page, write_pages
from tests.program import GIT_ENVIRONMENT, answering, git, kapso_sync, write_functions
from tests.served import QUICK, Served, served

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("functions.example/*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), flags=re.MULTILINE | re.DOTALL)


WORKERD = find_workerd()


@pytest.fixture
def kapso() -> Iterator[Served]:
    """An empty project that runs what is deployed, if there is workerd."""
    with served(replace(QUICK, workerd=WORKERD.path if WORKERD is not None else None)) as running:
        yield running


@pytest.fixture
def other() -> Iterator[Served]:
    """Another project."""
    with served() as running:
        yield running


@pytest.mark.parametrize("page", TABLES)
def test_tables_of_events_settings_keys_and_metrics_match_the_code(page: str) -> None:
    """Every event, setting, key of the manifest and metric is listed as it is, and no other. `make pages` mends it."""
    found = [line for line in text_of(f"docs/{page}").splitlines() if line.startswith("| `")]
    assert found == list(TABLES[page]())


def test_the_page_of_commands_matches_the_program() -> None:
    """Every command is there with its help, options and example. `make pages` mends it."""
    assert text_of("docs/cli.md") == commands_page()
    assert set(re.findall(r"^### (\S+)$", text_of("docs/cli.md"), flags=re.MULTILINE)) == set(app.commands)


def test_the_written_reference_is_what_the_tests_want(tmp_path: Path) -> None:
    """A page with an old table, or none of the rows, is mended by `make pages`."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    old = tmp_path / "docs" / "metrics.md"
    old.write_text(
        re.sub(r"(?:^\| `.*\n)+", "| `x` |\n", old.read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8"
    )
    write_pages(tmp_path / "docs")
    assert old.read_text(encoding="utf-8") == text_of("docs/metrics.md")


def test_every_page_names_the_workerd_that_is_used() -> None:
    """The tutorial and the emulator's own line say the same."""
    named = {version for page in NAMES for version in re.findall(r"workerd@[\d.]+\d", text_of(page))}
    assert named == {PACKAGE}


@pytest.mark.parametrize("page", NAMES)
def test_relative_links_in_the_docs_exist(page: str) -> None:
    """A relative link names a file that exists."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(page))
    missing = [target for target in targets if "://" not in target and not ((ROOT / page).parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", NAMES)
def test_files_that_a_page_names_exist(page: str) -> None:
    """Every path in backticks below kapso_sync, tests and docs; a control: the pages for contributors name several."""
    named = set(re.findall(r"`((?:kapso_sync|tests|docs)/[\w./-]+)`", text_of(page)))
    assert not [path for path in named if not (ROOT / path).exists()]
    if page in ("docs/adding.md", "docs/glossary.md", "docs/architecture.md"):
        assert len(named) >= 3


@pytest.mark.parametrize("number", range(len(blocks("docs/manifest.md", "yaml"))))
def test_manifests_in_the_docs_are_valid(tmp_path: Path, number: int) -> None:
    """A reader can copy them."""
    (tmp_path / "manifest.yaml").write_text(blocks("docs/manifest.md", "yaml")[number], encoding="utf-8")
    (tmp_path / "process-webhook.js").write_text(answering("hello"), encoding="utf-8")
    ran = kapso_sync("validate", str(tmp_path))
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.e2e
@pytest.mark.parametrize("page", [name for name in NAMES if blocks(name, "sh")])
def test_every_shell_command_in_the_docs_runs(kapso: Served, other: Served, tmp_path: Path, page: str) -> None:
    """Every ``sh`` block, in order, in one shell that stops at the first failure."""
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(blocks(page, "sh"))
    if WORKERD is None and "kapso-sync invoke" in script:
        pytest.skip("needs workerd: npm ci")
    home = tmp_path / "home"
    home.mkdir()
    if page != "docs/tutorial.md":
        _begin_repository(home)
    if page == "docs/new-folder.md":
        (home / "functions" / "manifest.yaml").unlink()
    if page == "docs/first-day.md":
        function = {"slug": "legacy", "name": "Legacy", "code": answering("old"), "description": "Nobody dares to delete it."}
        kapso.control("POST", "/functions", {"function": function, "deployed": True})
    project = kapso.environment(tmp_path / "state")
    for name in ("staging", "production"):
        settings = {**project, "KAPSO_SYNC_ENV": name}
        if name == "production":
            settings |= {"KAPSO_API_BASE_URL": other.emulator.base("/api/v1"), "KAPSO_API_KEY": other.emulator.key}
        (home / f"{name}.env").write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")},
        **({} if page in ("docs/environments.md", "docs/tutorial.md") else project),
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_DEPLOY_POLL": "20ms",
        **GIT_ENVIRONMENT,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REPOSITORY": home.as_uri(),
        "EMULATOR_URL": kapso.emulator.url,
        "EMULATOR_TOKEN": kapso.emulator.control_token,
    }
    # GNU's timeout ends the whole group: a page may have started an emulator or a daemon.
    limit = ["timeout", "240"] if shutil.which("timeout") else []
    ran = subprocess.run([*limit, "bash", "-c", script], cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _begin_repository(home: Path) -> None:
    write_functions(home / "functions", {"greet": answering("hello")})
    git(home, "init", "--quiet", "--initial-branch=main")
    git(home, "add", "--all")
    git(home, "commit", "--quiet", "--message", "Begin")
    git(home, "tag", "v1")
    git(home, "remote", "add", "origin", home.as_uri())
    (home / "log.jsonl").write_text('{"event": "function.created", "slug": "greet"}\n', encoding="utf-8")


@pytest.mark.e2e
@pytest.mark.skipif(WORKERD is None, reason="needs workerd and esbuild: npm ci")
def test_the_transcript_in_the_docs_matches_the_demo() -> None:
    """The page shows the demo's output, the README lines of it; ids, times and places differ from run to run."""
    (whole,) = [block for block in blocks("docs/demo.md", "console") if block.startswith("$ make demo\n")]
    (short,) = [block for block in blocks("README.md", "console") if block.startswith("$ make demo\n")]
    printed = blurred(kapso_sync("demo").out)
    assert blurred(whole.removeprefix("$ make demo\n")) == printed
    lines = iter(printed)
    assert [line for line in blurred(short.removeprefix("$ make demo\n")) if line not in lines] == []


def test_the_readme_keeps_to_two_screens() -> None:
    """What it does, a picture, the demo, install, first sync, daemon, links; the rest has pages of its own."""
    assert len(text_of("README.md").splitlines()) <= 100


@pytest.mark.parametrize("source", sorted((ROOT / "docs" / "images").glob("*.txt")), ids=lambda path: path.name)
def test_pictures_are_those_of_their_text(source: Path) -> None:
    """`make pages` draws them; a control: another text is another picture."""
    text = source.read_text(encoding="utf-8")
    assert source.with_suffix(".svg").read_text(encoding="utf-8") == draw(text) != draw(text.replace("box", "group", 1))


def blurred(transcript: str) -> list[str]:
    """Take out what no two runs share."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", transcript)
    text = re.sub(r"sha256:[0-9a-f]{64}|\b[0-9a-f]{12,16}\b|^[0-9a-f]{7,10}(?= )", "HASH", text, flags=re.MULTILINE)
    text = re.sub(r"kapso-sync-demo-\w+", "DEMO", text)
    text = re.sub(r"\d+ API calls?, [\d.]+ s", "N API calls, N s", text)
    return [line.rstrip(" ─") for line in text.strip().splitlines()]
