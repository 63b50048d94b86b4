"""The status page: rendered here, styled by one file, complete without JavaScript."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from html import escape

from kapso_sync.model.source import Revision
from kapso_sync.model.status import ConditionType, FunctionStatus, PassStatus, RecentEvent, Status

_SHAPES = {"Ready": "●", "Reconciling": "◐", "Drifted": "◆", "Stalled": "■", "NotReady": "▲"}
_WORDS = {
    "Ready": "ready",
    "Reconciling": "in the works",
    "Drifted": "drifted",
    "Stalled": "stalled",
    "NotReady": "not ready",
}


def render_page(status: Status) -> str:
    """Return the whole page."""
    tone, sentence = _verdict(status)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(_title(status))} · kapso-sync</title>
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
<main id="status" data-tone="{tone}">
{_suspended(status)}
<section class="verdict {tone}" aria-labelledby="verdict">
<h2 id="verdict"><span aria-hidden="true" class="shape">{_SHAPES[_TONES[tone]]}</span> {escape(sentence)}</h2>
{_trouble(status.last_pass)}
</section>
{_facts(status)}
{_functions(status)}
{_events(status)}
</main>
<footer><p>kapso-sync {escape(status.version)}, running for {_span((status.now - status.started_at).total_seconds())}.
<a href="/api/status">JSON</a> · <a href="/metrics">Metrics</a></p></footer>
</body>
</html>
"""


_TONES = {"good": "Ready", "busy": "Reconciling", "bad": "Stalled", "paused": "Drifted"}


def _verdict(status: Status) -> tuple[str, str]:
    """Return how it looks, and the sentence that says how things stand."""
    count = len(status.functions)
    ready = sum(function.condition(ConditionType.READY).status for function in status.functions)
    if status.suspension is not None:
        return "paused", "Suspended: nothing is written to Kapso."
    if status.last_pass is None:
        return "busy", "Starting: the first look is under way."
    if status.last_pass.error is not None:
        return "bad", "The last look failed. What runs on Kapso is unchanged."
    if status.reconciling:
        return "busy", "Working: Kapso is being made what git says."
    if status.in_sync:
        plural = "function runs" if count == 1 else "functions run"
        return "good", f"In sync: {count} {plural} what git says." if count else "In sync: git lists no function."
    return "bad", f"{count - ready} of {count} function{'s' if count != 1 else ''} not ready."


def _title(status: Status) -> str:
    return _verdict(status)[1].split(":")[0].rstrip(".")


def _suspended(status: Status) -> str:
    suspension = status.suspension
    if suspension is None:
        return ""
    until = f" until {_time(suspension.until, status.now)}" if suspension.until else ""
    return (
        f'<p class="banner" role="status"><strong>Suspended</strong> since {_time(suspension.since, status.now)}{until}: '
        f"{escape(suspension.reason)}</p>"
    )


def _trouble(last: PassStatus | None) -> str:
    if last is None or last.error is None:
        return ""
    hint = f'<p class="hint">{escape(last.hint)}</p>' if last.hint else ""
    return f'<p class="error">{escape(last.error)}</p>{hint}'


def _facts(status: Status) -> str:
    facts = [("Revision", _revision(status.revision, status))]
    if status.last_pass is not None:
        last = status.last_pass
        calls = f"{last.api_calls} API call{'s' if last.api_calls != 1 else ''}"
        facts.append(("Last look", f"{_time(last.finished_at, status.now)}, {_took(last.seconds)}, {calls}"))
    if status.next_check_at is not None:
        facts.append(("Next look", _time(status.next_check_at, status.now)))
    if status.budget is not None:
        limit, remaining = status.budget.limit, status.budget.remaining
        meter = (
            f'<meter min="0" max="{limit}" value="{remaining}" aria-label="API calls left in this window">{remaining}</meter>'
        )
        facts.append(("API budget", f"{meter} {remaining} of {limit} calls left"))
    if status.owner:
        facts.append(("Owner", f"<code>{escape(status.owner)}</code>"))
    items = "\n".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in status.warnings)
    noted = f'<ul class="warnings" aria-label="Warnings">{warnings}</ul>' if warnings else ""
    return f'<section aria-label="At a glance"><dl class="facts">\n{items}\n</dl>{noted}</section>'


def _revision(revision: Revision | None, status: Status) -> str:
    if revision is None:
        return "not read yet"
    subject = f" “{escape(revision.subject)}”" if revision.subject else ""
    author = f" by {escape(revision.author)}" if revision.author else ""
    when = revision.committed_at or status.revision_since
    described = f" ({escape(revision.described)})" if revision.described else ""
    return f"<code>{escape(revision.short)}</code>{described}{subject}{author}, {_time(when, status.now)}"


