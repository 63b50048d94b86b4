"""The page as a place to work: who may see and do what, with real HTTP, and what an attacker tries in vain."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from kapso_sync.errors import ApiUnavailable, Call, ConfigError, StateUnusable
from kapso_sync.model.policies import PassOverrides
from kapso_sync.server.control import ServerLimits
from tests.server.front import TOKEN, DaemonStub, open_server
from tests.server.statuses import BACKUP, BAD, GOOD, STANDBY, SUSPENDED, WORSE, function, status

BEARER = {"Authorization": f"Bearer {TOKEN}"}
VIEW = "/functions/broken-syntax"
INVOCATIONS = f"{VIEW}/invocations"
OLD = f"{VIEW}/backups/{BACKUP.summary.id}"
ACTIONS = ("/reconcile", f"{VIEW}/retry", "/suspend", "/resume", "/sign-out")


@pytest.fixture
def stub() -> DaemonStub:
    return DaemonStub(status=WORSE)


@pytest.fixture
async def client(stub: DaemonStub) -> AsyncIterator[httpx.AsyncClient]:
    async with open_server(stub) as running:
        yield running


async def sign_in(client: httpx.AsyncClient, token: str = TOKEN, to: str = VIEW, **headers: str) -> httpx.Response:
    return await client.post("/sign-in", data={"token": token, "to": to}, headers=headers)


async def form_token(client: httpx.AsyncClient, path: str = "/") -> str:
    found = re.search(r'name="form_token" value="(\w+)"', (await client.get(path)).text)
    assert found is not None
    return found[1]


def done(stub: DaemonStub) -> list[object]:
    return [*stub.triggers, *stub.suspensions, stub.overrides]


NOTHING: list[object] = [PassOverrides()]


async def test_the_admin_token_opens_a_session_in_a_strict_cookie(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """No script and no other site can read or send it; it goes back to where the person came from."""
    answer = await sign_in(client)
    assert (answer.status_code, answer.headers["location"]) == (303, VIEW)
    cookie = answer.headers["set-cookie"]
    name, _, rest = cookie.partition("=")
    value, *attributes = rest.split("; ")
    assert (name, {*attributes}) == ("kapso_sync_session", {"HttpOnly", "Max-Age=3600", "Path=/", "SameSite=strict"})
    assert len(value) >= 40
    assert TOKEN not in cookie
    assert TOKEN not in (await client.get(VIEW)).text
    assert value not in (await client.get(VIEW)).text


@pytest.mark.parametrize(
    ("headers", "secure"),
    [
        ({"X-Forwarded-Proto": "https"}, True),
        ({"Forwarded": 'for=10.0.0.1; proto="https"'}, True),
        ({"X-Forwarded-Proto": "http"}, False),
        ({}, False),
    ],
)
async def test_the_cookie_is_secure_when_the_request_came_over_https(
    client: httpx.AsyncClient, headers: dict[str, str], *, secure: bool
) -> None:
    """A proxy says so; it is not sent over http then."""
    assert ("Secure" in (await sign_in(client, **headers)).headers["set-cookie"]) is secure


async def test_a_stranger_on_loopback_sees_the_status_and_nothing_more(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """What `/api/status` shows is there; history, checks, backups, invocations and buttons are not, nor are they read."""
    page = (await client.get(VIEW)).text
    for said in ("Since commit", "bad0bad0bad0", "broken-syntax.ts:12:5", "What to do", "close the bracket"):
        assert said in page
    secret = ("check 2 failed", "0123456789abcdef", "Live and before", "form_token", "<button", "An unknown revision")
    assert [text for text in secret if text in page] == []
    hidden = ("check 2 failed", "Live and before", "Bring it back", "asked for")
    for path in (INVOCATIONS, OLD, "/suspend"):
        answer = await client.get(path)
        assert (answer.status_code, [text for text in hidden if text in answer.text]) == (403, [])
    assert stub.reads == []
    await sign_in(client)
    page = (await client.get(VIEW)).text
    assert [text for text in secret if text not in page] == []
    assert stub.reads == ["record broken-syntax"]


async def test_console_lines_are_shown_to_who_has_the_token_alone() -> None:
    """They may hold people's data. Everybody who reads the page sees where it failed."""
    failed = next(each for each in BAD.functions if each.evidence is not None and each.evidence.console)
    assert failed.evidence is not None
    path, line = f"/functions/{failed.slug}", failed.evidence.console[-1].split()[-1]
    async with open_server(DaemonStub(status=BAD)) as client:
        stranger = (await client.get(path)).text + (await client.get("/")).text
        assert (await client.get(path)).status_code == 200
        assert f"Console of {failed.slug}" not in stranger
        assert line not in stranger
        trusted = (await client.get(path, headers=BEARER)).text

        def evidence(answer: httpx.Response) -> object:
            return next(each["evidence"] for each in answer.json()["functions"] if each["slug"] == failed.slug)

        assert evidence(await client.get("/api/status")) == {"place": failed.evidence.place, "console": []}
        told = evidence(await client.get("/api/status", headers=BEARER))
    assert f"Console of {failed.slug}" in trusted
    assert line in trusted
    assert told == {"place": failed.evidence.place, "console": list(failed.evidence.console)}


