"""Exception classes of kapso-sync, each with its exit code.

    KapsoSyncError
    ├── PassCutOff                  1  a pass was cancelled before it ended
    ├── NotLeading                  1  this replica does not hold the Lease, so it makes no call to Kapso
    ├── LeaseError                 69  the Lease cannot be read or written
    │   ├── LeaseConflict              409: somebody wrote it since it was read
    │   ├── LeaseMissing               404: there is none
    │   └── LeaseForbidden             401 or 403: the Role does not allow it
    ├── UsageError                 64  the command line asks for something that does not exist
    ├── ConfigError                78  a setting is wrong or missing
    │   ├── SourceMissing              the folder, branch, tag or path is not there
    │   ├── SourceRefused              a source that is never read (a password in the URL, ``ext::``)
    │   ├── StateForeign               the state folder belongs to another project
    │   └── StateExposed               others may have written the state folder
    ├── StateUnusable              78  the state folder cannot be written: no journal, so no writes to Kapso
    │   └── StateReplaced              its files are other ones than those that were opened
    ├── StateLocked                75  another process holds the state folder
    ├── SourceUnavailable          69  the git remote does not answer
    │   ├── SourceDenied               it refuses our credentials, or we its host key
    │   ├── SourceUnstable             the folder keeps changing while it is read
    │   └── SourceUnverified           nobody in ``KAPSO_SYNC_VERIFY_FILE`` signed the revision, so it is not read
    ├── InvalidSource              65  no plan can be made from the source
    │   ├── ManifestInvalid            with one Problem per mistake
    │   └── EmptySource                the source lists no function
    ├── PlanChanged                 1  ``--expect`` named another plan
    └── ApiError                       Kapso's answer (or silence); carries method, route and status
        ├── ApiUnavailable         69  no answer, or 5xx; ``sent`` says whether the request may have been acted on
        ├── ApiGarbled             69  an answer that is not what the API documents: HTML, truncated, repeated pages
        │   └── AnswerTooLarge             one with more bytes than its request allows
        ├── ApiRateLimited         69  429 until the timeout of the request
        ├── ApiUnauthorized        77  401
        ├── ApiNotFound             1  404
        ├── ApiUnsupported          1  405: this base does not know the method
        ├── ApiConflict             1  409
        └── ApiRejected             1  400, 422 and every other refusal, with the server's message

Exceptions of other libraries are mapped to these classes in one place each: `api.transport` for httpx, `sources.git` for git,
`store.database` for SQLite.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar

from kapso_sync.dataclass import dataclass


class ExitCode(enum.IntEnum):
    """Exit codes of the command line; those of ``sysexits.h`` if one fits."""

    OK = 0
    FUNCTION_FAILED = 1
    GIT_AHEAD = 2
    DRIFTED = 3
    USAGE = 64
    INVALID = 65
    UNAVAILABLE = 69
    OUTPUT_LOST = 74
    LOCKED = 75
    KEY_REJECTED = 77
    CONFIG = 78
    INTERRUPTED = 130
    TERMINATED = 143


class IssueKind(enum.StrEnum):
    """The kind of an open issue: of a function, of passes as a whole, or a suspension; the values are kept in ``told.json``."""

    FAILED = "failed"
    STALLED = "stalled"
    DRIFTED = "drifted"
    SOURCE = "source failed"
    UNVERIFIED = "revision unverified"
    REJECTED = "manifest rejected"
    KEY = "key rejected"
    SILENT = "Kapso does not answer"
    BROKEN = "passes fail"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class Location:
    """A position in a file of the source; lines and columns count from 1, and 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return ``file``, ``file:line`` or ``file:line:column``."""
        parts = [self.file, *(str(n) for n in (self.line, self.column) if n)]
        return ":".join(parts)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the source: its location, a message, and a hint how to fix it.

    ``code`` is a stable kebab-case name such as ``unknown-key``; ``frame`` shows the source lines around the location, if any.
    ``count`` is the number of mistakes that it stands for, which is more than one where the others are not shown.
    """

    code: str
    message: str
    location: Location | None = None
    hint: str | None = None
    frame: str | None = None
    count: int = 1

    def __str__(self) -> str:
        """Return one line: ``file:line:column: message``."""
        return f"{self.location}: {self.message}" if self.location else self.message


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning: the pass continues, but a person should know about it. ``code`` is stable and kebab-case."""

    code: str
    message: str
    location: Location | None = None


class KapsoSyncError(Exception):
    """Base class of all errors, with a one-line ``message`` for the user and a ``hint`` that says what to do.

    ``issue`` is the kind of issue that a failed pass opens; None: the error does not change the issues that are already open.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FUNCTION_FAILED
    issue: ClassVar[IssueKind | None] = IssueKind.BROKEN

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PassCutOff(KapsoSyncError):
    """A pass was cancelled before it ended; the next one resumes it."""

    issue = None


