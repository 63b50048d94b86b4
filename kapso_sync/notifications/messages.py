"""Writes one chat message for all changes of issues, with the commit, its author and a link. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import IssueKind
from kapso_sync.model.source import Revision
from kapso_sync.notifications.issues import Change, Issue
from kapso_sync.visible import visible

MAX_LINES = 15
"""Maximum number of changes that a message lists; it counts the rest."""

MAX_DETAILED = 3
"""Maximum number of changes that a message shows with lines of evidence."""

MAX_SUBJECT = 120
"""Maximum length of a commit's subject, in characters."""


class Kind(enum.StrEnum):
    """How a destination should show a message."""

    FAILURE = "failure"
    WARNING = "warning"
    SUCCESS = "success"


@dataclass(frozen=True, slots=True)
class Message:
    """One message in plain text; no channel may turn a part of it into a mention of a person."""

    title: str
    body: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class MessageContext:
    """The parts of a message besides the changes: the owner, the environment, the revision and the page's URL."""

    name: str
    env: str | None = None
    revision: Revision | None = None
    url: str | None = None


def compose_message(found: Sequence[Change], context: MessageContext, redact: Callable[[str], str] = str) -> Message:
    """Return one message about all changes; ``redact`` removes secrets from it."""
    ordered = sorted(found, key=_weight)
    lines = [line for number, change in enumerate(ordered[:MAX_LINES]) for line in _lines(change, number < MAX_DETAILED)]
    if len(ordered) > MAX_LINES:
        lines.append(f"and {len(ordered) - MAX_LINES} more")
    lines += ["", context.name]
    if context.revision is not None:
        lines.append(f"Revision {_revision(context.revision)}")
    body = _without_mentions(redact("\n".join(lines)))
    if context.url is not None:
        body += f"\n{context.url}"
    env = f" ({context.env})" if context.env else ""
    return Message(_without_mentions(redact(f"kapso-sync{env}: {_title(ordered)}")), body, _kind(ordered))


def _weight(change: Change) -> tuple[bool, bool, str]:
    """Sort opened issues before closed ones, and general ones before those of functions."""
    issue = change.after or change.before
    assert issue is not None  # noqa: S101 - a change has at least one side
    return (change.after is None, issue.slug is not None, issue.key)


def _lines(change: Change, detailed: bool) -> list[str]:
    details = change.after.details if change.after is not None and detailed else ()
    return [_line(change), *(f"    {line}" for line in details)]


def _line(change: Change) -> str:
    if change.after is not None:
        return _opened_line(change.after)
    assert change.before is not None  # noqa: S101 - a change has at least one side
    return _closed_line(change.before)


def _opened_line(issue: Issue) -> str:
    what = _OPENED_TEXT[issue.kind]
    subject = f"{issue.slug} " if issue.slug is not None else ""
    return f"✗ {subject}{what}: {issue.text}" if issue.text else f"✗ {subject}{what}"


def _closed_line(issue: Issue) -> str:
    if issue.slug is not None:
        return f"✓ {issue.slug} is well again"
    return f"✓ {_CLOSED_TEXT[issue.kind]}"


_OPENED_TEXT = {
    IssueKind.FAILED: "failed",
    IssueKind.STALLED: "needs somebody",
    IssueKind.DRIFTED: "was changed on Kapso, and is only reported",
    IssueKind.SOURCE: "the source cannot be read",
    IssueKind.UNVERIFIED: "a revision is not read, since nobody who may has signed it",
    IssueKind.REJECTED: "what git says cannot be used",
    IssueKind.KEY: "Kapso rejects the key",
    IssueKind.SILENT: "Kapso does not answer",
    IssueKind.BROKEN: "nothing can be done",
    IssueKind.SUSPENDED: "suspended",
}

_CLOSED_TEXT = {
    IssueKind.SOURCE: "the source can be read again",
    IssueKind.UNVERIFIED: "the revision is signed as wanted again",
    IssueKind.REJECTED: "what git says can be used again",
    IssueKind.KEY: "Kapso accepts the key again",
    IssueKind.SILENT: "Kapso answers again",
    IssueKind.BROKEN: "passes go through again",
    IssueKind.SUSPENDED: "resumed",
}


def _title(ordered: Sequence[Change]) -> str:
    if len(ordered) == 1:
        (change,) = ordered
        return _line(change).removeprefix("✗ ").removeprefix("✓ ").partition(":")[0]
    wrong = sum(change.after is not None for change in ordered)
    well = len(ordered) - wrong
    parts = [f"{wrong} in trouble"] if wrong else []
    parts += [f"{well} well again"] if well else []
    return ", ".join(parts)


def _kind(ordered: Sequence[Change]) -> Kind:
    states = {change.after.kind for change in ordered if change.after is not None}
    if not states:
        return Kind.SUCCESS
    return Kind.WARNING if states <= {IssueKind.SUSPENDED, IssueKind.DRIFTED} else Kind.FAILURE


def _revision(revision: Revision) -> str:
    subject = revision.subject or ""
    parts = [revision.short, f"({revision.described})" if revision.described else ""]
    parts.append(f"“{subject if len(subject) <= MAX_SUBJECT else subject[: MAX_SUBJECT - 1] + '…'}”" if subject else "")
    parts.append(f"by {revision.author}" if revision.author else "")
    return " ".join(" ".join(parts).split())


def _without_mentions(text: str) -> str:
    """Return text in which ``@everyone``, ``<!channel>`` and control characters have no effect."""
    safe = "\n".join(map(visible, text.split("\n")))
    return safe.replace("@", "@\u200b").replace("<!", "<\u200b!")
