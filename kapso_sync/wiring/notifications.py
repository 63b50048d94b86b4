"""Builds the notifier and the commit status reporter of the daemon."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

from kapso_sync.advice import Advise, as_it_is
from kapso_sync.daemon.supervisor import Supervisor
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.source import Revision
from kapso_sync.model.status import DaemonStatus, Role
from kapso_sync.notifications.commit_status import CommitStatus, commit_status_for
from kapso_sync.notifications.commit_status_client import CommitStatusClient, PostResult
from kapso_sync.notifications.commit_status_reporter import CommitStatusReporter
from kapso_sync.notifications.destinations import AppriseSender, Destination, read_destinations, require_apprise
from kapso_sync.notifications.forges import Forge, Repository, find_repository
from kapso_sync.notifications.messages import MessageContext
from kapso_sync.notifications.notifier import Notifier, NotifierDeps
from kapso_sync.notifications.worker import run_worker
from kapso_sync.settings import Settings
from kapso_sync.sources.spec import parse_source
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.store.json_file import PrivateJsonFile
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.urls import is_loopback
from kapso_sync.wiring.network import find_network

TOLD_NAME = "told.json"
COMMITS_NAME = "commits.json"


@dataclass(frozen=True, slots=True)
class NotificationDeps:
    """The inputs of notifications; ``settings`` returns those in effect, so a reload needs no restart.

    ``advise`` completes the commands in texts.
    """

    settings: Callable[[], Settings]
    tracker: StatusTracker
    redactor: Redactor
    clock: Clock
    emit: events.Listener
    advise: Advise = as_it_is


@contextlib.asynccontextmanager
async def run_notifications(deps: NotificationDeps, folder: Path) -> AsyncIterator[None]:
    """Send messages and commit statuses while the block runs; ``folder`` stores what was sent."""
    settings = deps.settings

    def status() -> DaemonStatus:
        return deps.tracker.status().advised(deps.advise)

    def destinations() -> tuple[Destination, ...]:
        file = settings().notify_urls_file
        return () if file is None else read_destinations(file)

    def commit_status() -> CommitStatus | None:
        return None if settings().commit_status == "off" else commit_status_for(status())

    async def post(wanted: CommitStatus) -> PostResult:
        return await _post(deps, wanted)

    notifier = Notifier(
        NotifierDeps(
            status=status,
            destinations=destinations,
            context=lambda now: _message_context(settings(), now),
            interval=lambda: settings().notify_interval,
            redact=deps.redactor.text,
            emit=deps.emit,
        ),
        AppriseSender(lambda: find_network(settings(), deps.redactor).requests_environment()).send,
        PrivateJsonFile(folder / TOLD_NAME),
        deps.clock,
    )
    reporter = CommitStatusReporter(commit_status, post, PrivateJsonFile(folder / COMMITS_NAME), deps.clock, deps.emit)

    def active() -> bool:
        return deps.tracker.status().role is Role.LEADER

    async with Supervisor(deps.clock, deps.emit) as supervisor:
        supervisor.start("messages", lambda: run_worker(notifier, deps.tracker.changed, deps.clock, active))
        supervisor.start("commits", lambda: run_worker(reporter, deps.tracker.changed, deps.clock, active))
        yield


async def _post(deps: NotificationDeps, wanted: CommitStatus) -> PostResult:
    settings = deps.settings()

    def token() -> str:
        value = settings.commit_status_key()
        deps.redactor.add(value)
        return value

    try:
        repository = _repository(settings, deps.tracker.source)
        network = find_network(settings, deps.redactor)
    except ConfigError as error:
        return PostResult(error.message, error.hint)
    if repository is None:
        return PostResult()
    context = f"kapso-sync/{settings.env}" if settings.env else "kapso-sync"
    return await CommitStatusClient(repository, context, token, settings.public_url, network=network).post(wanted)


def check_notification_settings(settings: Settings) -> None:
    """Raise `ConfigError` for settings with which no message or commit status could be sent."""
    if settings.public_url is not None:
        _check_url("KAPSO_SYNC_PUBLIC_URL", settings.public_url, plain=True)
    if settings.notify_urls_file is not None:
        require_apprise()
        read_destinations(settings.notify_urls_file)
    if settings.commit_status_url is not None:
        _check_url("KAPSO_SYNC_COMMIT_STATUS_URL", settings.commit_status_url, plain=settings.allow_http)
    if settings.commit_status != "off":
        settings.commit_status_key()
        where = settings.source or "."
        spec = parse_source(where, branch=settings.branch, ref=settings.ref, path=settings.path, cwd=Path.cwd())
        _repository(settings, spec.location)


def _repository(settings: Settings, location: str) -> Repository | None:
    if settings.commit_status == "off":
        return None
    forge = None if settings.commit_status == "auto" else Forge(settings.commit_status)
    return find_repository(location, forge, settings.commit_status_url)


def _check_url(variable: str, url: str, *, plain: bool) -> None:
    """Raise `ConfigError` for a URL that is not a web page's, or holds a credential; without ``plain`` it must be https."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        sound = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        host, sound = "", False
    if not sound or "@" in url.partition("//")[2].partition("/")[0]:
        raise ConfigError(
            f"{variable} is not an http(s) address without user and password", hint="an example: https://HOST/path"
        )
    if url.startswith("http:") and not plain and not is_loopback(host):
        raise ConfigError(
            f"{variable} {url} would send the token in the clear", hint="use https://, or set KAPSO_SYNC_ALLOW_HTTP=1"
        )


def _message_context(settings: Settings, status: DaemonStatus) -> MessageContext:
    return MessageContext(status.owner or status.source, settings.env, _revision(status), settings.public_url)


def _revision(status: DaemonStatus) -> Revision | None:
    """Return the revision that the last pass read; if it was planned, with all that is known of it."""
    read = status.last_pass.revision if status.last_pass is not None else None
    if read is None or (status.revision is not None and status.revision.id == read.id):
        return status.revision
    return read
