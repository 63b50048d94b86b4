"""Finds the open issues in a status; their keys stay the same across passes and restarts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import IssueKind
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.json_values import Json
from kapso_sync.model.status import ConditionType, DaemonStatus, FunctionStatus, ReadyReason

MAX_TEXT = 300
"""Maximum length of an issue's text, in characters."""

MAX_DETAILS = 8
"""Most lines of a console in an issue."""

PASS, SUSPENSION, FUNCTION = "pass", "suspension", "function "
"""Keys of issues; a function's key is followed by its slug, which never holds a space."""

_NOT_LOOKED_AT = frozenset({ReadyReason.NOT_TRIED, ReadyReason.PENDING, ReadyReason.UNKNOWN})
"""Reasons of functions that the last pass did not reach: their earlier status still holds."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One open issue. Two with the same key and kind are the same issue, even with another ``text``.

    ``details`` are lines of evidence below the text: the place in the source, and the last lines of the console.
    """

    key: str
    kind: IssueKind
    text: str
    details: tuple[str, ...] = ()

    @property
    def slug(self) -> str | None:
        """The function's slug, if it is about one."""
        return self.key.removeprefix(FUNCTION) if self.key.startswith(FUNCTION) else None


OpenIssues = Mapping[str, Issue]
"""The open issues by key."""


def open_issues(status: DaemonStatus, before: OpenIssues) -> OpenIssues:
    """Return the open issues of a status between two passes; if the status is unknown, those of ``before`` stay open."""
    issues: list[Issue] = []
    if status.suspension is not None:
        issues.append(_issue(SUSPENSION, IssueKind.SUSPENDED, status.suspension.reason))
    last = status.last_pass
    if last is None or (last.error is not None and last.issue is None):
        issues += [issue for key, issue in before.items() if key != SUSPENSION]
        return _by_key(issues)
    if last.error is not None:
        issues.append(_issue(PASS, last.issue or IssueKind.BROKEN, last.error))
    if last.error is not None and not last.summary:
        issues += [issue for issue in before.values() if issue.slug is not None]
    else:
        issues += [issue for function in status.functions for issue in _of_function(function, before)]
    return _by_key(issues)


def _of_function(function: FunctionStatus, before: OpenIssues) -> Iterable[Issue]:
    key = f"{FUNCTION}{function.slug}"
    ready = function.condition(ConditionType.READY)
    if ready.status:
        return ()
    if ready.reason in _NOT_LOOKED_AT:
        return (before[key],) if key in before else ()
    if function.condition(ConditionType.DRIFTED).status and ready.reason == ReadyReason.DRIFT_REPORTED:
        return (_issue(key, IssueKind.DRIFTED, function.condition(ConditionType.DRIFTED).message),)
    stalled = function.condition(ConditionType.STALLED)
    kind = IssueKind.STALLED if stalled.status else IssueKind.FAILED
    return (replace(_issue(key, kind, ready.message), details=_details(function.evidence)),)


def _details(evidence: Evidence | None) -> tuple[str, ...]:
    if evidence is None:
        return ()
    place = (f"at {evidence.place}",) if evidence.place is not None else ()
    return (*place, *evidence.console[-MAX_DETAILS:])


def _issue(key: str, kind: IssueKind, text: str) -> Issue:
    line = " ".join(text.split())
    return Issue(key, kind, line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…")


def _by_key(issues: Iterable[Issue]) -> OpenIssues:
    return {issue.key: issue for issue in issues}


@dataclass(frozen=True, slots=True)
class Change:
    """How one key's issue changed: opened (``before`` None), closed (``after`` None), or became another kind."""

    before: Issue | None
    after: Issue | None


def changes(told: OpenIssues, now: OpenIssues, passing: OpenIssues) -> tuple[Change, ...]:
    """Return the changes for a destination that last received ``told``; ``passing`` opened and closed since."""
    found = []
    for key in sorted({*told, *now, *passing}):
        old, new = told.get(key), now.get(key)
        if old is None and new is None:
            found.append(Change(passing[key], None))
        elif old is None or new is None or old.kind is not new.kind:
            found.append(Change(old, new))
    return tuple(found)


def passing_issues(before: OpenIssues, now: OpenIssues, told: OpenIssues) -> OpenIssues:
    """Return the issues that closed between two updates and were never sent."""
    return {key: issue for key, issue in before.items() if key not in now and key not in told}


def encode(issues: OpenIssues) -> dict[str, Json]:
    """Return the issues as JSON."""
    return {key: [str(issue.kind), issue.text, *issue.details] for key, issue in issues.items()}


def decode(document: object) -> OpenIssues:
    """Return the issues that were kept as JSON; unreadable ones are left out."""
    issues = {}
    for key, kept in document.items() if isinstance(document, dict) else ():
        match kept:
            case [str(kind), str(text), *details] if kind in set(IssueKind):
                issues[str(key)] = Issue(str(key), IssueKind(kind), text, tuple(map(str, details)))
            case _:
                pass
    return issues
