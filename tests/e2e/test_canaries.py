"""No credential is in any output or file, whatever the API, a git host, a forge or a destination of messages quotes of it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from tests.e2e.quoting import QUOTES, Quoting, quoting
from tests.e2e.test_daemon import daemon, until
from tests.e2e.test_faults import ROUTES
from tests.program import answering, git, kapso_sync, write_functions
from tests.served import QUICK, Served, served
from tests.sources.servers import GitServer, serving

pytestmark = pytest.mark.e2e

CANARIES = {
    "key": 'kc-key-5c1e"&<+/=%41~q9Zr7',
    "git": "kc-git-8d2f&+/=%42~w3Xs6",
    "proxy": "kc-proxy-3a7b-e5Vt8",
    "forge": "kc-forge-1b9c&<+/=~r2Ny4",
    "address": "kc-address-6e4d-t7Mu1",
    "webhook": "kc-webhook-2f8a&<+/=~y4Lp3",
    "admin": "kc-admin-9a3e&<+/=~u6Ko2",
    "file secret": "kc-file-4b6f\nkc-second-line-é-7d1c&<\"'\\=end",
    "dotenv secret": "kc-dotenv-7c5a'&<+/=%43é~i8Jn5",
    "manifest secret": "kc-json-0d4b&<+/=~o1Hb6",
}
"""A credential of each kind; characters that each spelling changes."""

WHOLE = {name: (value, *value.splitlines()) for name, value in CANARIES.items()}
LEGACY = answering("old")


def spellings(text: str) -> Iterator[str]:
    """What a reader would make of a text: itself, and without the quoting of JSON, HTML, URLs and base64."""
    yield text
    yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text).replace('\\"', '"').replace("\\\\", "\\")
    yield html.unescape(text)
    yield unquote(text)
    for run in re.findall(r"[A-Za-z0-9+/_-]{16,}", text):
        padded = run.replace("-", "+").replace("_", "/")
        for start in range(4):
            cut = padded[start : start + (len(padded) - start) // 4 * 4]
            yield base64.b64decode(cut).decode("utf-8", "replace")


def leaks(text: str) -> set[str]:
    """The credentials that a text shows, whole, a line of them, or 16 characters from any place."""
    read = [" ".join(found.split()) for found in spellings(text)]
    return {
        name
        for name, values in WHOLE.items()
        for value in (" ".join(value.split()) for value in values)
        for piece in {value[:16], value[-16:], value}
        if any(piece in found for found in read)
    }


def files_below(folder: Path, *, but: Iterable[str] = ()) -> str:
    """The content of all files, with their names."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but]
    return "\n".join(f"{path}\n{path.read_bytes().decode('utf-8', 'replace')}" for path in found)


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with served(replace(QUICK, api_key=CANARIES["key"])) as running:
        yield running


@pytest.fixture
def kapso(shared: Served) -> Served:
    shared.control("POST", "/reset")
    return shared


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """A git host that wants the token, with a repository whose functions have secrets."""
    root = tmp_path / "served"
    repository = root / "acme" / "flows"
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, {"grows": LEGACY, "leaves": LEGACY})
    with serving(GitServer(root, password=CANARIES["git"])) as running:
        yield running


def commit(repository: Path, functions: Mapping[str, str]) -> None:
    secrets = "    secrets: {FILE: {file: file}, DOTENV: {env: DOTENV}, JSON: {env: JSON}}\n"
    write_functions(repository / "functions", functions, extra=secrets)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Change")


@pytest.fixture
def environment(kapso: Served, tmp_path: Path) -> dict[str, str]:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "file").write_text(CANARIES["file secret"], encoding="utf-8")
    for name in ("key", "git"):
        (tmp_path / name).write_text(CANARIES[name], encoding="utf-8")
    settings = {name: value for name, value in kapso.environment(tmp_path / "state").items() if name != "KAPSO_API_KEY"}
    return {
        **settings,
        "KAPSO_API_KEY_FILE": str(tmp_path / "key"),
        "KAPSO_SYNC_GIT_TOKEN_FILE": str(tmp_path / "git"),
        "KAPSO_SYNC_SECRETS_DIR": str(secrets),
        "KAPSO_SYNC_SECRET_ENV": "DOTENV,JSON",
        "KAPSO_SYNC_WEBHOOK_SECRET": CANARIES["webhook"],
        "KAPSO_SYNC_ADMIN_TOKEN": CANARIES["admin"],
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_PRUNE": "true",
        "KAPSO_SYNC_MAX_DELETE": "1",
        "KAPSO_SYNC_REQUEST_TIMEOUT": "1s",
        "KAPSO_SYNC_DEPLOY_TIMEOUT": "2s",
        "KAPSO_SYNC_LOG_LEVEL": "debug",
        "HTTPS_PROXY": f"http://user:{CANARIES['proxy']}@proxy.invalid:3128",
        "DOTENV": CANARIES["dotenv secret"],
        "JSON": CANARIES["manifest secret"],
    }


