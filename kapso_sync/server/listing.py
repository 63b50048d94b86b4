"""Renders the list of functions, of which a page shows a part: filtered, sorted, and cut by the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlencode

from kapso_sync.dataclass import dataclass
from kapso_sync.model.status import Condition, ConditionType, FunctionStatus
from kapso_sync.plurals import span
from kapso_sync.server.markup import (
    HOME,
    WORDS,
    commit_name,
    diff_block,
    diff_size,
    escape,
    function_path,
    relative,
    state_badge,
    time_tag,
)

ORDER = ("Stalled", "NotReady", "Drifted", "Reconciling", "Ready")
"""States in the order of the page: those that need a person come first."""

AS_EXPECTED = ("InSync", "Applied")
"""Reasons of ready functions that are not shown."""

MAX_QUERY = 100
"""Most characters of a filter: no slug that people type is longer."""

MANY = 20
"""From this number of functions on, there is a filter."""

_RANK = {state: rank for rank, state in enumerate(ORDER)}

Cards = Callable[[Sequence[FunctionStatus], datetime], str]
"""Returns the list items of functions."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Which functions a page shows: those with a text in the slug or the message, in a state; ``page`` counts from 1."""

    text: str = ""
    state: str | None = None
    page: int = 1
    size: int = 100

    @classmethod
    def parse(cls, query: Mapping[str, str], size: int) -> Listing:
        """Return what a query string asks for; what makes no sense in it is ignored."""
        state = next((state for state in ORDER if state.lower() == query.get("state", "").lower()), None)
        number = query.get("page", "")
        page = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 1
        return cls(" ".join(query.get("q", "")[:MAX_QUERY].split()), state, max(page, 1), size)

    @property
    def path(self) -> str:
        """The path and query of the page that shows this."""
        given = {"q": self.text, "state": (self.state or "").lower(), "page": self.page if self.page > 1 else ""}
        query = urlencode({name: value for name, value in given.items() if value}, errors="replace")
        return f"{HOME}?{query}" if query else HOME


