"""Renders the status page: one style sheet, complete without JavaScript."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from kapso_sync.model.source import Revision
from kapso_sync.model.status import Condition, ConditionType, DaemonStatus, FunctionStatus, RateLimit, RecentEvent, Role
from kapso_sync.plurals import counted, span
from kapso_sync.visible import visible


def escape(text: str, *, quote: bool = False) -> str:
    """Return foreign text as HTML; what does not print is spelled out, line breaks and tabs stay."""
    return html.escape("\n".join(map(visible, text.split("\n"))), quote=quote)


def time_tag(moment: datetime | None, now: datetime) -> str:
    """Return a time as a ``<time>`` element with relative words; its attributes have the exact time."""
    if moment is None:
        return "at an unknown time"
    words = _relative(moment, now)
    exact = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return f'<time datetime="{exact}" title="{exact}">{words}</time>'


def _relative(moment: datetime, now: datetime) -> str:
    seconds = (moment - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def took(seconds: float) -> str:
    """Return a duration, with tenths of a second if it is short."""
    return f"{seconds:.1f} s" if seconds < 10 else span(seconds)


SHAPES = {"Ready": "●", "Reconciling": "◐", "Drifted": "◆", "Stalled": "■", "NotReady": "▲"}
WORDS = {
    "Ready": "ready",
    "Reconciling": "reconciling",
    "Drifted": "drifted",
    "Stalled": "stalled",
    "NotReady": "not ready",
}

_ORDER = ("Stalled", "NotReady", "Drifted", "Reconciling", "Ready")
"""States in the order of the page: those that need a person come first."""


_AS_EXPECTED = ("InSync", "Applied")
"""Reasons of ready functions that are not shown."""


def state_badge(state: str, text: str | None = None) -> str:
    """Return a state as colour, shape and word, so that one of them is enough to read it."""
    shape = f'<span aria-hidden="true" class="shape">{SHAPES[state]}</span>'
    return f'<span class="state {state.lower()}">{shape} {text or WORDS[state]}</span>'


def tally(functions: Sequence[FunctionStatus]) -> str:
    """Return the number of functions in each state, if there are several states."""
    counts = Counter(function.state for function in functions)
    if len(counts) < 2:
        return ""
    items = "".join(f"<li>{state_badge(state, f'{counts[state]} {WORDS[state]}')}</li>" for state in _ORDER if counts[state])
    return f'<ul class="tally" aria-label="Functions by state">{items}</ul>'


Cards = Callable[[Sequence[FunctionStatus], datetime], str]
"""Returns the list items of functions."""


def functions_section(functions: Sequence[FunctionStatus], now: datetime, cards: Cards) -> str:
    """Return the section with every function."""
    if not functions:
        return (
            '<section id="listing" aria-labelledby="functions"><h2 id="functions">Functions</h2>'
            '<p class="card empty">None yet.</p></section>'
        )
    rows = sorted(functions, key=lambda function: (_ORDER.index(function.state), function.slug))
    listed, left = ([function for function in rows if function.in_git is in_git] for in_git in (True, False))
    apart = (
        f'<h3 id="left-git">Left git <span class="count">{len(left)}</span></h3>\n{_cards(cards(left, now))}\n' if left else ""
    )
    return f"""<section id="listing" aria-labelledby="functions">
<h2 id="functions">Functions <span class="count">{len(listed)}</span></h2>
{tally(listed)}
{_cards(cards(listed, now))}
{apart}</section>"""


def _cards(items: str) -> str:
    return f'<ul class="card functions">\n{items}\n</ul>'


def render_cards(functions: Sequence[FunctionStatus], now: datetime) -> str:
    """Return the list items of functions."""
    return "\n".join(function_card(function, now) for function in functions)


def ages_of(function: FunctionStatus, now: datetime) -> tuple[str, ...]:
    """Return what the time changes about a function's list item: nothing else of it depends on ``now``."""
    moments = (_telling(function).since, function.deploying_since, function.retry_at, function.changed_at)
    return tuple(_relative(moment, now) for moment in moments if moment is not None)


def function_card(function: FunctionStatus, now: datetime) -> str:
    """Return the list item of a function."""
    state, telling = function.state, _telling(function)
    body = _message(function, telling) + _evidence(function) + _notes(function, now) + _diff(function)
    return (
        f'<li class="function {state.lower()}" id="function-{escape(function.slug, quote=True)}">'
        f'<div class="head"><h3>{escape(function.slug)}</h3>{state_badge(state)}'
        f'<span class="since">for {span((now - telling.since).total_seconds())}</span></div>{body}</li>'
    )


def _telling(function: FunctionStatus) -> Condition:
    """Return the condition that decided the state."""
    state = function.state
    return next((known for known in function.conditions if known.type == state), None) or function.condition(
        ConditionType.READY
    )


