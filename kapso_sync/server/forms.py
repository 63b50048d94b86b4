"""Renders the pages with a form to fill in: to sign in, and to suspend; they never reload by themselves."""

from __future__ import annotations

from kapso_sync.model.status import DaemonStatus
from kapso_sync.server.markup import HOME, SIGN_IN, Frame, done_banner, escape, form_token, render_frame
from kapso_sync.server.sessions import Session, Viewer

DURATIONS = {
    "": ("until somebody resumes", None),
    "1h": ("1 hour", 3600.0),
    "4h": ("4 hours", 14_400.0),
    "1d": ("1 day", 86_400.0),
}
"""For how long a person may suspend: the value of the form, its words, and seconds."""

MAX_REASON = 500


def suspension_reason(given: object) -> str | None:
    """Return the reason of a suspension on one line, or None if it is empty, too long, or cannot be encoded."""
    if not isinstance(given, str) or not given.strip() or len(given) > MAX_REASON or not _is_text(given):
        return None
    return " ".join(given.split())


def _is_text(value: str) -> bool:
    """Return whether a text can be encoded: JSON may hold a lone surrogate."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def render_sign_in(to: str, problem: str = "", done: str = "") -> str:
    """Return the form for the admin token. It shows nothing of the daemon: nobody has shown a credential yet."""
    wrong = ' aria-describedby="problem" aria-invalid="true"' if problem else ""
    return render_frame(
        Frame("Sign in", SIGN_IN, live=False),
        f"""{done_banner(done)}<h1>Sign in</h1>
{_problem(problem)}<form class="card fields" method="post" action="{SIGN_IN}">
<input type="hidden" name="to" value="{escape(to, quote=True)}">
<input name="user" autocomplete="username" value="kapso-sync" hidden>
<label for="token">Admin token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus{wrong}>
<p class="note">The value of KAPSO_SYNC_ADMIN_TOKEN, or the file <code>admin-token</code> in the state folder.</p>
<button class="strong">Sign in</button>
</form>""",
    )


def render_suspend(status: DaemonStatus, session: Session, problem: str = "") -> str:
    """Return the form that suspends the daemon."""
    choices = "".join(f'<option value="{value}">{words}</option>' for value, (words, _) in DURATIONS.items())
    wrong = ' aria-describedby="problem" aria-invalid="true"' if problem else ""
    return render_frame(
        Frame("Suspend", "/suspend", status.source, viewer=Viewer(session), live=False),
        f"""<nav class="above" aria-label="Breadcrumb"><a href="{HOME}">All functions</a></nav>
<h1>Suspend</h1>
<p>Nothing is written to Kapso until the time is over, or somebody resumes. What is asked for meanwhile happens then.</p>
{_problem(problem)}<form class="card fields" method="post" action="/suspend">{form_token(session)}
<label for="reason">Reason, for everybody who looks at the page</label>
<input id="reason" name="reason" required maxlength="{MAX_REASON}"{wrong}>
<label for="for">For how long</label>
<select id="for" name="for">{choices}</select>
<button class="strong">Suspend</button>
</form>""",
    )


def render_problem(title: str, text: str, to: str = HOME, way: str = "Back") -> str:
    """Return a page that says why a request was not done, and the way from there; it shows nothing of the daemon."""
    return render_frame(
        Frame(title, SIGN_IN, live=False),
        f'<h1>{escape(title)}</h1>\n<p>{escape(text)}</p>\n<p><a href="{escape(to, quote=True)}">{escape(way)}</a></p>',
    )


def _problem(text: str) -> str:
    return f'<p id="problem" class="trouble" role="alert">{escape(text)}</p>\n' if text else ""
