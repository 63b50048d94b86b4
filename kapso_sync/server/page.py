"""Renders the front page: one style sheet, complete without JavaScript."""

from __future__ import annotations

from datetime import datetime

from kapso_sync.model.source import Revision
from kapso_sync.model.status import ConditionType, DaemonStatus, RateLimit, RecentEvent, Role
from kapso_sync.plurals import counted, span
from kapso_sync.server.chart import activity_section
from kapso_sync.server.listing import Cards, Listing, listing_section, render_cards
from kapso_sync.server.markup import (
    SHAPES,
    TONES,
    Frame,
    button,
    commit,
    done_banner,
    escape,
    level_class,
    level_mark,
    render_frame,
    time_tag,
    took,
)
from kapso_sync.server.sessions import STRANGER, Viewer

WHOLE = Listing()


def render_page(
    status: DaemonStatus, cards: Cards = render_cards, *, listing: Listing = WHOLE, viewer: Viewer = STRANGER, done: str = ""
) -> str:
    """Return the whole page; ``cards`` renders the functions, ``done`` says what the viewer has just asked for."""
    tone, sentence = _verdict(status)
    frame = Frame(
        title=sentence.split(":")[0].rstrip("."),
        path=listing.path,
        source=status.source,
        footer=footer(status),
        viewer=viewer,
        heading=True,
    )
    return render_frame(
        frame,
        f"""{done_banner(done)}{_suspended(status)}
<section id="standing" class="card verdict {tone}" aria-labelledby="verdict">
{_sentence(tone, sentence)}
{_trouble(status)}
{_in_effect(status)}
{_actions(status, viewer)}
</section>
{_warnings(status)}
{_facts(status)}
{_in_flight(status)}
{activity_section(status.activity, status.now)}
{listing_section(status.functions, status.now, cards, listing)}
{_events(status)}""",
    )


def footer(status: DaemonStatus) -> str:
    """Return what stands below each page."""
    return (
        f"<p>kapso-sync {escape(status.version)}, running for {span((status.now - status.started_at).total_seconds())}.\n"
        '<a href="/api/status">JSON</a> · <a href="/metrics">Metrics</a></p>'
    )


def _actions(status: DaemonStatus, viewer: Viewer) -> str:
    """Return the buttons of who has signed in."""
    session = viewer.session
    if session is None:
        return ""
    writes = (
        '<a class="button" href="/suspend">Suspend…</a>' if status.suspension is None else button("/resume", "Resume", session)
    )
    return f'<div class="actions">{button("/reconcile", "Reconcile", session)}{writes}</div>'


def _verdict(status: DaemonStatus) -> tuple[str, str]:
    """Return the colour and the sentence of the overall status."""
    count = len(status.listed)
    unready = sum(not function.condition(ConditionType.READY).status for function in status.listed)
    if status.suspension is not None:
        return "paused", "Suspended: nothing is written to Kapso."
    if status.role is Role.STANDBY:
        known = status.replica is not None and status.replica.leader is not None
        return "paused", "Standby: another replica writes to Kapso." if known else "Standby: no replica leads."
    if status.last_pass is None:
        return "busy", "Starting: the first pass is running."
    if status.reconciling:
        return "busy", "A pass is running."
    if status.last_pass.error is not None:
        return "bad", "The last pass failed. What runs on Kapso is unchanged."
    if status.in_sync:
        runs = "runs" if count == 1 else "run"
        sentence = (
            f"In sync: {counted(count, 'function')} {runs} what git says." if count else "In sync: git lists no function."
        )
        return "good", f"{sentence} {_left_git(status)}." if status.left_git else sentence
    if not unready:
        return "bad", f"{_left_git(status)} and needs a decision."
    return "bad", f"{unready} of {counted(count, 'function')} not ready."


def _left_git(status: DaemonStatus) -> str:
    return f"{counted(len(status.left_git), 'more function')} left git"


def _sentence(tone: str, sentence: str) -> str:
    """Return the sentence as a live region: screen readers read it when it changes, so it holds no times."""
    shape = f'<span aria-hidden="true" class="shape">{SHAPES[TONES[tone]]}</span>'
    return f'<div role="status"><h2 id="verdict">{shape} {escape(sentence)}</h2></div>'


def _suspended(status: DaemonStatus) -> str:
    suspension = status.suspension
    if suspension is None:
        return ""
    until = f", ends {time_tag(suspension.until, status.now)}" if suspension.until else ", until somebody resumes"
    return (
        f'<section id="suspended" class="banner" aria-label="Suspended"><p class="reason">{escape(suspension.reason)}</p>'
        f'<p class="note">suspended {time_tag(suspension.since, status.now)}{until}</p></section>'
    )


