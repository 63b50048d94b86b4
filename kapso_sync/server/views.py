"""Answers for the page: its views, the way in and out, and the buttons, which do what the command line's requests do."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.status import FunctionStatus
from kapso_sync.server.access import Access, is_from_elsewhere, is_https, same_token
from kapso_sync.server.bodies import BodyReader
from kapso_sync.server.control import DaemonControl, ServerLimits
from kapso_sync.server.forms import DURATIONS, render_problem, render_sign_in, render_suspend, suspension_reason
from kapso_sync.server.function_page import render_backup, render_function, render_invocations
from kapso_sync.server.listing import Listing
from kapso_sync.server.markup import HOME, SIGN_IN, function_path
from kapso_sync.server.rendering import StatusRenderer
from kapso_sync.server.sessions import COOKIE, Guesses, Session

MAX_FIELDS = 20
"""Most fields of a form; ours have four."""

FORM = "application/x-www-form-urlencoded"

DONE = {
    "reconcile": "A pass was asked for.",
    "retry": "A retry was asked for.",
    "suspend": "Suspended.",
    "resume": "Resumed: a pass begins.",
    "sign-out": "You are signed out.",
}
"""What a page says after a button was pressed; a link can name one of these, and no text of its own."""

_OWN_PATH = re.compile(r"/(?:\?[\w%&=+.-]*|suspend|functions/[\w%.~-]+(?:/[\w-]+){0,2})?", re.ASCII)


@dataclass
class PageViews:
    """The endpoints for people. What somebody may not see or do is answered with a page that says so."""

    control: DaemonControl
    access: Access
    bodies: BodyReader
    renderer: StatusRenderer
    limits: ServerLimits
    guesses: Guesses

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", self.front),
            Route("/functions/{slug}", self.function),
            Route("/functions/{slug}/invocations", self.invocations),
            Route("/functions/{slug}/backups/{backup}", self.backup),
            Route("/functions/{slug}/retry", self.retry, methods=["POST"]),
            Route("/reconcile", self.reconcile, methods=["POST"]),
            Route("/suspend", self.suspend_form),
            Route("/suspend", self.suspend, methods=["POST"]),
            Route("/resume", self.resume, methods=["POST"]),
            Route(SIGN_IN, self.sign_in_form),
            Route(SIGN_IN, self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
        ]

    # What everybody sees who may read

    async def front(self, request: Request) -> Response:
        """Return the status page."""
        if (closed := self.access.closed(request)) is not None:
            return closed
        listing = Listing.parse(request.query_params, self.limits.page_size)
        viewer = self.access.viewer(request)
        return HTMLResponse(self.renderer.page(self.control.status(), listing, viewer, _done(request)))

    async def function(self, request: Request) -> Response:
        """Return the view of a function; what only the token opens is read for nobody else."""
        if (closed := self.access.closed(request)) is not None:
            return closed
        if (function := self._function(request)) is None:
            return _missing()
        viewer = self.access.viewer(request)
        record = await self.control.function_record(function) if viewer.trusted else None
        return _page(render_function(self.control.status(), function, record, viewer, _done(request)))

    # What the token opens

    async def invocations(self, request: Request) -> Response:
        """Return the newest invocations, for which Kapso is asked now: only here, and never for a page that reloads itself."""
        if (refused := self._locked(request)) is not None:
            return refused
        function = self._function(request)
        if function is None or function.function_id is None:
            return _missing()
        if request.method == "HEAD":
            return HTMLResponse()
        try:
            answer = await self.control.function_invocations(function.function_id, function.slug)
        except KapsoSyncError as problem:
            return _page(render_invocations(self.control.status(), function, problem, self.access.viewer(request)), 503)
        return _page(render_invocations(self.control.status(), function, answer, self.access.viewer(request)))

    async def backup(self, request: Request) -> Response:
        """Return a backup, beside what runs."""
        if (refused := self._locked(request)) is not None:
            return refused
        function = self._function(request)
        found = None if function is None else await self.control.function_backup(function, request.path_params["backup"])
        if function is None or found is None:
            return _missing()
        return _page(render_backup(self.control.status(), function, found, self.access.viewer(request)))

    def _locked(self, request: Request) -> Response | None:
        if (closed := self.access.closed(request)) is not None:
            return closed
        return None if self.access.viewer(request).trusted else _sign_in_first(request.url.path)

    def _function(self, request: Request) -> FunctionStatus | None:
        slug = request.path_params["slug"]
        return next((function for function in self.control.status().functions if function.slug == slug), None)

    # In and out

    async def sign_in_form(self, request: Request) -> Response:
        """Return the form for the token."""
        return _page(render_sign_in(_own_path(request.query_params.get("to", "")), done=_done(request)))

    async def sign_in(self, request: Request) -> Response:
        """Open a session for who sends the admin token, and go where they came from."""
        if is_from_elsewhere(request.headers):
            return _from_elsewhere()
        form = await self._form(request)
        if isinstance(form, Response):
            return form
        to, address = _own_path(form.get("to", "")), request.client.host if request.client else ""
        wait = self.guesses.wait(address)
        if wait is not None:
            seconds = math.ceil(wait)
            page = render_sign_in(to, f"Too many wrong tokens came from your address. Try again in {seconds} s.")
            return _page(page, 429, {"Retry-After": str(seconds)})
        try:
            token = self.access.token()
        except KapsoSyncError:
            return _page(render_sign_in(to, "The admin token cannot be read at the moment; the log may say more."), 503)
        if not same_token(form.get("token", "").strip().encode("utf-8", "replace"), token):
            self.guesses.add(address)
            return _page(render_sign_in(to, "This is not the admin token."), 403)
        self.access.sessions.close(request.cookies.get(COOKIE))
        answer = _go(to)
        answer.set_cookie(
            COOKIE,
            self.access.sessions.open(token),
            max_age=int(self.limits.session),
            path="/",
            secure=is_https(request.headers),
            httponly=True,
            samesite="strict",
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        asked = await self._asked(request, HOME)
        if isinstance(asked, Response):
            return asked
        self.access.sessions.close(request.cookies.get(COOKIE))
        answer = _go(f"{SIGN_IN}?done=sign-out")
        answer.delete_cookie(COOKIE, path="/", secure=is_https(request.headers), httponly=True, samesite="strict")
        return answer

    # The buttons

    async def reconcile(self, request: Request) -> Response:
        """Request a pass."""
        asked = await self._asked(request, HOME)
        if isinstance(asked, Response):
            return asked
        return await self._do(self.control.request_reconcile(PassOverrides()), f"{HOME}?done=reconcile")

    async def retry(self, request: Request) -> Response:
        """Request a pass that tries one function again, whatever became of it before."""
        slug = request.path_params["slug"]
        asked = await self._asked(request, function_path(slug))
        if isinstance(asked, Response):
            return asked
        if self._function(request) is None:
            return _missing()
        overrides = PassOverrides(retry=frozenset({slug}))
        return await self._do(self.control.request_reconcile(overrides), f"{function_path(slug)}?done=retry")

    async def suspend_form(self, request: Request) -> Response:
        """Return the form that suspends the daemon."""
        session = self.access.viewer(request).session
        if session is None:
            return _sign_in_first("/suspend")
        return _page(render_suspend(self.control.status(), session))

    async def suspend(self, request: Request) -> Response:
        """Stop writing."""
        asked = await self._asked(request, "/suspend")
        if isinstance(asked, Response):
            return asked
        session, form = asked
        reason, chosen = suspension_reason(form.get("reason", "")), DURATIONS.get(form.get("for", ""))
        if reason is None or chosen is None:
            problem = "Give a reason of at most 500 characters, and choose for how long."
            return _page(render_suspend(self.control.status(), session, problem), 400)
        return await self._do(self.control.suspend(reason, chosen[1]), f"{HOME}?done=suspend")

    async def resume(self, request: Request) -> Response:
        """Write again."""
        asked = await self._asked(request, HOME)
        if isinstance(asked, Response):
            return asked
        return await self._do(self.control.resume(), f"{HOME}?done=resume")

    async def _asked(self, request: Request, to: str) -> tuple[Session, Mapping[str, str]] | Response:
        """Return the session and the form of who may act, or an answer that says why nothing is done.

        It takes the cookie, which no page of another site can send, and the form's token, which none can know.
        """
        if is_from_elsewhere(request.headers):
            return _from_elsewhere()
        session = self.access.viewer(request).session
        if session is None:
            return _sign_in_first(to)
        form = await self._form(request)
        if isinstance(form, Response):
            return form
        if not session.sent(form.get("form_token", "")):
            text = "The form does not belong to your session. Go back, load the page again, and repeat."
            return _page(render_problem("Nothing was done", text, to), 403)
        return session, form

    async def _do(self, work: Awaitable[None], to: str) -> Response:
        try:
            await work
        except KapsoSyncError as problem:
            return _page(render_problem("It could not be done", problem.message), 503)
        return _go(to)

    async def _form(self, request: Request) -> dict[str, str] | Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
            return _page(render_problem("Nothing was done", "A form was expected."), 415)
        body = await self.bodies.read(request)
        if isinstance(body, Response):
            return body
        try:
            text = body.decode("ascii")
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
        except ValueError:
            return _page(render_problem("Nothing was done", "The form cannot be read."), 400)


def _done(request: Request) -> str:
    return DONE.get(request.query_params.get("done", ""), "")


def _own_path(given: str) -> str:
    """Return a path of ours that a form may lead to; the front page in place of anything else."""
    return given if _OWN_PATH.fullmatch(given) else HOME


def _go(to: str) -> Response:
    """Return a redirect that a browser follows with GET, so that a reload repeats nothing."""
    return RedirectResponse(to, 303)


def _page(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return HTMLResponse(text.encode("utf-8", "replace"), status, headers)


def _missing() -> Response:
    return _page(render_problem("Not found", "There is no such function or backup."), 404)


def _sign_in_first(to: str) -> Response:
    return _page(render_sign_in(to, "Sign in first: you are not signed in, or your session has ended."), 403)


def _from_elsewhere() -> Response:
    text = (
        "The request came from a page of another address, so that nothing was done. If you use a proxy, it must pass the "
        "header Host on, or send X-Forwarded-Host."
    )
    return _page(render_problem("Nothing was done", text), 403)