async def test_the_bearer_token_reads_everything_and_basic_does_not(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """A browser sends HTTP Basic by itself, from any page; a script sends a bearer token on purpose."""
    assert "check 2 failed" in (await client.get(VIEW, headers=BEARER)).text
    assert "total (lib/total.ts:7:23)" in (await client.get(INVOCATIONS, headers=BEARER)).text
    assert (await client.get(INVOCATIONS, auth=("any", TOKEN))).status_code == 403
    assert stub.reads == ["record broken-syntax", "invocations id-broken-syntax broken-syntax"]


@pytest.mark.parametrize("path", [VIEW, INVOCATIONS, OLD, "/", "/events"])
async def test_off_loopback_every_view_needs_the_token_or_a_session(path: str) -> None:
    """The form to sign in shows nothing of the daemon."""
    async with open_server(DaemonStub(status=WORSE, public=True)) as client:
        refused = await client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        assert "broken-syntax" not in refused.text
        form = await client.get("/sign-in")
        assert form.status_code == 200
        assert [text for text in ("broken-syntax", "acme", WORSE.version) if text in form.text] == []
        await sign_in(client)
        async with client.stream("GET", path) as answer:
            assert answer.status_code == 200


async def test_behind_a_proxy_on_loopback_a_session_is_needed_as_well(client: httpx.AsyncClient) -> None:
    """A person whose browser got 401 finds the way in on its page."""
    proxied = {"X-Forwarded-For": "203.0.113.7", "Accept": "text/html"}
    refused = await client.get(VIEW, headers=proxied)
    assert (refused.status_code, 'href="/sign-in"' in refused.text) == (401, True)
    await sign_in(client)
    assert (await client.get(VIEW, headers=proxied)).status_code == 200


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], f"{TOKEN}x", "é", "\udcff".encode("utf-8", "replace").decode()])
async def test_a_wrong_token_opens_nothing(client: httpx.AsyncClient, token: str) -> None:
    """No cookie is set, and the form is shown again."""
    answer = await sign_in(client, token)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "This is not the admin token." in answer.text


