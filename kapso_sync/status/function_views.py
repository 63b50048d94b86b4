"""Collects what the state folder knows of one function, for its view on the page; reads only, beside the pass that writes."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from kapso_sync.model import events
from kapso_sync.model.events import Event, event_of
from kapso_sync.model.function_view import (
    BackupSummary,
    BackupView,
    CheckResult,
    FunctionRecord,
    HistoryEntry,
    RevisionHistory,
)
from kapso_sync.model.functions import CODE, DESCRIPTION, FIELDS, Content, Version, code_hash
from kapso_sync.model.json_values import Json
from kapso_sync.model.ownership import split_description
from kapso_sync.model.source import Revision
from kapso_sync.reconcile.plan.comparison import content_diff
from kapso_sync.status.conditions import Redact, shown_diff
from kapso_sync.status.event_text import event_text
from kapso_sync.store.backups import Backup, read_backups
from kapso_sync.store.connection import DATABASE_NAME
from kapso_sync.store.database import BACKUPS_NAME, read_version
from kapso_sync.store.history import HISTORY_NAME, read_history

MAX_ENTRIES = 100
"""Most entries of the history that a view shows, the newest ones."""

MAX_RECORDS = 16
"""How many functions' records are kept until something changes in the state folder."""

_Signature = tuple[tuple[int, int] | None, ...]


class FunctionViews:
    """Reads the views of one daemon's functions. ``folder`` returns the state folder, ``redact`` removes secrets.

    A page that is open asks again and again: a record is read again only when a file has changed that it was made of.
    """

    def __init__(self, folder: Callable[[], Path], redact: Redact) -> None:
        self._folder = folder
        self._redact = redact
        self._records: OrderedDict[tuple[str, str | None], tuple[_Signature, FunctionRecord]] = OrderedDict()

    async def record(self, slug: str, function_id: str | None) -> FunctionRecord:
        """Return what is known of a function; what cannot be read is empty."""
        folder, key = self._folder(), (slug, function_id)
        signature = _signature(folder)
        known = self._records.get(key)
        if known is not None and known[0] == signature:
            self._records.move_to_end(key)
            return known[1]
        found = await asyncio.to_thread(_read_record, folder, slug, function_id)
        # Here, since nothing else may use the redactor at the same time.
        changed = None if found.changed is None else shown_diff(found.changed, self._redact)
        record = replace(found, changed=changed)
        self._records[key] = (signature, record)
        while len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)
        return record

    async def backup(self, slug: str, function_id: str | None, backup_id: str) -> BackupView | None:
        """Return one backup with its diff, or None if there is none with this id."""
        found = await asyncio.to_thread(_read_backup, self._folder(), slug, function_id, backup_id)
        return found if found is None or found.diff is None else replace(found, diff=shown_diff(found.diff, self._redact))


def _signature(folder: Path) -> _Signature:
    names = [name + end for name in (HISTORY_NAME, DATABASE_NAME) for end in ("", "-wal")]
    return tuple(_stamp(folder / name) for name in (*names, BACKUPS_NAME))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _read_record(folder: Path, slug: str, function_id: str | None) -> FunctionRecord:
    history = read_history(folder, slug)
    entries = [(entry, event_of(str(entry.get("event")), entry)) for entry in history]
    backups = read_backups(folder / BACKUPS_NAME, slug)
    live = None if function_id is None else read_version(folder, function_id)
    former = _former(backups, live)
    return FunctionRecord(
        history=_by_revision(entries[-MAX_ENTRIES:]),
        checks=_last_checks(entries),
        backups=tuple(map(_summary, backups)),
        former=None if former is None else _summary(former),
        changed=None if former is None or live is None else _diff(slug, former, live),
        rolled_back=former is not None and _rolled_back(former),
    )


def _read_backup(folder: Path, slug: str, function_id: str | None, backup_id: str) -> BackupView | None:
    found = next((backup for backup in read_backups(folder / BACKUPS_NAME, slug) if backup.id == backup_id), None)
    if found is None:
        return None
    live = None if function_id is None else read_version(folder, function_id)
    return BackupView(_summary(found), None if live is None else _diff(slug, found, live))


