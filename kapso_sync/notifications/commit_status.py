"""Decides the status of a commit: pending, success or failure. Pure."""

from __future__ import annotations

import enum
import re

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ExitCode, IssueKind
from kapso_sync.model.source import Revision
from kapso_sync.model.status import ConditionType, DaemonStatus, FunctionStatus, ReadyReason
from kapso_sync.plurals import counted

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MAX_NAMED = 5
"""Maximum number of failing functions that are named."""


class CommitState(enum.StrEnum):
    """The state of a commit, by the forges' common words."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """The status of one commit, with a line for people."""

    commit: str
    state: CommitState
    text: str


def commit_status_for(status: DaemonStatus) -> CommitStatus | None:
    """Return the status of the commit that the running or last pass read, or refused to read.

    None if the pass says nothing about a commit: if Kapso or git do not answer, the key is rejected, or a newer revision came.
    """
    if status.reconciling:
        commit = _commit(status.reading)
        return None if commit is None else CommitStatus(commit, CommitState.PENDING, "a pass is running")
    last = status.last_pass
    commit = _commit(last.revision) if last is not None else None
    if last is None or commit is None:
        return None
    if last.error is not None:
        fault_of_git = last.exit_code == ExitCode.INVALID or last.issue is IssueKind.UNVERIFIED
        return CommitStatus(commit, CommitState.FAILURE, " ".join(last.error.split())) if fault_of_git else None
    not_ready = [function for function in status.functions if not function.condition(ConditionType.READY).status]
    failed = [_named(item) for item in not_ready if item.condition(ConditionType.READY).reason != ReadyReason.NOT_TRIED]
    total = len(status.listed)
    if failed:
        named = ", ".join(failed[:_MAX_NAMED]) + (", …" if len(failed) > _MAX_NAMED else "")
        return CommitStatus(commit, CommitState.FAILURE, f"{len(failed)} of {counted(total, 'function')} not in sync: {named}")
    return None if not_ready else CommitStatus(commit, CommitState.SUCCESS, f"{counted(total, 'function')} in sync")


def _named(function: FunctionStatus) -> str:
    """Return a function's name, with the place in the source that threw, if it is known."""
    place = function.evidence.place if function.evidence is not None else None
    return function.slug if place is None else f"{function.slug} at {place}"


def _commit(revision: Revision | None) -> str | None:
    """Return the commit's id; a folder has none, even in a work tree: its files may not be committed."""
    return revision.id if revision is not None and _COMMIT.fullmatch(revision.id) else None