def _functions(status: Status) -> str:
    if not status.functions:
        return '<section aria-labelledby="functions"><h2 id="functions">Functions</h2><p class="empty">None yet.</p></section>'
    order = {"Stalled": 0, "NotReady": 1, "Drifted": 2, "Reconciling": 3, "Ready": 4}
    rows = sorted(status.functions, key=lambda function: (order[function.state], function.slug))
    items = "\n".join(_function(function, status.now) for function in rows)
    return f"""<section aria-labelledby="functions">
<h2 id="functions">Functions <span class="count">{len(rows)}</span></h2>
<ul class="functions">
{items}
</ul>
</section>"""


def _function(function: FunctionStatus, now: datetime) -> str:
    state = function.state
    ready = function.condition(ConditionType.READY)
    lines = [f'<p class="message">{escape(ready.message)}</p>' if state != "Ready" else ""]
    if function.deploying_since is not None:
        elapsed = _span((now - function.deploying_since).total_seconds())
        lines.append(f'<p class="note">deploying for {elapsed}</p>')
    if function.retry_at is not None:
        lines.append(f'<p class="note">tried again {_time(function.retry_at, now)}</p>')
    if function.changed_at is not None:
        lines.append(f'<p class="note">{escape(function.change or "changed")}, {_time(function.changed_at, now)}</p>')
    if function.condition(ConditionType.DRIFTED).status and state != "Drifted":
        lines.append(f'<p class="note">{escape(function.condition(ConditionType.DRIFTED).message)}</p>')
    body = "".join(lines) + _diff(function)
    return (
        f'<li class="function {state.lower()}" id="function-{escape(function.slug, quote=True)}">'
        f'<div class="head"><h3>{escape(function.slug)}</h3>'
        f'<span class="state"><span aria-hidden="true" class="shape">{_SHAPES[state]}</span> {_WORDS[state]}</span>'
        f'<span class="since">for {_span((now - _since(function)).total_seconds())}</span></div>{body}</li>'
    )


def _since(function: FunctionStatus) -> datetime:
    kind = next((kind for kind in ConditionType if str(kind) == function.state), ConditionType.READY)
    return function.condition(kind).since


def _diff(function: FunctionStatus) -> str:
    if not function.diff:
        return ""
    lines = "".join(_diff_line(line) for line in function.diff.split("\n")[:-1])
    return (
        f'<details id="diff-{escape(function.slug, quote=True)}"><summary>What differs, from Kapso to git</summary>'
        f'<pre tabindex="0" aria-label="Diff of {escape(function.slug, quote=True)}"><code>{lines}</code></pre></details>'
    )


def _diff_line(line: str) -> str:
    if line.startswith(("---", "+++", "@@")):
        return f'<span class="place">{escape(line)}\n</span>'
    kind = {"+": "ins", "-": "del"}.get(line[:1])
    return f"<{kind}>{escape(line)}\n</{kind}>" if kind else f"{escape(line)}\n"


def _events(status: Status) -> str:
    if not status.events:
        return ""
    items = "\n".join(_event(event, status.now) for event in status.events)
    return f'<section aria-labelledby="events"><h2 id="events">Lately</h2><ol class="events">\n{items}\n</ol></section>'


def _event(event: RecentEvent, now: datetime) -> str:
    level = event.level if event.level in ("warning", "error") else "info"
    mark = f'<span class="level">{level}</span> ' if level != "info" else ""
    slug = f"<strong>{escape(event.slug)}</strong> " if event.slug else ""
    return f'<li class="{level}">{_time(event.at, now)} <span>{mark}{slug}{escape(event.text)}</span></li>'


def _time(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "at an unknown time"
    seconds = (moment - now).total_seconds()
    words = f"in {_span(seconds)}" if seconds > 0 else f"{_span(-seconds)} ago"
    exact = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return f'<time datetime="{exact}" title="{exact}">{words}</time>'


def _span(seconds: float) -> str:
    """Return a duration in one or two units: ``45 s``, ``3 min``, ``2 h 5 min``, ``4 days``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    parts = _units(whole, (("day", 86400), ("h", 3600), ("min", 60)))
    return " ".join(parts)


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else _span(seconds)


def _units(seconds: int, units: Iterable[tuple[str, int]]) -> list[str]:
    parts: list[str] = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}{'s' if name == 'day' and count > 1 else ''}")
    return parts[:1] if parts and parts[0].split()[1].startswith("day") else parts[:2]