def _former(backups: Sequence[Backup], live: Version | None) -> Backup | None:
    """Return the newest backup whose code differs from what runs; code that was rolled back counts if there is no other."""
    if live is None:
        return None
    others = [each for each in backups if each.code is not None and code_hash(each.code) != code_hash(live.code)]
    return next((each for each in others if not _rolled_back(each)), others[0] if others else None)


def _rolled_back(backup: Backup) -> bool:
    return backup.reason == "failed"


def _summary(backup: Backup) -> BackupSummary:
    return BackupSummary(backup.id, backup.saved_at, backup.reason, backup.keep)


def _diff(slug: str, backup: Backup, live: Version) -> str:
    before, after = _content(backup.fields, backup.code), _content(live.fields, live.code)
    names = [name for name in (*FIELDS, CODE) if before.get(name) != after.get(name)]
    return content_diff(slug, (before, backup.code), (after, live.code), names, ("backup", "live"))


def _content(fields: Content, code: str | None) -> Content:
    """Return fields and code as comparable content; a backup has the description as Kapso has it, with our mark."""
    text = fields.get(DESCRIPTION)
    described = {DESCRIPTION: split_description(text)[0]} if isinstance(text, str) else {}
    return {**fields, **described, CODE: None if code is None else code_hash(code)}


def _by_revision(entries: Iterable[tuple[Mapping[str, Json], Event | None]]) -> tuple[RevisionHistory, ...]:
    groups = []
    for _, group in itertools.groupby(entries, key=lambda item: item[0].get("revision")):
        members = list(group)
        shown = [HistoryEntry(at, _level(event), _text(entry, event)) for entry, event in members if (at := _at(entry))]
        if shown:
            seconds, rolled_back = _outcome([event for _, event in members])
            groups.append(RevisionHistory(_revision(members[0][0]), tuple(reversed(shown)), seconds, rolled_back))
    return tuple(reversed(groups))


def _outcome(entries: Iterable[Event | None]) -> tuple[float | None, bool]:
    """Return how long the last deployment of git's code took, and whether it was rolled back since."""
    seconds, restoring, rolled_back = None, False, False
    for event in entries:
        match event:
            case events.RollbackStarted():
                restoring = True
            case events.RollbackSucceeded():
                restoring, rolled_back = False, True
            case events.RollbackFailed():
                restoring = False
            case events.DeploySucceeded() if not restoring:
                seconds, rolled_back = event.duration_ms / 1000, False
            case _:
                pass
    return seconds, rolled_back


def _revision(entry: Mapping[str, Json]) -> Revision | None:
    found, *others = (_string(entry, name) for name in ("revision", "described", "subject", "author"))
    described, subject, author = others
    return None if found is None else Revision(found, described=described, subject=subject, author=author)


def _last_checks(entries: Sequence[tuple[Mapping[str, Json], Event | None]]) -> tuple[CheckResult, ...]:
    """Return the results of the last run: one if all passed, else each that failed."""
    found: list[CheckResult] = []
    for entry, event in reversed(entries):
        at = _at(entry)
        if at is None or not isinstance(event, events.CheckPassed | events.CheckFailed):
            if found:
                break
            continue
        if isinstance(event, events.CheckPassed):
            return tuple(found) or (_all_passed(at, event),)
        if any(result.number == event.check for result in found):
            break
        found.append(CheckResult(at, number=event.check, expected=event.expected, answer=event.answer))
    return tuple(reversed(found))


def _all_passed(at: datetime, event: events.CheckPassed) -> CheckResult:
    return CheckResult(at, count=event.checks, answer=event.answer or "", seconds=event.duration_ms / 1000)


def _at(entry: Mapping[str, Json]) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(entry["at"]))
    except (KeyError, ValueError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _level(event: Event | None) -> str:
    return "info" if event is None else str(event.level)


def _text(entry: Mapping[str, Json], event: Event | None) -> str:
    return event_text(event) if event is not None else str(entry.get("event"))


def _string(entry: Mapping[str, Json], name: str) -> str | None:
    value = entry.get(name)
    return value if isinstance(value, str) else None
