"""Downloads: from one host alone, what the lock file pins or nothing, and never without end."""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from kapso_sync.build.npm import RegistryLimits, TarballCache, parse_registry_url
from kapso_sync.build.npm.cache import MAX_AGE
from kapso_sync.build.npm.lock import LockedPackage, LockedTree, read_lock_file
from kapso_sync.build.npm.registry import Registry
from kapso_sync.build.packages import Refusal
from kapso_sync.errors import ConfigError
from kapso_sync.model.source import SourceFile
from tests.build.npm.registry import LoopbackRegistry, Send, answer, lock, package_files, serving, tarball
from tests.clock import VirtualClock

pytestmark = pytest.mark.e2e

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=ssl.create_default_context(), timeout=20, trust_env=False)


class Loader:
    """A registry's client that lives from pass to pass, and its cache."""

    def __init__(self, folder: Path, url: str, limits: RegistryLimits | None = None) -> None:
        self.clock = VirtualClock()
        self.cache = TarballCache(folder / "packages")
        self.folder = folder / "packages"
        self.registry = Registry(url, client, self.clock, limits or RegistryLimits())

    def fetch(self, *packages: LockedPackage) -> dict[str, Refusal]:
        return asyncio.run(self.registry.fetch(packages, self.cache))

    def refusal(self, package: LockedPackage) -> Refusal:
        """Why a package is not there; nothing of it is kept."""
        found = self.fetch(package)
        assert set(found) == {package.location}
        assert self.names() == []
        return found[package.location]

    def names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()] if self.folder.exists() else []


def package(registry: LoopbackRegistry, name: str = "zod", content: bytes | None = None) -> LockedPackage:
    """A published package, as the lock file has it."""
    one = registry.add(name, content if content is not None else tarball(package_files(name, "x")))
    tree = LockedTree([read_lock_file("", SourceFile("x", lock({f"node_modules/{name}": one})))], registry.url)
    found = tree.find("", name)
    assert isinstance(found, LockedPackage)
    return found


