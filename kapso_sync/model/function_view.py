"""Defines what the page shows of one function beyond its status: history, checks, backups, and recent invocations."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime

from kapso_sync.dataclass import dataclass
from kapso_sync.model.source import Revision


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One thing that was done to a function. ``level`` is that of its event, ``text`` a line for people."""

    at: datetime
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class RevisionHistory:
    """What was done to a function while ``revision`` was the newest; None: it is not known. The newest entry comes first.

    ``deploy_seconds`` is how long the last deployment of its code took that went live; None: none did. ``rolled_back``: what
    ran before was restored afterwards.
    """

    revision: Revision | None
    entries: tuple[HistoryEntry, ...]
    deploy_seconds: float | None = None
    rolled_back: bool = False


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The last result of a function's checks. ``number`` is that of a failed check; None: all ``count`` of them passed.

    ``answer`` is what the failed check got, or the last one that passed; empty if that is not known.
    """

    at: datetime
    count: int | None = None
    number: int | None = None
    expected: str = ""
    answer: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """A backup as lists show it. ``kept``: its content was not in git."""

    id: str
    saved_at: datetime
    reason: str
    kept: bool


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """What the state folder knows of a function. The newest revision, and the newest backup, come first.

    ``former`` is the backup of what ran before, and ``changed`` the diff from there to what was last confirmed to run; None:
    one of them is not known. ``rolled_back``: the former one failed and was rolled back, and no other is known. ``checks`` are
    the results of the last run of its checks.
    """

    history: tuple[RevisionHistory, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    backups: tuple[BackupSummary, ...] = ()
    former: BackupSummary | None = None
    changed: str | None = field(default=None, repr=False)
    rolled_back: bool = False


@dataclass(frozen=True, slots=True)
class BackupView:
    """A backup, and the diff from it to what was last confirmed to run; None: that is not known."""

    summary: BackupSummary
    diff: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class InvocationLine:
    """One line of an invocation's console, or its error (level ``error``); ``text`` may have several lines."""

    level: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class InvocationView:
    """One invocation, without its bodies. ``note`` says why its places are not those of the source."""

    at: datetime | None
    status_code: int | None
    duration_ms: float | None
    lines: tuple[InvocationLine, ...]
    note: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it was answered with a success."""
        return self.status_code is not None and 200 <= self.status_code < 300


@dataclass(frozen=True, slots=True)
class InvocationsView:
    """The newest invocations of a function, the newest first, as Kapso listed them at ``asked_at``."""

    asked_at: datetime
    invocations: tuple[InvocationView, ...]
