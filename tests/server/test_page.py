"""The status page: complete without JavaScript, safe against any text, accessible, and updated live."""

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

from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.function_view import (
    BackupSummary,
    BackupView,
    CheckResult,
    FunctionRecord,
    HistoryEntry,
    InvocationLine,
    InvocationsView,
    InvocationView,
    RevisionHistory,
)
from kapso_sync.model.source import Revision
from kapso_sync.model.status import (
    DaemonStatus,
    PassStatus,
    RateLimit,
    RecentEvent,
    ReplicaStatus,
    Role,
    RunningPass,
    Suspension,
)
from kapso_sync.plurals import span
from kapso_sync.server.forms import render_problem, render_sign_in
from kapso_sync.server.function_page import render_backup, render_function, render_invocations
from kapso_sync.server.page import render_page
from kapso_sync.server.sessions import Session, Viewer
from tests.server.front import TOKEN, DaemonStub, open_server
from tests.server.statuses import (
    ALL,
    BAD,
    DOWN,
    EMPTY,
    GOOD,
    MANY,
    NOW,
    RECORD,
    STANDBY,
    SUSPENDED,
    WORSE,
    ago,
    function,
    status,
)

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = st.text(max_size=30) | st.sampled_from(
    ["</pre><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'&amp;"]
)
VOID = {"meta", "link", "img", "br", "input"}


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


def outline(shown: DaemonStatus) -> Outline:
    return outline_of(render_page(shown))


def outline_of(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def words(shown: DaemonStatus) -> str:
    return " ".join("".join(outline(shown).text).split())


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_well_formed_and_loads_no_foreign_content(name: str) -> None:
    """Every tag is closed, nothing inline that a strict CSP would block, and no external URL."""
    page = render_page(ALL[name])
    assert outline(ALL[name]).tags.count("main") == 1
    assert re.findall(r'(?:src|href)="(?!/|data:,)', page) == []


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (GOOD, "In sync: 6 functions run what git says."),
        (replace(BAD, running=None), "5 of 9 functions not ready."),
        (BAD, "A pass is running."),
        (DOWN, "The last pass failed. What runs on Kapso is unchanged."),
        (SUSPENDED, "Suspended: nothing is written to Kapso."),
        (STANDBY, "Standby: another replica writes to Kapso."),
        (replace(STANDBY, replica=ReplicaStatus(Role.STANDBY, "apps/kapso-sync", None)), "Standby: no replica leads."),
        (EMPTY, "Starting: the first pass is running."),
    ],
)
def test_the_page_headline_summarises_the_state(shown: DaemonStatus, sentence: str) -> None:
    """It is the first text on the page."""
    assert sentence in words(shown)


def test_the_page_shows_failures_diffs_deployments_events_and_budget() -> None:
    """State, reason, retry, warnings as well."""
    text = words(BAD)
    for said in (
        "4f1c2ab8d0e1 Add greeting by Ada, 42 min ago",
        "2 stalled",
        "deploy greet result not known yet",
        "Because broken-syntax.js:12:5: syntax error near `return (`",
        "next try in 42 s",
        "+const a = 'new';",
        "deploying for 17 s",
        "■ error fails-to-deploy the deployment ended in `error`, 2 times",
        "912 of 1000 in this window",
        "not in git, kept since KAPSO_SYNC_PRUNE is off: old-one, older-one",
    ):
        assert said in text
    assert text.index("broken-syntax") < text.index("fine-0"), "what needs somebody comes first"
    assert "no connection to app.kapso.ai" in words(DOWN)
    assert "the next pass tries again; is Kapso up?" in words(DOWN)
    assert "moving the project to another plan" in words(SUSPENDED)


def test_control_characters_of_a_commit_or_a_reason_are_spelled_out_on_the_page() -> None:
    """Whoever reads the page with curl must not have the terminal driven."""
    revision = Revision("c0ffee", subject="Fix \x1b[2J\x07 it", author="Eve\u202e")
    page = render_page(status(function("greet"), revision=revision, suspension=Suspension("\x1b]0;x\x07", NOW)))
    assert [char for char in page if not (char.isprintable() or char in "\n\t")] == []
    assert r"Fix \x1b[2J\x07 it" in page