class NotLeading(KapsoSyncError):
    """This replica does not hold the Lease, so it makes no call to Kapso; it is no failure, since the leader does the work."""

    issue = None


class LeaseError(KapsoSyncError):
    """The API server of Kubernetes does not answer, or refuses to read or write the Lease."""

    exit_code = ExitCode.UNAVAILABLE
    issue = None


class LeaseConflict(LeaseError):
    """409: somebody wrote the Lease since it was read."""


class LeaseMissing(LeaseError):
    """404: there is no such Lease."""


class LeaseForbidden(LeaseError):
    """401 or 403: the token is not accepted, or the Role does not allow the request."""


class UsageError(KapsoSyncError):
    """The command line asks for something that does not exist."""

    exit_code = ExitCode.USAGE


class ConfigError(KapsoSyncError):
    """A setting is wrong or missing."""

    exit_code = ExitCode.CONFIG


class SourceMissing(ConfigError):
    """The folder, branch, tag, commit or path inside it is not there."""

    issue = IssueKind.SOURCE


class SourceRefused(ConfigError):
    """The source is never read: its URL is unsafe, contains a password, or uses a transport that is not allowed."""


class StateForeign(ConfigError):
    """The state folder belongs to another project."""


class StateExposed(ConfigError):
    """The state folder is somebody else's, or others may write it: what it holds cannot be trusted."""


class StateUnusable(KapsoSyncError):
    """The state folder cannot be read or written; without a journal nothing is written to Kapso."""

    exit_code = ExitCode.CONFIG


class StateReplaced(StateUnusable):
    """The state folder was removed or replaced: neither its lock nor its journal are those that this process has."""


class StateLocked(KapsoSyncError):
    """Another process holds the state folder."""

    exit_code = ExitCode.LOCKED


class SourceUnavailable(KapsoSyncError):
    """The git remote does not answer in time, or refuses the credentials."""

    exit_code = ExitCode.UNAVAILABLE
    issue = IssueKind.SOURCE


class SourceDenied(SourceUnavailable):
    """The git remote refuses our credentials, or shows another host key than the known one; it is asked less and less."""


class SourceUnstable(SourceUnavailable):
    """The folder kept changing while it was read; the next pass tries again."""


