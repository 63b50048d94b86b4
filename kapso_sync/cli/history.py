"""``history`` and ``restore``: shows what was done to a function, and restores an earlier version."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kapso_sync.cli.console import Console, stdout_console
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.pull import OutputOptions, finish
from kapso_sync.cli.runner import run_to_end
from kapso_sync.errors import ExitCode, UsageError
from kapso_sync.model.events import event_of
from kapso_sync.model.functions import Json
from kapso_sync.model.source import Revision
from kapso_sync.status.event_text import event_text
from kapso_sync.store.backups import Backup, read_backup, read_backups
from kapso_sync.store.database import BACKUPS_NAME
from kapso_sync.store.history import read_history
from kapso_sync.wiring import find_state_folder
from kapso_sync.wiring.pull import plan_a_restore


def history(slug: str, context: CommandContext, *, json_output: bool) -> int:
    """Print the history of a function, and its backups; makes no API call."""
    folder = find_state_folder(context.load_settings())
    entries, backups = read_history(folder, slug), read_backups(folder / BACKUPS_NAME, slug)
    if not entries and not backups:
        raise UsageError(f"nothing is known of `{slug}` in {folder}", hint="is the source the one that was synced?")
    if json_output:
        document: dict[str, Json] = {
            "slug": slug,
            "events": [dict(entry) for entry in entries],
            "backups": [_backup_document(backup) for backup in backups],
        }
        print(json.dumps(document, indent=2))
    else:
        _print(stdout_console(), entries, backups)
    return int(ExitCode.OK)


def restore(slug: str, which: str | None, context: CommandContext, output: OutputOptions) -> int:
    """Write a backup back into the folder, and show the difference; nothing is written to Kapso."""
    settings = context.load_settings()
    backup = _chosen(slug, which, find_state_folder(settings) / BACKUPS_NAME)

    async def work() -> int:
        bus = context.event_bus(settings)
        target, plan = await plan_a_restore(settings, backup, bus, force=output.force)
        return finish(target, plan, output)

    return run_to_end(work)


def _chosen(slug: str, which: str | None, folder: Path) -> Backup:
    """Return the backup of this id, or in this file (which may be of a slug that it had before), else the newest."""
    file = read_backup(Path(which)) if which is not None and Path(which).is_file() else None
    if file is not None:
        return dataclasses.replace(file, slug=slug)
    backups = read_backups(folder, slug)
    found = [backup for backup in backups if which is None or backup.id.startswith(which)]
    if not found or (which is not None and len(found) > 1):
        known = ", ".join(backup.id for backup in backups[:10])
        what = f"no backup {which}" if which is not None else "no backup"
        hint = f"`kapso-sync history {slug}` lists them: {known}" if known else f"they are kept in {folder}"
        raise UsageError(f"there is {what} of `{slug}`" if not found else f"{which} fits several backups", hint=hint)
    return found[0]


def _backup_document(backup: Backup) -> dict[str, Json]:
    at = backup.saved_at.isoformat(timespec="seconds")
    return {"id": backup.id, "saved_at": at, "reason": backup.reason, "kept": backup.keep, "file": str(backup.path)}


def _print(console: Console, entries: Sequence[Mapping[str, Any]], backups: Sequence[Backup]) -> None:
    for revision, group in itertools.groupby(entries, key=lambda entry: entry.get("revision")):
        applied = list(group)
        console.line(_revision_line(revision, applied[0]), style="bold")
        for entry in applied:
            console.line(f"{str(entry['at'])[:19].replace('T', ' ')}  {_entry_text(entry)}", indent=2, hang=21)
    if backups:
        console.line("Backups", style="bold")
    for backup in backups:
        console.line(f"{backup.saved_at:%Y-%m-%d %H:%M:%S}  {backup.id}  {backup.reason}", indent=2, hang=21)


def _revision_line(revision: str | None, entry: Mapping[str, Any]) -> str:
    if revision is None:
        return "unknown revision"
    subject = f" “{entry['subject']}”" if entry.get("subject") else ""
    author = f" by {entry['author']}" if entry.get("author") else ""
    return f"{Revision(revision).short}{subject}{author}"


def _entry_text(entry: Mapping[str, Any]) -> str:
    """Return one entry as a sentence; its event's name where another version wrote it."""
    name = str(entry["event"])
    event = event_of(name, entry)
    return name if event is None else event_text(event)