def test_a_package_is_kept_by_its_sha512(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Only its owner can read it; a second package of the same content is the same file."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    assert loader.fetch(one) == {}
    assert loader.names() == [f"{one.digests[0]}.tgz"]
    kept = loader.folder / loader.names()[0]
    assert (stat.S_IMODE(kept.stat().st_mode), stat.S_IMODE(loader.folder.stat().st_mode)) == (0o600, 0o700)
    found = loader.cache.open(one.digests)
    assert found is not None
    with found:
        assert found.read() == registry.tarballs["/zod/-/zod-1.0.0.tgz"]


def test_no_token_cookie_or_referrer_is_sent(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """A request says what it wants, and nothing else."""
    Loader(tmp_path, registry.url).fetch(package(registry))
    (headers,) = registry.headers
    assert {name.lower() for name in headers} == {"host", "accept", "accept-encoding", "connection", "user-agent"}


def test_a_registry_may_have_a_path_of_its_own(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Artifactory, Azure and GitLab serve below one."""
    one = package(registry)
    registry.tarballs["/api/npm/all/zod/-/zod-1.0.0.tgz"] = registry.tarballs.pop("/zod/-/zod-1.0.0.tgz")
    assert Loader(tmp_path, f"{registry.url}/api/npm/all").fetch(one) == {}
    assert registry.asked == ["/api/npm/all/zod/-/zod-1.0.0.tgz"]


def test_other_content_than_the_lock_file_pins_is_not_kept_and_not_asked_for_again(
    tmp_path: Path, registry: LoopbackRegistry
) -> None:
    """It is no transient failure: the next passes ask nothing for an hour. Then a registry that was mended is asked."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    good = registry.tarballs["/zod/-/zod-1.0.0.tgz"]
    registry.tarballs["/zod/-/zod-1.0.0.tgz"] = tarball(package_files("zod", "stolen"))
    for _ in range(3):
        refusal = loader.refusal(one)
        assert refusal.reason.endswith("is not what the lock file pins: its sha512 is another")
    assert len(registry.asked) == 1
    registry.tarballs["/zod/-/zod-1.0.0.tgz"] = good
    asyncio.run(loader.clock.sleep(3601))
    assert loader.fetch(one) == {}
    assert len(registry.asked) == 2


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_failure_that_may_pass_is_tried_three_times_and_again_at_the_next_pass(
    tmp_path: Path, registry: LoopbackRegistry, status: int
) -> None:
    """With a growing pause in between; then the package is refused, for this pass alone."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    registry.sends["/zod/-/zod-1.0.0.tgz"] = answer(status)
    assert f"answers {status} for `zod` 1.0.0 at /zod/-/zod-1.0.0.tgz" in loader.refusal(one).reason
    assert (len(registry.asked), loader.clock.monotonic()) == (3, 1.5)
    registry.sends.clear()
    assert loader.fetch(one) == {}


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "have this version?"), (401, "sends no token"), (403, "sends no token"), (204, "next pass")]
)
def test_an_answer_that_will_not_change_is_not_asked_for_twice_in_a_pass(
    tmp_path: Path, registry: LoopbackRegistry, status: int, hint: str
) -> None:
    """It names the status, and what to do about it."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    registry.sends["/zod/-/zod-1.0.0.tgz"] = answer(status)
    refusal = loader.refusal(one)
    assert f"answers {status} " in refusal.reason
    assert hint in refusal.hint
    assert len(registry.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_to_another_host_is_followed(tmp_path: Path, registry: LoopbackRegistry, status: int) -> None:
    """Whatever is served there; another port or scheme is another host. A control: on the same host it is followed."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    path = "/zod/-/zod-1.0.0.tgz"
    with serving() as other:
        other.tarballs[path] = registry.tarballs[path]
        port = registry.url.rpartition(":")[2]
        for target in (
            f"{other.url}{path}",
            f"//{other.url[7:]}{path}",
            f"http://localhost:{port}{path}",
            "",
            "http://[x",
            f"https://127.0.0.1:{port}{path}",
            f"http://127.0.0.1:{port}@evil.example{path}",
            "file:///etc/passwd",
        ):
            registry.sends[path] = answer(status, Location=target)
            assert "to another host, and no other host is asked" in loader.refusal(one).reason
        assert other.asked == []
    registry.tarballs["/moved.tgz"] = registry.tarballs[path]
    registry.sends[path] = answer(status, Location="/moved.tgz")
    assert loader.fetch(one) == {}
    assert registry.asked[-2:] == [path, "/moved.tgz"]


@pytest.mark.parametrize("send", [answer(404), answer(503), answer(200, b"other"), answer(302, Location="http://x/"), None])
def test_the_path_of_the_registry_is_not_shown(tmp_path: Path, registry: LoopbackRegistry, send: Send | None) -> None:
    """Some registries have a token there; the host is named, and what was asked for below it."""
    one = package(registry)
    loader = Loader(tmp_path, f"{registry.url}/t0ken/acme", RegistryLimits(deadline=0.2))
    registry.sends["/t0ken/acme/zod/-/zod-1.0.0.tgz"] = send if send is not None else drip
    refusal = loader.refusal(one)
    assert registry.asked
    assert registry.url in refusal.reason
    assert "t0ken" not in f"{refusal.reason} {refusal.hint}"


def test_redirects_in_a_circle_end(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """After the third."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    registry.sends["/zod/-/zod-1.0.0.tgz"] = answer(302, Location="/zod/-/zod-1.0.0.tgz")
    assert "again and again" in loader.refusal(one).reason
    assert len(registry.asked) == 4


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Send one byte after the other."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)
    except OSError:
        return


def pour(handler: BaseHTTPRequestHandler) -> None:
    """Send without end, and without saying how much."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(65536))
    except OSError:
        handler.close_connection = True


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x" * 10)
    handler.close_connection = True


def test_a_registry_that_drips_is_left_after_the_deadline(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Of one package; others are fetched meanwhile."""
    slow, fast = package(registry), package(registry, "fast")
    registry.sends["/zod/-/zod-1.0.0.tgz"] = drip
    loader = Loader(tmp_path, registry.url, RegistryLimits(deadline=0.5))
    found = loader.fetch(slow, fast)
    assert {location: refusal.reason for location, refusal in found.items()} == {
        "node_modules/zod": f"{registry.url} did not send `zod` 1.0.0 within 0.5 s"
    }
    assert loader.names() == [f"{fast.digests[0]}.tgz"]


def test_all_downloads_of_a_pass_have_one_deadline(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Many that drip do not hold a pass for long; what came in time is kept, and the next pass goes on."""
    slow = [package(registry, f"slow{number}") for number in range(20)]
    fast = package(registry, "fast")
    for number in range(20):
        registry.sends[f"/slow{number}/-/slow{number}-1.0.0.tgz"] = drip
    loader = Loader(tmp_path, registry.url, RegistryLimits(deadline=30, patience=0.5))
    found = loader.fetch(fast, *slow)
    assert set(found) == {one.location for one in slow}
    assert {refusal.reason for refusal in found.values()} == {f"{registry.url} did not send all packages within 0.5 s"}
    assert loader.names() == [f"{fast.digests[0]}.tgz"]


def test_a_download_without_end_is_cut_off(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """And is not begun again at the next pass."""
    one = package(registry)
    registry.sends["/zod/-/zod-1.0.0.tgz"] = pour
    loader = Loader(tmp_path, registry.url, RegistryLimits(max_bytes=1024 * 1024))
    for _ in range(2):
        assert loader.refusal(one).reason == "`zod` 1.0.0 has more than 1 MiB, and no larger package is fetched"
    assert len(registry.asked) == 1


def test_a_connection_that_breaks_is_tried_again(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Half a file is never kept."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    registry.sends["/zod/-/zod-1.0.0.tgz"] = cut_off
    assert "cannot be fetched from" in loader.refusal(one).reason
    assert len(registry.asked) == 3


def test_a_registry_that_is_down_is_not_asked_for_every_package(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """One connection that fails speaks for the rest of the pass; the next pass tries again."""
    packages = [package(registry, f"p{number}") for number in range(100)]
    with serving() as gone:
        url = gone.url
    loader = Loader(tmp_path, url)
    found = loader.fetch(*packages)
    assert len(found) == 100
    assert all(url in refusal.reason and "next pass" in refusal.hint for refusal in found.values())
    assert len({refusal.reason.partition(" cannot")[0] for refusal in found.values()}) <= RegistryLimits().concurrency


def test_compression_on_the_way_is_not_asked_for(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Some servers call a tarball itself compressed content: its bytes count as they come."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    path = "/zod/-/zod-1.0.0.tgz"
    registry.sends[path] = answer(200, registry.tarballs[path], **{"Content-Encoding": "gzip"})
    assert loader.fetch(one) == {}
    assert registry.headers[0]["Accept-Encoding"] == "identity"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage, truncate, empty])
def test_a_damaged_file_of_the_cache_counts_as_missing(
    tmp_path: Path, registry: LoopbackRegistry, harm: Callable[[Path], None]
) -> None:
    """A disk that lies does not deploy garbage: the file is dropped, and fetched again."""
    one, loader = package(registry), Loader(tmp_path, registry.url)
    loader.fetch(one)
    harm(loader.folder / loader.names()[0])
    assert loader.cache.open(one.digests) is None
    assert loader.names() == []
    assert loader.fetch(one) == {}


def test_a_session_that_reads_uses_the_cache_and_leaves_it_alone(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """`plan` keeps what it fetches in a folder of its own; a damaged file of the cache stays where it is."""
    one, loader = package(registry), Loader(tmp_path / "state", registry.url)
    loader.fetch(one)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "state").rglob("*")}
    reading = TarballCache(tmp_path / "own", loader.folder)
    found = reading.open(one.digests)
    assert found is not None
    found.close()
    damage(loader.folder / loader.names()[0])
    before = {path: path.stat().st_mtime_ns for path in before}
    assert reading.open(one.digests) is None
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "state").rglob("*")} == before
    assert asyncio.run(loader.registry.fetch([one], reading)) == {}
    assert [path.name for path in (tmp_path / "own").iterdir()] == [f"{one.digests[0]}.tgz"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "state").rglob("*")} == before


def test_what_a_process_that_died_left_behind_is_removed(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Half downloads and half trees; tarballs that were unused for long go as well."""
    old, young, loader = package(registry, "old"), package(registry, "young"), Loader(tmp_path, registry.url)
    loader.fetch(old, young)
    (loader.folder / "tmpabc.part").write_bytes(b"half")
    (loader.folder / "tree-abc" / "node_modules").mkdir(parents=True)
    loader.cache.drop_old(datetime.now(UTC))
    assert len(loader.names()) == 2
    kept = loader.cache.open(young.digests)
    assert kept is not None
    kept.close()
    loader.cache.drop_old(datetime.now(UTC) + MAX_AGE + timedelta(days=1))
    assert loader.names() == []
    TarballCache(tmp_path / "nowhere").drop_old(NOW)


def test_the_cache_keeps_what_was_used_last(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """Within its limit; what was just fetched stays even where it is larger than that."""
    one, two, three = (package(registry, name) for name in ("one", "two", "three"))
    loader = Loader(tmp_path, registry.url)
    size = max(len(content) for content in registry.tarballs.values())
    loader.cache = TarballCache(loader.folder, max_bytes=2 * size + 10)
    for number, each in enumerate((one, two)):
        loader.fetch(each)
        os.utime(loader.folder / f"{each.digests[0]}.tgz", (number + 1, number + 1))
    found = loader.cache.open(one.digests)
    assert found is not None
    found.close()
    loader.fetch(three)
    assert set(loader.names()) == {f"{one.digests[0]}.tgz", f"{three.digests[0]}.tgz"}
    loader.cache = TarballCache(loader.folder, max_bytes=1)
    loader.fetch(two)
    assert loader.names() == [f"{two.digests[0]}.tgz"]


def test_a_cache_that_cannot_be_written_is_a_reason_and_no_crash(tmp_path: Path, registry: LoopbackRegistry) -> None:
    """A file where the folder should be stands for a full disk."""
    one = package(registry)
    (tmp_path / "packages").write_text("in the way")
    found = Loader(tmp_path, registry.url).fetch(one)
    assert "cannot be kept in the state folder" in found[one.location].reason


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://registry.npmjs.org/", "https://registry.npmjs.org"),
        (" https://npm.acme.dev/api/npm/all ", "https://npm.acme.dev/api/npm/all"),
        ("http://127.0.0.1:4873", "http://127.0.0.1:4873"),
        ("http://[::1]:4873/", "http://[::1]:4873"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_a_registry_is_named_by_its_url(text: str, url: str) -> None:
    """A slash at the end makes no difference."""
    assert parse_registry_url(text) == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("registry.npmjs.org", "it is not an http(s) URL"),
        ("ftp://registry.npmjs.org", "it is not an http(s) URL"),
        ("file:///srv/npm", "it is not an http(s) URL"),
        ("https://", "it is not an http(s) URL"),
        ("https://x:99999", "ort out of range"),
        ("https://npm.acme.dev/?a=1", "it has a query or a fragment"),
        ("https://npm.acme.dev/#x", "it has a query or a fragment"),
        ("http://npm.acme.dev", "is not encrypted"),
        ("https://user:s3cret@npm.acme.dev", "carries a user name or password"),
        ("ftp://user:s3cret@npm.acme.dev", "carries a user name or password"),
        ("https://s3cret@npm.acme.dev:99999", "carries a user name or password"),
        ("user:s3cret@npm.acme.dev/x", "carries a user name or password"),
        ("https://user:s3cret@[npm", "carries a user name or password"),
    ],
)
def test_a_url_that_no_registry_can_have_is_refused(text: str, reason: str) -> None:
    """With the setting's name, and without a password that it carries."""
    with pytest.raises(ConfigError) as caught:
        parse_registry_url(text)
    assert reason in caught.value.message
    assert caught.value.message.startswith("KAPSO_SYNC_NPM_REGISTRY")
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"
    if text.startswith("http://"):
        assert parse_registry_url(text, allow_http=True) == text