def listing_section(functions: Sequence[FunctionStatus], now: datetime, cards: Cards, listing: Listing) -> str:
    """Return the section with the functions that the listing selects."""
    if not functions:
        return (
            '<section id="listing" aria-labelledby="functions"><h2 id="functions">Functions</h2>'
            '<p class="card empty">None yet.</p></section>'
        )
    found = [each for each in functions if _has(each, listing.text.casefold())] if listing.text else functions
    in_state = found if listing.state is None else [each for each in found if each.state == listing.state]
    rows = sorted(in_state, key=lambda function: (not function.in_git, _RANK[function.state], function.slug))
    pages = max(1, -(-len(rows) // listing.size))
    listing = replace(listing, page=min(listing.page, pages))
    shown = rows[(listing.page - 1) * listing.size : listing.page * listing.size]
    listed, left = ([function for function in shown if function.in_git is in_git] for in_git in (True, False))
    of_git = sum(function.in_git for function in rows)
    apart = (
        f'<h3 id="left-git">Left git <span class="count">{len(rows) - of_git}</span></h3>\n{_cards(cards(left, now))}\n'
        if left
        else ""
    )
    nothing = '<p class="card empty">No function matches.</p>\n' if not shown else ""
    return f"""<section id="listing" aria-labelledby="functions">
<h2 id="functions">Functions <span class="count">{of_git}</span></h2>
{_filter(functions, listing)}
{_tally([each for each in found if each.in_git], listing)}
{_cards(cards(listed, now)) if listed else nothing}
{apart}{_pager(listing, pages, len(rows))}</section>"""


def _has(function: FunctionStatus, text: str) -> bool:
    return text in function.slug.casefold() or text in function.condition(ConditionType.READY).message.casefold()


def _filter(functions: Sequence[FunctionStatus], listing: Listing) -> str:
    if len(functions) < MANY and not listing.text and listing.state is None:
        return ""
    state = f'<input type="hidden" name="state" value="{listing.state.lower()}">' if listing.state else ""
    whole = f'<a href="{HOME}">Show all</a>' if listing.text or listing.state else ""
    return (
        f'<form class="filter" method="get" action="{HOME}" role="search"><label for="q">Find</label>'
        f'<input id="q" name="q" type="search" maxlength="{MAX_QUERY}" value="{escape(listing.text, quote=True)}">'
        f"{state}<button>Find</button>{whole}</form>"
    )


def _tally(functions: Sequence[FunctionStatus], listing: Listing) -> str:
    """Return the number of functions in each state, as links to them, if there are several states."""
    counts = Counter(function.state for function in functions)
    if len(counts) < 2:
        return ""
    items = "".join(_tally_item(state, counts[state], listing) for state in ORDER if counts[state])
    return f'<ul class="tally" aria-label="Functions by state">{items}</ul>'


def _tally_item(state: str, count: int, listing: Listing) -> str:
    chosen = listing.state == state
    path = replace(listing, state=None if chosen else state, page=1).path
    current = ' aria-current="true"' if chosen else ""
    return f'<li><a href="{escape(path, quote=True)}"{current}>{state_badge(state, f"{count} {WORDS[state]}")}</a></li>'


def _pager(listing: Listing, pages: int, count: int) -> str:
    if pages < 2:
        return ""
    first = (listing.page - 1) * listing.size + 1
    last = min(listing.page * listing.size, count)
    steps = [("prev", "Previous", listing.page - 1), ("next", "Next", listing.page + 1)]
    links = [
        f'<a rel="{rel}" href="{escape(replace(listing, page=number).path, quote=True)}">{text}</a>'
        for rel, text, number in steps
        if 1 <= number <= pages
    ]
    return f'<nav class="pager" aria-label="Pages"><span>{first} to {last} of {count}</span>{"".join(links)}</nav>\n'


def _cards(items: str) -> str:
    return f'<ul class="card functions">\n{items}\n</ul>'


def render_cards(functions: Sequence[FunctionStatus], now: datetime) -> str:
    """Return the list items of functions."""
    return "\n".join(function_card(function, now) for function in functions)


def ages_of(function: FunctionStatus, now: datetime) -> tuple[str, ...]:
    """Return what the time changes about a function's list item: nothing else of it depends on ``now``."""
    moments = (
        telling(function).since,
        function.deploying_since,
        function.retry_at,
        function.watched_until,
        function.changed_at,
    )
    return tuple(relative(moment, now) for moment in moments if moment is not None)


def function_card(function: FunctionStatus, now: datetime) -> str:
    """Return the list item of a function."""
    state, decided = function.state, telling(function)
    body = message(function, decided) + _cause(function) + notes(function, now) + _diff(function)
    return (
        f'<li class="function {state.lower()}" id="function-{escape(function.slug, quote=True)}">'
        f'<div class="head"><h3><a href="{function_path(function.slug)}">{escape(function.slug)}</a></h3>{state_badge(state)}'
        f'<span class="since">for {span((now - decided.since).total_seconds())}</span></div>{body}</li>'
    )


def telling(function: FunctionStatus) -> Condition:
    """Return the condition that decided the state."""
    state = function.state
    return next((known for known in function.conditions if known.type == state), None) or function.condition(
        ConditionType.READY
    )


def message(function: FunctionStatus, decided: Condition) -> str:
    """Return the reason and the message of the condition that decided the state; empty if it is as expected."""
    if function.state == "Ready" and decided.reason in AS_EXPECTED:
        return ""
    reason = f'<span class="reason">{escape(decided.reason)}</span> ' if decided.reason else ""
    return f'<p class="message">{reason}{escape(decided.message)}</p>'


def _cause(function: FunctionStatus) -> str:
    """Return since which commit git's content fails, and where."""
    where = f" at <code>{escape(function.place)}</code>" if function.place is not None else ""
    if function.broken_by is not None:
        return f'<p class="note">since {commit_name(function.broken_by)}{where}</p>'
    return f'<p class="note">{where.strip()}</p>' if where else ""


def notes(function: FunctionStatus, now: datetime) -> str:
    """Return what else is going on with a function."""
    said = []
    drifted = function.condition(ConditionType.DRIFTED)
    if function.deploying_since is not None:
        said.append(f"deploying for {span((now - function.deploying_since).total_seconds())}")
    if function.retry_at is not None:
        said.append(f"next try {time_tag(function.retry_at, now)}")
    if function.watched_until is not None:
        said.append(f"watched after its deployment; the watch ends {time_tag(function.watched_until, now)}")
    if drifted.status and function.state != "Drifted":
        said.append(escape(drifted.message))
    if function.changed_at is not None:
        said.append(f"{escape(function.change or 'changed')}, {time_tag(function.changed_at, now)}")
    return "".join(f'<p class="note">{note}</p>' for note in said)


def _diff(function: FunctionStatus) -> str:
    if not function.diff:
        return ""
    slug = escape(function.slug, quote=True)
    return (
        f'<details id="diff-{slug}"><summary>What differs, from Kapso to git {diff_size(function.diff)}</summary>'
        f"{diff_block(function.diff, f'Diff of {function.slug}')}</details>"
    )