def _message(function: FunctionStatus, telling: Condition) -> str:
    if function.state == "Ready" and telling.reason in _AS_EXPECTED:
        return ""
    reason = f'<span class="reason">{escape(telling.reason)}</span> ' if telling.reason else ""
    return f'<p class="message">{reason}{escape(telling.message)}</p>'


def _evidence(function: FunctionStatus) -> str:
    """Return where the code threw, and the last lines of its console."""
    evidence = function.evidence
    if evidence is None:
        return ""
    slug = escape(function.slug, quote=True)
    place = f'<p class="message">thrown at <code>{escape(evidence.place)}</code></p>' if evidence.place is not None else ""
    lines = "".join(f"<span>{escape(line)}\n</span>" for line in evidence.console)
    console = f'<pre tabindex="0" role="region" aria-label="Console of {slug}"><code>{lines}</code></pre>' if lines else ""
    return place + console


def _notes(function: FunctionStatus, now: datetime) -> str:
    notes = []
    drifted = function.condition(ConditionType.DRIFTED)
    if function.deploying_since is not None:
        notes.append(f"deploying for {span((now - function.deploying_since).total_seconds())}")
    if function.retry_at is not None:
        notes.append(f"next try {time_tag(function.retry_at, now)}")
    if drifted.status and function.state != "Drifted":
        notes.append(escape(drifted.message))
    if function.changed_at is not None:
        notes.append(f"{escape(function.change or 'changed')}, {time_tag(function.changed_at, now)}")
    return "".join(f'<p class="note">{note}</p>' for note in notes)


def _diff(function: FunctionStatus) -> str:
    if not function.diff:
        return ""
    lines = function.diff.removesuffix("\n").split("\n")
    kinds = Counter(_kind(line) for line in lines)
    shown = "".join(f'<span class="{_kind(line)}">{escape(line)}\n</span>' for line in lines)
    slug = escape(function.slug, quote=True)
    return (
        f'<details id="diff-{slug}"><summary>What differs, from Kapso to git '
        f'<span class="size"><span class="ins">+{kinds["ins"]}</span> <span class="del">−{kinds["del"]}</span></span></summary>'  # noqa: RUF001
        f'<pre tabindex="0" role="region" aria-label="Diff of {slug}"><code>{shown}</code></pre></details>'
    )


def _kind(line: str) -> str:
    if line.startswith(("---", "+++", "@@")):
        return "place"
    return {"+": "ins", "-": "del"}.get(line[:1], "same")


_TONES = {"good": "Ready", "busy": "Reconciling", "bad": "Stalled", "paused": "Drifted"}
_LEVELS = {"error": ("■", "error"), "warning": ("▲", "warning")}


def render_page(status: DaemonStatus, cards: Cards = render_cards) -> str:
    """Return the whole page; ``cards`` renders the functions."""
    tone, sentence = _verdict(status)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(sentence.split(":")[0].rstrip("."))} · kapso-sync</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/page.css">
<noscript><meta http-equiv="refresh" content="15"></noscript>
<script src="/static/page.js" defer></script>
</head>
<body>
<header class="top">
<h1>kapso-sync</h1>
<p class="source">{escape(status.source)}</p>
</header>
<p id="offline" class="banner" role="status" hidden></p>
<main id="status">
{_suspended(status)}
<section id="standing" class="card verdict {tone}" aria-labelledby="verdict">
{_sentence(tone, sentence)}
{_trouble(status)}
{_in_effect(status)}
</section>
{_warnings(status)}
{_facts(status)}
{_in_flight(status)}
{functions_section(status.functions, status.now, cards)}
{_events(status)}
</main>
<footer><p>kapso-sync {escape(status.version)}, running for {span((status.now - status.started_at).total_seconds())}.
<a href="/api/status">JSON</a> · <a href="/metrics">Metrics</a></p></footer>
</body>
</html>
"""


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
    shape = f'<span aria-hidden="true" class="shape">{SHAPES[_TONES[tone]]}</span>'
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
    described = f" ({escape(revision.described)})" if revision.described else ""
    when = revision.committed_at or since
    quiet = [f"by {escape(revision.author)}"] if revision.author else []
    quiet += [time_tag(when, now)] if when is not None else []
    subject = f'<span class="subject">{escape(revision.subject)}</span>' if revision.subject else ""
    named = f'{label + " " if label else ""}<code title="{escape(revision.id, quote=True)}">{escape(revision.short)}</code>'
    return f'<p class="revision">{named}{described} {subject} <span class="quiet">{", ".join(quiet)}</span></p>'


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
    shape, word = _LEVELS.get(event.level, ("", ""))
    mark = f'<span class="level"><span aria-hidden="true">{shape}</span> {word}</span> ' if word else ""
    slug = f"<strong>{escape(event.slug)}</strong> " if event.slug else ""
    kind = event.level if word else "info"
    return f'<li class="{kind}">{time_tag(event.at, status.now)} <p>{mark}{slug}{escape(event.text)}</p></li>'