def test_the_page_names_the_commit_that_broke_the_manifest_and_the_one_in_effect() -> None:
    """Who reads the error wants to know whom to ask, and what runs meanwhile."""
    broken = Revision("bad0bad0bad0" + "0" * 28, subject="Tidy <up>", author="Bob")
    last = PassStatus(
        NOW, "webhook", 65, 0.1, 0, {}, "manifest.yaml:3:5: no such key", "did you mean `file`?", broken_by=broken
    )
    text = words(status(function("greet"), last_pass=last))
    assert "manifest.yaml:3:5: no such key" in text
    assert "Broken by bad0bad0bad0 Tidy <up> by Bob" in text
    assert "Still in effect 4f1c2ab8d0e1 Add greeting by Ada, 42 min ago" in text
    assert "Still in effect" not in words(GOOD)


def test_the_page_counts_the_functions_of_git_and_names_the_others_apart() -> None:
    """In sync are those that git lists; a blocked deletion of another one asks for a decision."""
    left = function("old-one", in_git=False)
    shown = words(status(function("a"), function("b"), left))
    assert "In sync: 2 functions run what git says. 1 more function left git." in shown
    assert "Functions 2" in shown
    assert shown.index("Left git 1") < shown.index("old-one")
    held = function("old-one", "Stalled", "too many deletions", in_git=False)
    assert "1 more function left git and needs a decision." in words(status(function("a"), held))


def test_the_page_says_since_when_a_pass_runs_and_why() -> None:
    """Beside the error of the last one, which stays until it is known to be over."""
    shown = words(replace(DOWN, running=RunningPass("webhook", ago(seconds=20))))
    assert "A pass is running." in shown
    assert "began 20 s ago webhook" in shown
    assert "no connection to app.kapso.ai" in shown


def test_the_page_omits_the_message_of_a_function_that_is_ready_as_expected() -> None:
    """A function that is ready for another reason has one."""
    kept = function("old-one", message="not in git, kept")
    ready = tuple(replace(condition, reason="KeptOutsideGit") for condition in kept.conditions)
    assert "KeptOutsideGit not in git, kept" in words(status(replace(kept, conditions=ready)))
    assert "in sync" not in words(status(function("greet")))
    assert "of 1000" not in words(EMPTY)


def test_the_page_shows_the_last_twenty_events() -> None:
    """Older ones are not there."""
    assert outline(MANY).tags.count("li") == 60 + 20


def test_the_page_draws_any_rate_limit_budget() -> None:
    """Nothing left, unknown, more left than the limit."""
    for budget in (RateLimit(0, 0), RateLimit(1000, 0), RateLimit(10, 20), RateLimit(10, -1)):
        assert outline(status(budget=budget)).tags.count("meter") == 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "59 min"), (7500, "2 h 5 min"), (86400, "1 day"), (400_000, "4 days")],
)
def test_durations_are_shown_in_words(seconds: float, said: str) -> None:
    """As people say them."""
    assert span(seconds) == said


def hostile(first: str, second: str, third: str) -> DaemonStatus:
    """These three texts in every place where somebody else's words can be."""
    conditions = tuple(replace(condition, reason=third) for condition in function(first, "Drifted", second).conditions)
    return DaemonStatus(
        version=first,
        now=NOW,
        started_at=NOW,
        source=first,
        owner=second,
        revision=Revision(first, subject=second, author=third, described=first),
        functions=(
            replace(
                function(first, diff=f"+{third}\n{second}", change=first, changed_at=NOW, deploying_since=NOW),
                conditions=conditions,
            ),
        ),
        events=(RecentEvent(NOW, second, first, second, third), RecentEvent(NOW, "error", first, second, third)),
        last_pass=PassStatus(NOW, first, 69, 1.0, 1, {}, second, third),
        suspension=Suspension(first, NOW),
        warnings=(third,),
        unfinished=(second,),
    )


@given(HOSTILE, HOSTILE, HOSTILE)
def test_text_from_outside_is_escaped_on_the_page(first: str, second: str, third: str) -> None:
    """Versions, slugs, messages, reasons, diffs, subjects, authors, events, levels, errors, hints."""
    shown, plain = outline(hostile(first, second, third)), outline(hostile("x", "x", "x"))
    assert {*shown.tags} == {*plain.tags}
    assert (shown.tags.count("script"), shown.tags.count("img")) == (1, 0)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_text_from_outside_is_escaped_on_the_views_of_a_function(first: str, second: str, third: str) -> None:
    """Slugs, messages, hints, places, commits, history, answers of checks, backups, diffs, console lines, errors."""

    def tags(first: str, second: str, third: str) -> list[list[str]]:
        shown = hostile(first, second, third)
        cause = Revision(first, subject=second, author=third)
        odd = replace(shown.functions[0], hint=first, place=second, broken_by=cause)
        kept = BackupSummary(first, NOW, second, kept=True)
        record = FunctionRecord(
            (RevisionHistory(cause, (HistoryEntry(NOW, first, second),)),),
            (CheckResult(NOW, number=1, expected=first, answer=second), CheckResult(NOW, count=1, answer=third)),
            (kept,),
            kept,
            f"+{third}\n{first}",
        )
        lines = (InvocationLine(first, second), InvocationLine("error", third))
        answer = InvocationsView(NOW, (InvocationView(NOW, 200, 1.0, lines, first),))
        viewer = Viewer(Session("f" * 64), trusted=True)
        pages = (
            render_function(shown, odd, record, viewer),
            render_function(shown, odd, None, Viewer()),
            render_backup(shown, odd, BackupView(kept, f"-{second}"), viewer),
            render_invocations(shown, odd, answer, viewer),
            render_invocations(shown, odd, KapsoSyncError(first, hint=second), viewer),
            render_sign_in(first, second, third),
            render_problem(first, second, third),
        )
        return [outline_of(page).tags for page in pages]

    for given_text, plain in zip(tags(first, second, third), tags("x", "x", "x"), strict=True):
        assert {*given_text} <= {*plain}


