"""The page's functions: how each one stands, what changed, and what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape

from kapso_sync.model.status import Condition, ConditionType, FunctionStatus
from kapso_sync.server.words import span, time_tag

SHAPES = {"Ready": "●", "Reconciling": "◐", "Drifted": "◆", "Stalled": "■", "NotReady": "▲"}
WORDS = {
    "Ready": "ready",
    "Reconciling": "in the works",
    "Drifted": "drifted",
    "Stalled": "stalled",
    "NotReady": "not ready",
}

_ORDER = ("Stalled", "NotReady", "Drifted", "Reconciling", "Ready")
"""What needs somebody comes first."""


_AS_EXPECTED = ("InSync", "Applied")
"""Reasons for being ready that go without saying."""


def state_badge(state: str, text: str | None = None) -> str:
    """Return a state as colour, shape and word: no one of them is needed."""
    shape = f'<span aria-hidden="true" class="shape">{SHAPES[state]}</span>'
    return f'<span class="state {state.lower()}">{shape} {text or WORDS[state]}</span>'


def tally(functions: Sequence[FunctionStatus]) -> str:
    """Return how many functions are in which state, where they are in different ones."""
    counts = Counter(function.state for function in functions)
    if len(counts) < 2:
        return ""
    items = "".join(f"<li>{state_badge(state, f'{counts[state]} {WORDS[state]}')}</li>" for state in _ORDER if counts[state])
    return f'<ul class="tally" aria-label="Functions by state">{items}</ul>'


def functions_section(functions: Sequence[FunctionStatus], now: datetime) -> str:
    """Return the section with every function."""
    if not functions:
        return (
            '<section id="listing" aria-labelledby="functions"><h2 id="functions">Functions</h2>'
            '<p class="card empty">None yet.</p></section>'
        )
    rows = sorted(functions, key=lambda function: (_ORDER.index(function.state), function.slug))
    items = "\n".join(_function(function, now) for function in rows)
    return f"""<section id="listing" aria-labelledby="functions">
<h2 id="functions">Functions <span class="count">{len(rows)}</span></h2>
{tally(rows)}
<ul class="card functions">
{items}
</ul>
</section>"""


def _function(function: FunctionStatus, now: datetime) -> str:
    state, telling = function.state, _telling(function)
    body = _message(function, telling) + _notes(function, now) + _diff(function)
    return (
        f'<li class="function {state.lower()}" id="function-{escape(function.slug, quote=True)}">'
        f'<div class="head"><h3>{escape(function.slug)}</h3>{state_badge(state)}'
        f'<span class="since">for {span((now - telling.since).total_seconds())}</span></div>{body}</li>'
    )


def _telling(function: FunctionStatus) -> Condition:
    """Return the condition that made the state what it is."""
    kind = next((kind for kind in ConditionType if str(kind) == function.state), ConditionType.READY)
    return function.condition(kind)


def _message(function: FunctionStatus, telling: Condition) -> str:
    if function.state == "Ready" and telling.reason in _AS_EXPECTED:
        return ""
    reason = f'<span class="reason">{escape(telling.reason)}</span> ' if telling.reason else ""
    return f'<p class="message">{reason}{escape(telling.message)}</p>'


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
