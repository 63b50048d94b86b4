"""Renders the parts that the pages share: frame, times, states, commits, diffs and buttons; escapes all foreign text."""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime
from urllib.parse import quote

from kapso_sync.dataclass import dataclass
from kapso_sync.model.source import Revision
from kapso_sync.plurals import span
from kapso_sync.server.sessions import STRANGER, Session, Viewer
from kapso_sync.visible import visible

SHAPES = {"Ready": "●", "Reconciling": "◐", "Drifted": "◆", "Stalled": "■", "NotReady": "▲"}
WORDS = {
    "Ready": "ready",
    "Reconciling": "reconciling",
    "Drifted": "drifted",
    "Stalled": "stalled",
    "NotReady": "not ready",
}
TONES = {"good": "Ready", "busy": "Reconciling", "bad": "Stalled", "paused": "Drifted"}
"""The colours of a sentence, each with the state that has its shape."""

_LEVELS = {"error": ("■", "error"), "warning": ("▲", "warning")}

_COMMAND = re.compile("`([^`\n]+)`")

HOME = "/"
SIGN_IN = "/sign-in"


def escape(text: str, *, quote: bool = False) -> str:
    """Return foreign text as HTML; what does not print is spelled out, line breaks and tabs stay."""
    return html.escape("\n".join(map(visible, text.split("\n"))), quote=quote)


def with_commands(text: str) -> str:
    """Return foreign text as HTML, with what stands in back-ticks as code."""
    return _COMMAND.sub(r"<code>\1</code>", escape(text))


def function_path(slug: str, *more: str) -> str:
    """Return the path of a function's view, or of a page below it, as it stands in a link."""
    return "/".join(["/functions", *(quote(part, safe="", errors="replace") for part in (slug, *more))])


def sign_in_path(to: str) -> str:
    """Return the path of the form for the token, which leads back to a path."""
    return f"{SIGN_IN}?to={quote(to, safe='')}"


def time_tag(moment: datetime | None, now: datetime) -> str:
    """Return a time as a ``<time>`` element with relative words; its attributes have the exact time."""
    if moment is None:
        return "at an unknown time"
    words = relative(moment, now)
    exact = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return f'<time datetime="{exact}" title="{exact}">{words}</time>'


def relative(moment: datetime, now: datetime) -> str:
    """Return how long ago a time was, or in how long it will be."""
    seconds = (moment - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def took(seconds: float) -> str:
    """Return a duration, with tenths of a second if it is short."""
    return f"{seconds:.1f} s" if seconds < 10 else span(seconds)


def state_badge(state: str, text: str | None = None) -> str:
    """Return a state as colour, shape and word, so that one of them is enough to read it."""
    shape = f'<span aria-hidden="true" class="shape">{SHAPES[state]}</span>'
    return f'<span class="state {state.lower()}">{shape} {text or WORDS[state]}</span>'


def level_mark(level: str) -> str:
    """Return the level of an event as shape and word; empty for one that needs no attention."""
    shape, word = _LEVELS.get(level, ("", ""))
    return f'<span class="level"><span aria-hidden="true">{shape}</span> {word}</span> ' if word else ""


def level_class(level: str) -> str:
    """Return the class of what has a level; any other word is ``info``."""
    return level if level in _LEVELS else "info"


def commit(revision: Revision, when: datetime | None, now: datetime) -> str:
    """Return a revision on one line: its id, subject, author and time, as far as they are known."""
    quiet = [f"by {escape(revision.author)}"] if revision.author else []
    quiet += [time_tag(when, now)] if when is not None else []
    return f'{commit_name(replace(revision, author=None))} <span class="quiet">{", ".join(quiet)}</span>'


def commit_name(revision: Revision) -> str:
    """Return a revision as id, subject and author, which do not change with the time."""
    described = f" ({escape(revision.described)})" if revision.described else ""
    subject = f'<span class="subject">{escape(revision.subject)}</span>' if revision.subject else ""
    author = f" by {escape(revision.author)}" if revision.author else ""
    return f'<code title="{escape(revision.id, quote=True)}">{escape(revision.short)}</code>{described} {subject}{author}'


def diff_size(diff: str) -> str:
    """Return how many lines a diff adds and removes."""
    kinds = Counter(map(_kind, diff.removesuffix("\n").split("\n")))
    return f'<span class="size"><span class="ins">+{kinds["ins"]}</span> <span class="del">−{kinds["del"]}</span></span>'  # noqa: RUF001


def diff_block(diff: str, label: str) -> str:
    """Return a diff as lines of code, which can be scrolled by keyboard; ``label`` names it to screen readers."""
    lines = diff.removesuffix("\n").split("\n")
    shown = "".join(f'<span class="{_kind(line)}">{escape(line)}\n</span>' for line in lines)
    return f'<pre tabindex="0" role="region" aria-label="{escape(label, quote=True)}"><code>{shown}</code></pre>'


def _kind(line: str) -> str:
    if line.startswith(("---", "+++", "@@")):
        return "place"
    return {"+": "ins", "-": "del"}.get(line[:1], "same")


def button(action: str, text: str, session: Session, *, strong: bool = False) -> str:
    """Return a form with one button and the session's token, which acts when it is pressed."""
    kind = ' class="strong"' if strong else ""
    return (
        f'<form method="post" action="{escape(action, quote=True)}">{form_token(session)}'
        f"<button{kind}>{escape(text)}</button></form>"
    )


def form_token(session: Session) -> str:
    """Return the field without which no form of the session is accepted."""
    return f'<input type="hidden" name="form_token" value="{session.form_token}">'


def done_banner(done: str) -> str:
    """Return what the viewer has just asked for, if anything."""
    return f'<p id="done" class="banner done" role="status">{escape(done)}</p>\n' if done else ""


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds a page's content: its title, the source in the header, the version in the footer, and who looks.

    ``path`` is where it came from. ``live``: it keeps itself fresh. ``heading``: the program's name is the page's heading.
    """

    title: str
    path: str = HOME
    source: str = ""
    footer: str = ""
    viewer: Viewer = STRANGER
    live: bool = True
    heading: bool = False


def render_frame(frame: Frame, content: str) -> str:
    """Return a whole page."""
    name = "<h1>kapso-sync</h1>" if frame.heading else f'<p class="name"><a href="{HOME}">kapso-sync</a></p>'
    fresh = (
        f'<noscript><meta http-equiv="refresh" content="15;url={escape(frame.path, quote=True)}"></noscript>\n'
        '<script src="/static/page.js" defer></script>\n'
        if frame.live
        else ""
    )
    source = f'\n<p class="source">{escape(frame.source)}</p>' if frame.source else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(frame.title)} · kapso-sync</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/page.css">
{fresh}</head>
<body>
<header class="top">
{name}{source}
{_entrance(frame)}
</header>
<p id="offline" class="banner" role="status" hidden></p>
<main id="status">
{content}
</main>
<footer>{frame.footer}</footer>
</body>
</html>
"""


def _entrance(frame: Frame) -> str:
    """Return the way in, or out."""
    if frame.path == SIGN_IN:
        return ""
    session = frame.viewer.session
    sign_in = f'<a href="{sign_in_path(frame.path)}">Sign in</a>'
    way = sign_in if session is None else button("/sign-out", "Sign out", session)
    return f'<div class="entrance">{way}</div>'