class SourceUnverified(SourceUnavailable):
    """Nobody in ``KAPSO_SYNC_VERIFY_FILE`` signed the revision, so it is not read; the last good one stays in force.

    ``commit`` is the id of the commit that is not read. ``signer`` is the fingerprint of the key that signed it, where there is
    a signature; if the signature does not match what it was made for, that is only a claim.
    """

    issue = IssueKind.UNVERIFIED

    def __init__(self, message: str, *, commit: str, signer: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.commit = commit
        self.signer = signer


class InvalidSource(KapsoSyncError):
    """No plan can be made from the source; the last good revision stays in force."""

    exit_code = ExitCode.INVALID
    issue = IssueKind.REJECTED


MAX_PROBLEMS = 100
"""Mistakes of one source that are shown: a small file can hold tens of thousands, and a person mends the first ones first."""


def first_problems(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the first `MAX_PROBLEMS` mistakes, and one more problem that counts the others, if there are others."""
    shown, rest = problems[:MAX_PROBLEMS], problems[MAX_PROBLEMS:]
    if not rest:
        return tuple(problems)
    more = sum(problem.count for problem in rest)
    text = f"and {more} more mistakes, which are not shown" if more > 1 else "and one more mistake, which is not shown"
    return (*shown, Problem("more-problems", text, None, "correct these first", count=more))


class ManifestInvalid(InvalidSource):
    """The manifest is invalid; ``problems`` holds the mistakes found, in file order, as `first_problems` returns them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = first_problems(problems)
        first = str(self.problems[0]) if self.problems else "the manifest is invalid"
        more = len(problems) - 1
        super().__init__(
            f"{first} (and {more} more)" if more > 0 else first,
            hint=self.problems[0].hint if self.problems else None,
        )


class EmptySource(InvalidSource):
    """The source lists no function at all."""


class PlanChanged(KapsoSyncError):
    """The plan is not the one that ``--expect`` names."""


@dataclass(frozen=True, slots=True)
class Call:
    """The request that an API error is about; ``route`` is a template such as ``/functions/{id}``, never a full URL."""

    method: str
    route: str

    def __str__(self) -> str:
        """Return ``METHOD route``."""
        return f"{self.method} {self.route}"


class ApiError(KapsoSyncError):
    """The request ``call`` failed; ``status`` is the HTTP status, or None if there was no answer."""

    def __init__(self, message: str, *, call: Call, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.call = call
        self.status = status


class ApiUnavailable(ApiError):
    """No answer, or 5xx; ``sent`` is False only if the request certainly did not reach the server."""

    exit_code = ExitCode.UNAVAILABLE
    issue = IssueKind.SILENT

    def __init__(
        self,
        message: str,
        *,
        call: Call,
        status: int | None = None,
        hint: str | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message, call=call, status=status, hint=hint)
        self.sent = sent


class SecretRoutesUnavailable(ApiUnavailable):
    """502, 503 or 504 on a secret route: Cloudflare behind Kapso fails; it counts as the failure of each single function."""


class ApiGarbled(ApiError):
    """An answer that is not what the API documents; like `ApiUnavailable`, the request may have been acted on."""

    exit_code = ExitCode.UNAVAILABLE
    issue = IssueKind.SILENT


class AnswerTooLarge(ApiGarbled):
    """An answer with more bytes than its request allows; it is not asked for again."""


class ApiRateLimited(ApiError):
    """429 until the timeout or the last attempt of the request; ``retry_after`` is in seconds."""

    exit_code = ExitCode.UNAVAILABLE
    issue = IssueKind.SILENT

    def __init__(
        self, message: str, *, call: Call, status: int | None = None, hint: str | None = None, retry_after: float = 60.0
    ) -> None:
        super().__init__(message, call=call, status=status, hint=hint)
        self.retry_after = retry_after


class ApiUnauthorized(ApiError):
    """401: the key is missing or wrong."""

    exit_code = ExitCode.KEY_REJECTED
    issue = IssueKind.KEY


class ApiNotFound(ApiError):
    """404."""


class ApiUnsupported(ApiError):
    """405: this base does not know the method on this route."""


class ApiConflict(ApiError):
    """409."""


class ApiRejected(ApiError):
    """400, 422 or another refusal; the message contains the server's text, without secrets and shortened."""


class SecretNameTaken(ApiRejected):
    """422 because the *name* of a secret is taken; only after this refusal the secret is deleted and created again."""


class LockVersionRefused(ApiRejected):
    """400 or 422 because this base does not take the field ``lock_version`` in an update."""


class ApiForbidden(ApiRejected):
    """403 with a reason in JSON: Kapso refuses this call, but may accept others."""


class ApiPaymentRequired(ApiRejected):
    """402: the project's plan does not include this route."""


class UsersUnknown(ApiError):
    """One kind of users of functions could not be read completely, so a function without known users may still have some."""
