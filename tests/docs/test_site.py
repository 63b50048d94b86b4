"""The site's check finds what is wrong, every page has a place in the navigation, and the built site asks nobody else."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.screenshots import CHROMIUM, take_screenshot
from tests.docs.site import main, problems

ROOT = Path(__file__).parents[2]


def site(folder: Path, body: str) -> list[str]:
    """What is wrong with a site of two pages, of which one has this body."""
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other" / "index.html").write_text('<h1 id="top">Other</h1>', encoding="utf-8")
    (folder / "index.html").write_text(body, encoding="utf-8")
    return list(problems(folder))


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other/">x</a><a href="other/#top">x</a><a href="#here"></a><p id="here">',
        '<a href="https://kapso.ai">a reader may go there</a>',
        '<img src="data:image/png;base64,AA">',
    ],
)
def test_a_sound_site_passes_the_check(tmp_path: Path, body: str) -> None:
    """Links to pages, anchors and other sites are fine."""
    assert site(tmp_path, body) == []
    assert main(tmp_path) == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="gone/">', "gone/: there is no such page"),
        ('<a href="other/#gone">', "other/#gone: there is no such anchor"),
        ('<a href="#gone">', "#gone: there is no such anchor"),
        ('<img src="gone.png">', "gone.png: there is no such page"),
        ('<img srcset="other/index.html 1x, gone.png 2x">', "gone.png: there is no such page"),
        ('<script src="https://cdn.example/x.js">', "loads https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "loads //fonts.example/x.css"),
        ('<p style="background: url(https://cdn.example/x.png)">', "loads https://cdn.example/x.png"),
        ('<pre class="mermaid">', "a mermaid diagram"),
    ],
)
def test_broken_links_and_outside_resources_fail_the_check(tmp_path: Path, body: str, said: str) -> None:
    """Each is one line with the page."""
    (found,) = site(tmp_path, body)
    assert found.startswith("index.html: ")
    assert said in found
    assert main(tmp_path) == 1


def test_a_style_sheet_that_loads_from_outside_fails_the_check(tmp_path: Path) -> None:
    """Fonts come by style sheets; an image that is part of it does not."""
    (tmp_path / "x.css").write_text("@import 'https://fonts.example/x.css'; a{background:url(data:,x)}", encoding="utf-8")
    assert site(tmp_path, "") == ["x.css: loads https://fonts.example/x.css"]


def navigation() -> Iterator[str]:
    """The pages that the navigation names."""

    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(below)

    yield from pages(tomllib.loads((ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"])


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that nobody finds is not written; one that is gone would be a dead entry."""
    documents = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    also = {"README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "CHANGELOG.md", "functions.example/README.md"}
    assert sorted(navigation()) == sorted(documents | also)


@contextlib.contextmanager
def on_loopback(folder: Path) -> Iterator[str]:
    """Serve a folder as any web server would."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.thorough
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs chromium")
def test_no_page_of_the_built_site_asks_another_host() -> None:
    """In a browser, with its scripts: the theme's own would load some things by themselves. The search finds a page."""
    from playwright.sync_api import sync_playwright

    subprocess.run(["make", "docs"], cwd=ROOT, check=True, timeout=300, capture_output=True)
    built = ROOT / ".site" / "html"
    pages = [path.relative_to(built).parent.as_posix() for path in built.rglob("index.html")]
    asked: set[str] = set()
    with on_loopback(built) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.add(request.url))
        for name in pages:
            page.goto(f"{url}/{name}/", wait_until="networkidle")
        browser.close()
    assert len(pages) > 25
    assert len(asked) > len(pages)
    assert [request for request in asked if not request.startswith(url)] == []


@pytest.mark.thorough
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs chromium")
def test_the_picture_of_the_status_page_can_be_taken_again(tmp_path: Path) -> None:
    """`make screenshots` writes a PNG of the size that the README shows, from a daemon that has three functions in trouble."""
    picture = tmp_path / "status-page.png"
    asked = take_screenshot(picture, scratch=tmp_path)
    kept = (ROOT / "docs" / "images" / picture.name).read_bytes()
    assert picture.read_bytes()[:24] == kept[:24], "signature, width and height"
    assert asked
    assert all(re.match(r"http://127\.0\.0\.1:\d+/|data:", url) for url in asked)