async def test_guesses_are_limited_and_then_even_the_token_has_to_wait(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """For a minute from the first wrong one; other endpoints are not affected."""
    for _ in range(stub.limits.guesses):
        assert (await sign_in(client, "wrong")).status_code == 403
    for token in ("wrong", TOKEN):
        answer = await sign_in(client, token)
        assert (answer.status_code, answer.headers["retry-after"], "set-cookie" in answer.headers) == (429, "60", False)
    assert (await client.post("/api/resume", headers=BEARER)).status_code == 202
    await stub.clock.sleep(60.1)
    assert (await sign_in(client)).status_code == 303


async def test_guesses_of_all_addresses_together_are_limited(stub: DaemonStub) -> None:
    """Many addresses give no more guesses."""
    stub.limits = ServerLimits(guesses=50, guesses_in_all=3)
    async with open_server(stub) as client:
        for _ in range(3):
            assert (await sign_in(client, "wrong")).status_code == 403
        assert (await sign_in(client, "wrong")).status_code == 429


@pytest.mark.parametrize(
    "to",
    [
        *(
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "/functions/../../x",
            "javascript:alert(1)",
            "/%0d%0aX: y",
        ),
        *("/functions/a/b/c/d", "", "/sign-out", "/?q=a\r\nX-Y: z"),
    ],
)
async def test_signing_in_leads_to_our_own_views_only(client: httpx.AsyncClient, to: str) -> None:
    """No link can lead a person elsewhere by way of the form."""
    assert (await sign_in(client, to=to)).headers["location"] == "/"
    assert 'name="to" value="/"' in (await client.get("/sign-in", params={"to": to})).text
    assert (await sign_in(client, to="/functions/a%2Fb")).headers["location"] == "/functions/a%2Fb"


async def test_buttons_do_what_the_command_line_asks_for(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Each answers with a redirect, so that a reload of the page repeats nothing."""
    await sign_in(client)
    token = {"form_token": await form_token(client)}
    answer = await client.post("/reconcile", data=token)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?done=reconcile")
    assert "A pass was asked for." in (await client.get("/?done=reconcile")).text
    answer = await client.post(f"{VIEW}/retry", data=token)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{VIEW}?done=retry")
    answer = await client.post("/suspend", data={**token, "reason": " moving\n the project ", "for": "4h"})
    assert (answer.status_code, stub.suspensions) == (303, [("moving the project", 14_400.0)])
    stub.status = SUSPENDED
    assert 'action="/resume"' in (await client.get("/")).text
    await client.post("/resume", data=token)
    assert stub.triggers == ["reconcile", "reconcile", "resume"]
    assert stub.overrides == PassOverrides(retry=frozenset({"broken-syntax"}))


@pytest.mark.parametrize("path", ACTIONS)
async def test_nothing_is_done_without_session_form_token_and_our_own_page(
    stub: DaemonStub, client: httpx.AsyncClient, path: str
) -> None:
    """Each is missing once, and wrong once; with all of them it is done."""
    fields = {"reason": "x", "for": ""}
    assert (await client.post(path, data=fields)).status_code == 403
    assert (await client.post(path, data=fields, headers=BEARER)).status_code == 403
    assert (await client.post(path, data=fields, auth=("any", TOKEN))).status_code == 403
    await sign_in(client)
    right = {**fields, "form_token": await form_token(client)}
    other = {**fields, "form_token": "0" * 64}
    for data, headers in (
        (fields, {}),
        (other, {}),
        ({**fields, "form_token": "é"}, {}),
        (right, {"Origin": "https://evil.example"}),
        (right, {"Origin": "null"}),
        (right, {"Origin": "http://[::1"}),
        (right, {"Origin": f"http://127.0.0.1:{int(stub.url.rpartition(':')[2]) - 1}"}),
        (right, {"Sec-Fetch-Site": "cross-site"}),
        (right, {"Sec-Fetch-Site": "same-site", "Origin": stub.url}),
        (right, {"Host": "evil.example"}),
    ):
        assert (await client.post(path, data=data, headers=headers)).status_code == 403, (data, headers)
    for headers, status_code in (({"Content-Type": "application/json"}, 415), ({"Content-Type": "text/plain"}, 415)):
        assert (await client.post(path, content=b"{}", headers=headers)).status_code == status_code
    assert (await client.get(f"{path}?form_token={right['form_token']}")).status_code in (200, 405)
    assert done(stub) == NOTHING
    answer = await client.post(path, data=right, headers={"Origin": stub.url, "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303


async def test_no_get_changes_anything(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Also for who has signed in: a link or an image on another page does no more. HEAD does not ask Kapso either."""
    await sign_in(client)
    for method in ("GET", "HEAD"):
        for path in (*ACTIONS, "/sign-in", VIEW, OLD, "/", "/api/status", "/api/reconcile"):
            await client.request(method, path)
    assert (await client.head(INVOCATIONS)).status_code == 200
    assert done(stub) == NOTHING
    assert [read for read in stub.reads if read.startswith("invocations")] == []
    assert (await client.get(VIEW)).text.count("Sign out") == 1, "and the session goes on"


async def test_a_session_ends_with_its_time_with_signing_out_and_with_the_token(
    stub: DaemonStub, client: httpx.AsyncClient
) -> None:
    """A cookie that somebody has kept opens nothing afterwards, and its form token does nothing."""
    await sign_in(client)
    kept, token = client.cookies["kapso_sync_session"], await form_token(client)
    again = {"Cookie": f"kapso_sync_session={kept}"}
    assert (await client.post("/reconcile", data={"form_token": token}, headers=again)).status_code == 303
    answer = await client.post("/sign-out", data={"form_token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?done=sign-out")
    assert 'kapso_sync_session="";' in answer.headers["set-cookie"]
    assert "Max-Age=0;" in answer.headers["set-cookie"]
    for _ in range(2):
        assert (await client.post("/reconcile", data={"form_token": token}, headers=again)).status_code == 403
        assert (await client.get(INVOCATIONS, headers=again)).status_code == 403
        await sign_in(client)
        kept, token = client.cookies["kapso_sync_session"], await form_token(client)
        again = {"Cookie": f"kapso_sync_session={kept}"}
        assert (await client.get(INVOCATIONS, headers=again)).status_code == 200
        client.cookies.clear()
        await stub.clock.sleep(stub.limits.session)
    await sign_in(client)
    assert (await client.get(INVOCATIONS)).status_code == 200
    stub.token = "another-token"
    assert (await client.get(INVOCATIONS)).status_code == 403
    assert stub.triggers == ["reconcile"]


async def test_each_session_has_a_form_token_of_its_own(client: httpx.AsyncClient) -> None:
    """Who has signed in cannot act in the name of somebody else."""
    await sign_in(client)
    first = await form_token(client)
    client.cookies.clear()
    await sign_in(client)
    assert await form_token(client) != first
    assert (await client.post("/reconcile", data={"form_token": first})).status_code == 403


async def test_the_number_of_sessions_is_limited(stub: DaemonStub) -> None:
    """The oldest ends for the newest."""
    stub.limits = ServerLimits(sessions=2)
    async with open_server(stub) as client:
        cookies = []
        for _ in range(3):
            await sign_in(client)
            cookies.append(client.cookies["kapso_sync_session"])
            client.cookies.clear()
        found = [
            (await client.get("/suspend", headers={"Cookie": f"kapso_sync_session={cookie}"})).status_code for cookie in cookies
        ]
        assert found == [403, 200, 200]


@pytest.mark.parametrize("cookie", ["", "x", "é", "a" * 4000, "kapso_sync_session", "; kapso_sync_session=;"])
async def test_a_made_up_cookie_opens_nothing(client: httpx.AsyncClient, cookie: str) -> None:
    """Nor does it fail."""
    headers = [(b"Cookie", b"kapso_sync_session=" + cookie.encode())]
    assert (await client.get(INVOCATIONS, headers=headers)).status_code == 403
    assert (await client.get("/", headers=headers)).status_code == 200


async def test_a_form_that_is_no_form_is_refused(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Too many fields, bytes that are no form, too large."""
    kind = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    for body, status_code in ((b"a=1&" * 50, 400), (b"token=\xff", 400), (b"x" * (1024 * 1024 + 1), 413)):
        assert (await client.post("/sign-in", content=body, headers=kind)).status_code == status_code


@pytest.mark.parametrize("fields", [{"reason": ""}, {"reason": "x" * 501}, {"reason": "x", "for": "9y"}, {"for": "1h"}])
async def test_an_invalid_suspension_shows_the_form_again(
    stub: DaemonStub, client: httpx.AsyncClient, fields: dict[str, str]
) -> None:
    """With what is wrong; nothing is suspended."""
    await sign_in(client)
    answer = await client.post("/suspend", data={**fields, "form_token": await form_token(client)})
    assert (answer.status_code, "Give a reason" in answer.text, stub.suspensions) == (400, True, [])


async def test_what_cannot_be_done_is_said_on_a_page(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """With the daemon's own words, and markup in them stays text."""
    await sign_in(client)
    stub.failure = StateUnusable("state/<b> cannot be written: No space left on device")
    answer = await client.post("/suspend", data={"reason": "x", "for": "", "form_token": await form_token(client)})
    assert (answer.status_code, "state/&lt;b&gt; cannot be written" in answer.text) == (503, True)
    stub.failure = ApiUnavailable("no connection to <app>", call=Call("GET", "/functions"), sent=False)
    answer = await client.get(INVOCATIONS)
    assert (answer.status_code, "no connection to &lt;app&gt;" in answer.text) == (503, True)


async def test_without_a_readable_token_nobody_gets_in(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """And who was in is a stranger meanwhile."""
    await sign_in(client)
    stub.token_failure = ConfigError("KAPSO_SYNC_ADMIN_TOKEN_FILE cannot be read")
    assert (await sign_in(client)).status_code == 503
    assert (await client.get(INVOCATIONS)).status_code == 403
    assert (await client.get(VIEW)).status_code == 200
    stub.token_failure, stub.token = None, ""
    assert (await sign_in(client, "")).status_code == 403


async def test_an_unknown_function_or_backup_is_404(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Also for who has signed in, and for any name."""
    await sign_in(client)
    for path in (
        "/functions/nobody",
        "/functions/nobody/invocations",
        f"{VIEW}/backups/none",
        "/functions/%2e%2e",
        "/functions/",
    ):
        assert (await client.get(path)).status_code == 404, path
    answer = await client.post("/functions/nobody/retry", data={"form_token": await form_token(client)})
    assert (answer.status_code, done(stub)) == (404, NOTHING)
    stub.status = STANDBY
    assert (await client.get(VIEW)).status_code == 404


async def test_odd_slugs_have_views_too(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """The link leads there, whatever a name on Kapso holds, but for a slash, which no slug can have."""
    for slug in ("a b", "ä?#%", "<script>", 'x"y'):
        stub.status = status(function(slug))
        path = re.search(r'<h3><a href="([^"]+)">', (await client.get("/")).text)
        assert path is not None
        answer = await client.get(path[1])
        assert (answer.status_code, "<script>" in answer.text) == (200, False)


async def test_a_push_of_reconcile_while_suspended_says_when_it_takes_effect(
    stub: DaemonStub, client: httpx.AsyncClient
) -> None:
    """The view of a function says that it waits for a resume."""
    await sign_in(client)
    stub.status = replace(SUSPENDED, functions=WORSE.functions)
    assert "It takes effect once the daemon is resumed." in (await client.get(VIEW)).text


MANY = status(*(function(f"number-{index:04}", "Stalled" if index % 10 == 0 else "Ready") for index in range(1000)))


async def test_a_thousand_functions_are_filtered_and_paged_by_the_server(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Those that need a person come first, and each page has a hundred."""
    stub.status = MANY

    def shown(answer: httpx.Response) -> list[str]:
        return re.findall(r'<li class="function \w+" id="function-([\w-]+)"', answer.text)

    first = await client.get("/")
    assert shown(first) == [f"number-{index:04}" for index in range(0, 1000, 10)]
    assert "1 to 100 of 1000" in first.text
    seen = [slug for page in range(1, 11) for slug in shown(await client.get("/", params={"page": str(page)}))]
    assert len(seen) == len({*seen}) == 1000
    assert shown(await client.get("/", params={"q": "R-0123"})) == ["number-0123"]
    assert len(shown(await client.get("/", params={"state": "stalled", "q": "number-00"}))) == 10
    for odd in ({"page": "99"}, {"page": "-1"}, {"page": "9" * 5000}, {"page": "²"}, {"state": "<b>"}, {"q": " " * 5000}):
        answer = await client.get("/", params=odd)
        assert (answer.status_code, len(shown(answer)), "<b>" in answer.text) == (200, 100, False), odd
    assert "No function matches." in (await client.get("/", params={"q": '"><script>x'})).text
    assert "<script>x" not in (await client.get("/", params={"q": '"><script>x'})).text


async def test_what_is_asked_for_leaves_nothing_behind(stub: DaemonStub) -> None:
    """No filter, page, view or guess of a stranger makes the server keep more."""
    stub.status = MANY
    async with open_server(stub) as client:
        for index in range(150):
            await client.get("/", params={"q": f"filter {index}", "page": str(index)})
            await client.get(f"/functions/stranger-{index}")
            await client.get("/", headers={"Cookie": f"kapso_sync_session=made-up-{index}"})
            await sign_in(client, f"guess {index}")
        views = stub.views
    assert (len(views.access.sessions._opened), len(views.guesses._wrong)) == (0, stub.limits.guesses)
    assert len(views.renderer._cards) <= len(MANY.functions)


async def test_good_functions_have_a_calm_view(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """It runs what git says, and there is nothing to retry."""
    stub.status = GOOD
    await sign_in(client)
    page = (await client.get("/functions/fetch-order")).text
    assert "It runs what git says." in page
    assert "What to do" not in page
    assert "/retry" not in page
    stub.status = BAD
    page = (await client.get("/functions/fails-to-deploy")).text
    assert "the deployment ended in `error`, 2 times" in page