def _trouble(status: DaemonStatus) -> str:
    last = status.last_pass
    if last is None or last.error is None:
        return ""
    hint = f'<p class="hint"><span aria-hidden="true">→</span> {escape(last.hint)}</p>' if last.hint else ""
    named = last.broken_by is not None and last.broken_by.subject is not None
    broken = _revision(last.broken_by, None, status.now, "Broken by") if named else ""
    return f'<div class="trouble"><p class="error">{escape(last.error)}</p>{broken}{hint}</div>'


def _in_effect(status: DaemonStatus) -> str:
    broken = status.last_pass is not None and status.last_pass.broken_by is not None
    label = "Still in effect" if broken else ""
    return _revision(status.revision, status.revision_since, status.now, label)


def _revision(revision: Revision | None, since: datetime | None, now: datetime, label: str = "") -> str:
    if revision is None:
        return ""
    shown = commit(revision, revision.committed_at or since, now)
    return f'<p class="revision">{label + " " if label else ""}{shown}</p>'


def _warnings(status: DaemonStatus) -> str:
    if not status.warnings:
        return ""
    items = "".join(f'<li><span aria-hidden="true" class="shape">▲</span> {escape(text)}</li>' for text in status.warnings)
    return f'<section id="warned" aria-label="Warnings"><ul class="warnings">{items}</ul></section>'


def _facts(status: DaemonStatus) -> str:
    facts = []
    if status.running is not None:
        began = time_tag(status.running.since, status.now)
        facts.append(_fact("Running pass", f"began {began}", escape(status.running.trigger)))
    if status.last_pass is not None:
        last = status.last_pass
        detail = f"{escape(last.trigger)}, {took(last.seconds)}, {counted(last.api_calls, 'API call')}"
        facts.append(_fact("Last pass", time_tag(last.finished_at, status.now), detail))
    if status.next_check_at is not None:
        facts.append(_fact("Next pass", time_tag(status.next_check_at, status.now), "or as soon as something changes"))
    if status.budget is not None:
        facts.append(_fact("API calls left", _budget(status.budget), f"of {status.budget.limit} in this window"))
    if status.replica is not None:
        leader = f"<code>{escape(status.replica.leader)}</code>" if status.replica.leader else "none is known"
        facts.append(_fact("Leader", leader, f"{status.role}, by the Lease {escape(status.replica.lease)}"))
    if status.owner:
        facts.append(_fact("Owner", f"<code>{escape(status.owner)}</code>"))
    items = "\n".join(facts)
    return f'<section id="glance" aria-label="At a glance"><dl class="facts">\n{items}\n</dl></section>' if facts else ""


def _fact(name: str, value: str, detail: str = "") -> str:
    note = f' <span class="note">{detail}</span>' if detail else ""
    return f"<div><dt>{name}</dt><dd>{value}{note}</dd></div>"


def _budget(budget: RateLimit) -> str:
    limit, left = max(budget.limit, 1), max(0, budget.remaining)
    return (
        f'<meter min="0" low="{limit // 10}" high="{limit // 4}" optimum="{limit}" max="{limit}" value="{left}" '
        f'aria-label="API calls left in this window">{left} of {limit}</meter> {left}'
    )


def _in_flight(status: DaemonStatus) -> str:
    """Return the running deployments, and the writes that are not confirmed yet."""
    deploying = [
        f"<li><strong>{escape(function.slug)}</strong> deploying for "
        f"{span((status.now - function.deploying_since).total_seconds())}</li>"
        for function in status.functions
        if function.deploying_since is not None
    ]
    unfinished = [f'<li>{escape(text)} <span class="note">result not known yet</span></li>' for text in status.unfinished]
    if not deploying and not unfinished:
        return ""
    items = "\n".join([*deploying, *unfinished])
    return (
        '<section id="flights" aria-labelledby="in-flight"><h2 id="in-flight">In flight</h2>'
        f'<ul class="card plain">\n{items}\n</ul></section>'
    )


def _events(status: DaemonStatus) -> str:
    if not status.events:
        return ""
    items = "\n".join(_event(event, status) for event in status.events[:20])
    return f"""<section id="recent" aria-labelledby="events">
<h2 id="events">Recent events</h2>
<ol class="card events">
{items}
</ol>
</section>"""


def _event(event: RecentEvent, status: DaemonStatus) -> str:
    slug = f"<strong>{escape(event.slug)}</strong> " if event.slug else ""
    text = f"{level_mark(event.level)}{slug}{escape(event.text)}"
    return f'<li class="{level_class(event.level)}">{time_tag(event.at, status.now)} <p>{text}</p></li>'