def test_the_view_of_a_function_shows_the_answer_to_the_last_check_that_passed() -> None:
    """An entry of an older version's history has none."""
    viewer = Viewer(Session("f" * 64), trusted=True)
    passed = CheckResult(NOW, count=2, seconds=1.5, answer="status 200, 'pong'")
    for check, shown in ((passed, True), (replace(passed, answer=""), False)):
        page = render_function(GOOD, GOOD.functions[0], FunctionRecord(checks=(check,)), viewer)
        assert ("2 checks after" in page, "the last got status 200, 'pong'" in page) == (True, shown)


def test_the_view_of_a_function_says_what_became_of_the_version_that_it_compares() -> None:
    """It was overwritten, or it failed; without one, none is known."""
    viewer = Viewer(Session("f" * 64), trusted=True)
    for record, said in (
        (RECORD, "(drift), before it was overwritten."),
        (replace(RECORD, rolled_back=True), ", when it failed and was rolled back."),
        (FunctionRecord(), "No other version is known to have run before."),
    ):
        assert said in render_function(GOOD, GOOD.functions[0], record, viewer)


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
async def test_the_page_is_accessible(browser: Any, theme: str) -> None:
    """Axe finds nothing, in either theme, wide or narrow, in any state; nothing scrolls sideways."""
    stub = DaemonStub()
    async with open_server(stub):
        for width in (1280, 320):
            page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme, bypass_csp=True)
            for name, shown in ALL.items():
                stub.status = shown
                await check_accessible(page, stub.url, name)
            await page.close()


async def check_accessible(page: Any, url: str, name: str) -> None:
    """Look at a page with everything unfolded."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci")
    await page.goto(url)
    await page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    await page.add_script_tag(path=str(AXE))
    found = await page.evaluate("axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes[0].html))")
    assert found == [], (name, page.viewport_size)
    assert await page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], name


VIEWS = (
    *("/functions/broken-syntax", "/functions/tuned-by-hand", "/functions/fine-0", "/functions/broken-syntax/invocations"),
    *(
        "/functions/broken-syntax/backups/0123456789abcdef",
        "/functions/nobody",
        "/suspend",
        "/sign-in?to=/",
        "/?done=reconcile",
    ),
)


@pytest.mark.e2e
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_view_is_accessible_signed_in_or_not(browser: Any, theme: str) -> None:
    """The same promises as for the front page; also of a form that was filled in wrongly, and of a long list."""
    stub = DaemonStub(status=WORSE)
    async with open_server(stub):
        for width in (1280, 320):
            page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme, bypass_csp=True)
            for path in VIEWS[:1] if width == 1280 else VIEWS[3:4]:
                await check_accessible(page, stub.url + path, f"{path} of a stranger")
            await sign_in(page, stub)
            for path in VIEWS:
                await check_accessible(page, stub.url + path, path)
            stub.status = status(*(function(f"number-{index}", "Ready" if index % 9 else "Stalled") for index in range(250)))
            await check_accessible(page, f"{stub.url}/?state=ready&page=2&q=number", "a long list")
            stub.status = WORSE
            await page.close()


async def sign_in(page: Any, stub: DaemonStub, to: str = "/") -> None:
    await page.goto(f"{stub.url}/sign-in?to={to}")
    await page.fill("#token", TOKEN)
    await page.press("#token", "Enter")
    await page.wait_for_url(stub.url + to)


@pytest.mark.e2e
@pytest.mark.parametrize("javascript", [True, False])
async def test_a_person_signs_in_reconciles_suspends_and_signs_out_in_a_browser(browser: Any, *, javascript: bool) -> None:
    """A real browser's cookies, Origin and CSP let our own forms through, with scripts and without."""
    stub = DaemonStub(status=WORSE)
    said: list[str] = []
    async with open_server(stub):
        context = await browser.new_context(java_script_enabled=javascript)
        page = await context.new_page()
        page.on("console", lambda message: said.append(message.text))
        await page.goto(f"{stub.url}/functions/broken-syntax")
        await page.click("header >> text=Sign in")
        await page.wait_for_selector("#token:focus")  # the browser says so when somebody types before its autofocus
        await page.fill("#token", TOKEN)
        await page.press("#token", "Enter")
        await page.wait_for_url(f"{stub.url}/functions/broken-syntax")
        await page.goto(f"{stub.url}/functions/fails-to-deploy")
        await page.click("text=Reconcile all")
        await page.wait_for_selector("#done:has-text('A pass was asked for.')")
        await page.click("text=Suspend…")
        await page.fill("#reason", "moving")
        await page.select_option("#for", "1h")
        await page.click("button:text-is('Suspend')")
        await page.wait_for_selector("#done:has-text('Suspended.')")
        assert (stub.triggers, stub.suspensions) == (["reconcile"], [("moving", 3600.0)])
        await page.reload()
        await page.go_back()
        assert len(stub.suspensions) == 1
        await page.goto(stub.url)
        await page.click("text=Sign out")
        await page.wait_for_selector("#done:has-text('You are signed out.')")
        assert await context.cookies() == []
        assert said == []
        await asyncio.wait_for(context.close(), 5)