@pytest.mark.parametrize("name", QUOTES)
def test_a_leak_is_noticed(name: str) -> None:
    """The control: what such a server sends shows every credential that it was told."""
    told = "\n".join(CANARIES.values())
    status, headers, text = QUOTES[name](told)
    assert status >= 200
    found = leaks("\n".join((*headers.values(), text)))
    assert found == (set(CANARIES) if name != "the beginning" else found)
    assert len(found) >= 8


@pytest.mark.parametrize(
    ("name", "route"),
    [
        pytest.param(name, route, marks=() if (column - row) % len(ROUTES) == 0 else pytest.mark.thorough)
        for row, name in enumerate(QUOTES)
        for column, route in enumerate(ROUTES)
    ],
)
def test_no_output_or_file_shows_what_the_api_quotes(
    server: GitServer, environment: dict[str, str], kapso: Served, tmp_path: Path, name: str, route: str
) -> None:
    """A plan, a sync, and all that people read afterwards."""
    source = f"{server.url}/acme/flows/.git"
    method, _, path = route.partition(" ")
    front = Quoting(kapso.emulator.url, method=method, path=f".*{path.replace('{id}', '[^/]+')}")
    with quoting(front):
        environment["KAPSO_API_BASE_URL"] = kapso.emulator.base("/api/v1").replace(kapso.emulator.url, front.url)
        first = kapso_sync("sync", source, environment=environment)
        assert first.code == 0, first.err
        commit(tmp_path / "served" / "acme" / "flows", {"grows": answering("2"), "joins": answering("new")})
        (tmp_path / "secrets" / "file").write_text(f"{CANARIES['file secret']}.", encoding="utf-8")
        front.quote = QUOTES[name]
        lines = (("plan", source), ("sync", source, "--json"), ("status", source), ("history", source, "--json"))
        runs = [kapso_sync(*line, environment=environment) for line in lines]
    assert "key" in leaks(front.said[0])
    shown = "\n".join(ran.out + ran.err for ran in (first, *runs))
    assert leaks(shown) == set()
    assert "Traceback" not in shown
    assert leaks(files_below(tmp_path / "state")) == set()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if number % 4 == 0 else pytest.mark.thorough) for number, name in enumerate(QUOTES)]
)
def test_nothing_that_a_daemon_tells_shows_what_forges_and_destinations_quote(
    server: GitServer, environment: dict[str, str], kapso: Served, tmp_path: Path, name: str
) -> None:
    """Log, page, metrics, messages, commit statuses and state folder, while every other side quotes what it was told."""
    forge, destination, api = Quoting(quote=QUOTES[name]), Quoting(quote=QUOTES[name]), Quoting(kapso.emulator.url)
    with quoting(forge), quoting(destination), quoting(api):
        addresses = tmp_path / "addresses"
        addresses.write_text(f"{destination.url.replace('http', 'json')}/{CANARIES['address']}\n", encoding="utf-8")
        api.quote = QUOTES[name]
        api.method, api.path = "PATCH|PUT|POST", ".*(deploy|secrets.*)"
        environment |= {
            "KAPSO_API_BASE_URL": kapso.emulator.base("/api/v1").replace(kapso.emulator.url, api.url),
            "KAPSO_SYNC_COMMIT_STATUS": "gitea",
            "KAPSO_SYNC_COMMIT_STATUS_URL": forge.url,
            "KAPSO_SYNC_COMMIT_STATUS_TOKEN": CANARIES["forge"],
            "KAPSO_SYNC_NOTIFY_URLS_FILE": str(addresses),
            "KAPSO_SYNC_NOTIFY_INTERVAL": "100ms",
            "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
            "KAPSO_SYNC_INTERVAL": "300ms",
            "KAPSO_SYNC_GIT_INTERVAL": "300ms",
        }
        with daemon(f"{server.url}/acme/flows/.git", environment) as running:
            until(lambda: api.said and forge.said, what=lambda: running.raw)
            broken = tmp_path / "served" / "acme" / "flows"
            (broken / "functions" / "manifest.yaml").write_text("functions: {", encoding="utf-8")
            git(broken, "commit", "--quiet", "--all", "--message", "Break it")
            until(lambda: destination.said, what=lambda: running.raw)
            admin = {"Authorization": f"Bearer {CANARIES['admin']}"}
            pages = [
                httpx.get(f"{running.url}{path}", headers=admin, timeout=20, trust_env=False).text
                for path in ("/", "/api/status", "/metrics", "/healthz", "/readyz")
            ]
            server.status = 500  # it quotes the Authorization
            running.event("source.failed")
            refused = httpx.post(f"{running.url}/hooks/git", headers=admin, content=b"{}", timeout=20, trust_env=False)
            pages += [refused.text, httpx.get(f"{running.url}/api/status", headers=admin, timeout=20, trust_env=False).text]
            assert running.stop() == 0
    assert "forge" in leaks(forge.said[0])
    assert "address" in leaks(destination.said[0])
    sent = "\n".join(told.partition("\n\n")[2] for told in (*forge.said, *destination.said))
    assert leaks("\n".join((*running.raw, *pages, sent))) == set()
    assert leaks(files_below(tmp_path / "state")) == set()
