"""What is wrong at one moment, by keys that stay the same across passes and restarts; nothing else is worth a message."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kapso_sync.model.functions import Json
from kapso_sync.model.status import ConditionType, DaemonStatus, FunctionStatus

MAX_TEXT = 300
"""Most characters that are kept of what is said about one trouble."""

PASS, SUSPENSION, FUNCTION = "pass", "suspension", "function "
"""Keys; a function's is followed by its slug, which never holds a space."""

_NOT_LOOKED_AT = frozenset({"NotTried", "Pending", "Unknown"})
"""Reasons of a function that nobody has looked at: what was known of it before still holds."""

_CUT_OFF = "KapsoSyncError"
"""The class of an error that only says that a pass was cut off."""


class IssueKind(enum.StrEnum):
    """What is wrong with a function, with passes as a whole, or that somebody suspended them."""

    FAILED = "failed"
    STALLED = "stalled"
    DRIFTED = "drifted"
    SOURCE = "source failed"
    REJECTED = "manifest rejected"
    KEY = "key rejected"
    SILENT = "Kapso does not answer"
    BROKEN = "passes fail"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong. Two of the same key and state are the same trouble, whatever ``text`` says."""

    key: str
    state: IssueKind
    text: str

    @property
    def slug(self) -> str | None:
        """The function that it is about, if any."""
        return self.key.removeprefix(FUNCTION) if self.key.startswith(FUNCTION) else None


OpenIssues = Mapping[str, Issue]
"""All that is wrong, by key; what is not there is well."""


def open_issues(status: DaemonStatus, before: OpenIssues) -> OpenIssues:
    """Return what is wrong between two passes; where ``status`` does not know, what was known ``before`` holds."""
    troubles: list[Issue] = []
    if status.suspension is not None:
        troubles.append(_issue(SUSPENSION, IssueKind.SUSPENDED, status.suspension.reason))
    last = status.last_pass
    if last is None or last.error_type == _CUT_OFF:
        troubles += [trouble for key, trouble in before.items() if key != SUSPENSION]
        return _by_key(troubles)
    if last.error is not None:
        troubles.append(_issue(PASS, _STATES.get(last.error_type or "", IssueKind.BROKEN), last.error))
    if last.error is not None and not last.summary:
        troubles += [trouble for trouble in before.values() if trouble.slug is not None]
    else:
        troubles += [trouble for function in status.functions for trouble in _of_function(function, before)]
    return _by_key(troubles)


_STATES = {
    "SourceUnavailable": IssueKind.SOURCE,
    "SourceUnstable": IssueKind.SOURCE,
    "SourceMissing": IssueKind.SOURCE,
    "InvalidSource": IssueKind.REJECTED,
    "ManifestInvalid": IssueKind.REJECTED,
    "EmptySource": IssueKind.REJECTED,
    "ApiUnauthorized": IssueKind.KEY,
    "ApiUnavailable": IssueKind.SILENT,
    "ApiGarbled": IssueKind.SILENT,
    "ApiRateLimited": IssueKind.SILENT,
}


def _of_function(function: FunctionStatus, before: OpenIssues) -> Iterable[Issue]:
    key = f"{FUNCTION}{function.slug}"
    ready = function.condition(ConditionType.READY)
    if ready.status:
        return ()
    if ready.reason in _NOT_LOOKED_AT:
        return (before[key],) if key in before else ()
    if function.condition(ConditionType.DRIFTED).status and ready.reason == "DriftReported":
        return (_issue(key, IssueKind.DRIFTED, function.condition(ConditionType.DRIFTED).message),)
    stalled = function.condition(ConditionType.STALLED)
    return (_issue(key, IssueKind.STALLED if stalled.status else IssueKind.FAILED, ready.message),)


def _issue(key: str, state: IssueKind, text: str) -> Issue:
    line = " ".join(text.split())
    return Issue(key, state, line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…")


def _by_key(troubles: Iterable[Issue]) -> OpenIssues:
    return {trouble.key: trouble for trouble in troubles}


@dataclass(frozen=True, slots=True)
class Change:
    """How one key's trouble changed: it came (``before`` None), went (``after`` None), or became another."""

    before: Issue | None
    after: Issue | None


def changes(told: OpenIssues, now: OpenIssues, passing: OpenIssues) -> tuple[Change, ...]:
    """Return what is new to somebody who was last told ``told``; ``passing`` holds what came and went since."""
    found = []
    for key in sorted({*told, *now, *passing}):
        old, new = told.get(key), now.get(key)
        if old is None and new is None:
            found.append(Change(passing[key], None))
        elif old is None or new is None or old.state is not new.state:
            found.append(Change(old, new))
    return tuple(found)


def passing_issues(before: OpenIssues, now: OpenIssues, told: OpenIssues) -> OpenIssues:
    """Return what went between two looks without ever having been told."""
    return {key: trouble for key, trouble in before.items() if key not in now and key not in told}


def encode(troubles: OpenIssues) -> dict[str, Json]:
    """Return a standing as JSON."""
    return {key: [str(trouble.state), trouble.text] for key, trouble in troubles.items()}


def decode(document: object) -> OpenIssues:
    """Return the standing that was kept; what cannot be read of it is left out."""
    troubles = {}
    for key, kept in document.items() if isinstance(document, dict) else ():
        match kept:
            case [str(state), str(text)] if state in set(IssueKind):
                troubles[str(key)] = Issue(str(key), IssueKind(state), text)
            case _:
                pass
    return troubles