@pytest.mark.e2e
async def test_a_form_of_another_page_does_nothing_in_a_browser(browser: Any) -> None:
    """Another port of this machine counts as the same site for the cookie; the form's origin and token do not fit."""
    stub, other = DaemonStub(status=WORSE), DaemonStub()
    async with open_server(stub), open_server(other):
        page = await browser.new_page(bypass_csp=True)
        await sign_in(page, stub)
        await page.goto(other.url)
        await page.evaluate(
            "url => { const form = document.createElement('form'); form.method = 'post'; form.action = url;"
            " document.body.append(form); form.submit(); }",
            f"{stub.url}/reconcile",
        )
        await page.wait_for_selector("text=The request came from a page of another address")
        assert stub.triggers == []
        await page.close()


@pytest.mark.e2e
async def test_the_view_of_a_function_keeps_itself_fresh_and_asks_kapso_for_nothing(browser: Any) -> None:
    """A change shows without a reload, and a page of invocations stays as it was asked for."""
    stub = DaemonStub(status=WORSE)
    async with open_server(stub):
        page = await browser.new_page()
        await sign_in(page, stub, "/functions/broken-syntax")
        stub.status = status(function("broken-syntax"))
        stub.change.set()
        await page.wait_for_selector("#standing.good:has-text('It runs what git says.')")
        assert await page.locator("#history").count() == 1
        assert [read for read in stub.reads if read.startswith("invocations")] == []
        await page.click("text=Ask Kapso for the newest")
        await page.wait_for_selector(".invocations")
        assert await page.locator("script").count() == 0
        assert [read for read in stub.reads if read.startswith("invocations")] == ["invocations id-broken-syntax broken-syntax"]
        await page.close()


@pytest.mark.e2e
async def test_script_injection_has_no_effect_in_a_browser(browser: Any) -> None:
    """No foreign script runs, and our own CSP blocks nothing of ours; the same after a live update."""
    stub = DaemonStub()
    said: list[str] = []
    async with open_server(stub):
        page = await browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda _: said.append("a dialog"))
        await page.goto(stub.url)
        stub.status = hostile("</pre><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title></style>'&lt;")
        stub.change.set()
        await page.wait_for_selector("#verdict:has-text('Suspended')", timeout=5000)
        await page.reload()
        assert await page.locator("img").count() == 0
        assert said == []
        await page.close()


