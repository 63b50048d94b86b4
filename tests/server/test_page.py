"""The page: complete without JavaScript, safe with any text, and good to use with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.model.source import Revision
from kapso_sync.model.status import RecentEvent, Status
from kapso_sync.server.page import render_page
from tests.server.front import Front, open_front
from tests.server.statuses import ALL, BAD, DOWN, EMPTY, GOOD, NOW, SUSPENDED, function, status

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = st.text(max_size=30) | st.sampled_from(
    ["</pre><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'&amp;"]
)
VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Which tags there are, whether they are closed in order, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def outline(shown: Status) -> Outline:
    parser = Outline()
    parser.feed(render_page(shown))
    parser.close()
    assert parser.open == []
    return parser


def words(shown: Status) -> str:
    return " ".join("".join(outline(shown).text).split())


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_well_formed_and_takes_nothing_from_elsewhere(name: str) -> None:
    """Every tag is closed, nothing is inline that a strict policy would block, and no address leads out."""
    page = render_page(ALL[name])
    assert outline(ALL[name]).tags.count("main") == 1
    assert re.findall(r'(?:src|href)="(?!/|data:,)', page) == []


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (GOOD, "In sync: 6 functions run what git says."),
        (replace(BAD, reconciling=False), "5 of 9 functions not ready."),
        (BAD, "Working: Kapso is being made what git says."),
        (DOWN, "The last look failed. What runs on Kapso is unchanged."),
        (SUSPENDED, "Suspended: nothing is written to Kapso."),
        (EMPTY, "Starting: the first look is under way."),
    ],
)
def test_one_sentence_says_how_things_stand(shown: Status, sentence: str) -> None:
    """The first thing one reads."""
    assert sentence in words(shown)


def test_a_bad_day_can_be_read() -> None:
    """State, reason, retry, diff, deployments, events, warnings and budget."""
    text = words(BAD)
    for said in (
        "4f1c2ab8d0e1 “Add greeting” by Ada, 42 min ago",
        "broken-syntax.js:12:5: syntax error near `return (`",
        "tried again in 42 s",
        "+const a = 'new';",
        "deploying for 17 s",
        "error fails-to-deploy the deployment ended in `error`, 2 times",
        "912 of 1000 calls left",
        "not in git, kept since KAPSO_SYNC_PRUNE is off: old-one, older-one",
    ):
        assert said in text
    assert text.index("broken-syntax") < text.index("fine-0"), "what needs somebody comes first"
    assert "no connection to app.kapso.ai" in words(DOWN)
    assert "the next pass tries again; is Kapso up?" in words(DOWN)
    assert "moving the project to another plan" in words(SUSPENDED)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_text_becomes_markup(first: str, second: str, third: str) -> None:
    """Slugs, messages, diffs, subjects, authors, events, warnings, errors: shown, never obeyed."""
    shown = status(
        function(first, "Drifted", second, diff=f"+{third}\n", change=first, changed_at=NOW),
        source=first,
        owner=second,
        warnings=(third,),
        revision=Revision(first, subject=second, author=third, described=first),
        events=(RecentEvent(NOW, "error", first, second, third),),
        suspension=None,
    )
    plain = status(function("x", "Drifted", "x", diff="+x\n", change="x", changed_at=NOW), warnings=("x",), events=shown.events)
    assert outline(shown).tags.count("script") == outline(plain).tags.count("script") == 1
    assert outline(shown).tags.count("img") == 0


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield running
        await running.close()


@pytest.mark.e2e
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_everybody_can_use_it(browser: Any, theme: str) -> None:
    """Axe finds nothing, in either theme, wide or narrow, on good days and bad; nothing scrolls sideways."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci")
    front = Front()
    async with open_front(front):
        for name, shown in ALL.items():
            front.status = shown
            for width in (1280, 320):
                page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme, bypass_csp=True)
                await page.goto(front.url)
                await page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
                await page.add_script_tag(path=str(AXE))
                found = await page.evaluate("axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes[0].html))")
                assert found == [], (name, width)
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, name
                await page.close()


@pytest.mark.e2e
async def test_it_updates_itself_and_leaves_people_where_they_are(browser: Any) -> None:
    """A change shows without a reload; an opened diff stays open, and focus stays on it."""
    front = Front(status=BAD)
    async with open_front(front):
        page = await browser.new_page()
        await page.goto(front.url)
        await page.evaluate("window.sameDocument = true")
        summary = page.locator("#diff-tuned-by-hand summary")
        await summary.click()
        front.status = replace(BAD, reconciling=False, warnings=("something new",))
        front.change.set()
        await page.wait_for_selector("text=something new", timeout=5000)
        assert await page.evaluate("window.sameDocument")
        assert await page.evaluate("document.getElementById('diff-tuned-by-hand').open")
        assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"
        await page.close()


@pytest.mark.e2e
async def test_it_is_complete_without_javascript(browser: Any) -> None:
    """Everything is there, and diffs open."""
    front = Front(status=BAD)
    async with open_front(front):
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(front.url)
        await page.locator("#diff-tuned-by-hand summary").click()
        assert await page.locator("#diff-tuned-by-hand pre").is_visible()
        await asyncio.wait_for(context.close(), 5)