@pytest.mark.e2e
async def test_a_live_update_of_the_page_keeps_focus_scroll_and_selection(browser: Any) -> None:
    """A change shows without a reload; opened diffs stay open."""
    long = "".join(f"+line {number}\n" for number in range(200))
    drifted = function("tuned-by-hand", "Drifted", "changed on Kapso", diff=long)
    stub = DaemonStub(status=status(drifted, function("fine")))
    async with open_server(stub):
        page = await browser.new_page(viewport={"width": 800, "height": 500})
        await page.goto(stub.url)
        await page.evaluate("window.sameDocument = true")
        await page.locator("#diff-tuned-by-hand summary").click()
        await page.evaluate("document.querySelector('pre').scrollTop = 300; scrollTo(0, 250)")
        await page.evaluate("getSelection().selectAllChildren(document.querySelector('#function-tuned-by-hand h3'))")
        before = await page.evaluate("document.querySelector('#diff-tuned-by-hand').getBoundingClientRect().top")
        # Something new above it, something gone, something else first in the list.
        stub.status = status(
            function("broken", "Stalled", "no"), drifted, suspension=Suspension("why not", NOW), warnings=("something new",)
        )
        stub.change.set()
        await page.wait_for_selector("text=something new", timeout=5000)
        assert await page.evaluate("window.sameDocument")
        assert await page.evaluate("document.getElementById('diff-tuned-by-hand').open")
        assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"
        assert await page.evaluate("document.querySelector('pre').scrollTop") == 300
        assert await page.evaluate("getSelection().toString()") == "tuned-by-hand"
        assert await page.evaluate("document.querySelectorAll('.function').length") == 2
        after = await page.evaluate("document.querySelector('#diff-tuned-by-hand').getBoundingClientRect().top")
        assert abs(after - before) < 2, "what one reads does not move"
        await page.close()


@pytest.mark.e2e
async def test_a_live_update_of_the_page_equals_a_reload(browser: Any) -> None:
    """From any state to any other: healthy, failing, empty, and back."""
    stub = DaemonStub(status=EMPTY)
    async with open_server(stub):
        page = await browser.new_page()
        await page.goto(stub.url)
        for name in [*ALL, *reversed(ALL)]:
            stub.status = replace(ALL[name], version=f"after-{name}")
            stub.change.set()
            await page.wait_for_selector(f"footer:has-text('after-{name},')", timeout=5000)
            shown = await page.evaluate("document.querySelector('main').innerHTML")
            fresh = "fetch('/').then(a => a.text()).then(t => new DOMParser().parseFromString(t, 'text/html'))"
            assert shown == await page.evaluate(f"{fresh}.then(d => d.querySelector('main').innerHTML)"), name
        await page.close()


@pytest.mark.e2e
async def test_the_page_shows_when_the_connection_is_lost(browser: Any) -> None:
    """Its content may then be out of date; the note disappears once the server answers again."""
    stub = DaemonStub()
    async with open_server(stub):
        page = await browser.new_page()
        await page.goto(stub.url)
        stub.defect = RuntimeError("for a while")
        stub.change.set()
        await page.wait_for_selector("#offline:has-text('may be out of date')", timeout=5000)
        stub.defect = None
        stub.change.set()
        await page.wait_for_selector("#offline", state="hidden", timeout=5000)
        await page.close()


@pytest.mark.e2e
async def test_the_page_can_be_used_by_keyboard(browser: Any) -> None:
    """Everything is reached in the order in which it is read; diffs are opened and scrolled without a mouse."""
    stub = DaemonStub(status=status(*BAD.functions[1:3]))
    async with open_server(stub):
        page = await browser.new_page()
        await sign_in(page, stub)
        order = [await next_by_keyboard(page) for _ in range(7)]
        assert order == ["Sign out", "Reconcile", "Suspend…", "▲ 1 not ready", "◆ 1 drifted", "fails-to-deploy", "SUMMARY"]
        await page.keyboard.press("Enter")
        assert await next_by_keyboard(page) == "PRE"
        await page.goto(f"{stub.url}/functions/fails-to-deploy")
        order = [await next_by_keyboard(page) for _ in range(5)]
        assert order == ["kapso-sync", "Sign out", "All functions", "PRE", "Reconcile all"]
        await page.close()


async def next_by_keyboard(page: Any) -> str:
    """Press the tab key, and return the text of what has the focus then, or its tag where that says more."""
    await page.keyboard.press("Tab")
    tag, text = await page.evaluate("[document.activeElement.tagName, document.activeElement.innerText]")
    return tag if tag in ("SUMMARY", "PRE", "INPUT") else " ".join(text.split())


@pytest.mark.e2e
async def test_the_page_is_complete_without_javascript(browser: Any) -> None:
    """All content is there, diffs open, and the page reloads itself."""
    stub = DaemonStub(status=BAD)
    async with open_server(stub):
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(stub.url)
        await page.locator("#diff-tuned-by-hand summary").click()
        assert await page.locator("#diff-tuned-by-hand pre").is_visible()
        assert await page.locator("meta[http-equiv=refresh]").count() == 1
        await asyncio.wait_for(context.close(), 5)
