"""``history`` and ``restore``: shows what was done to a function, and restores an earlier version."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kapso_sync.cli.console import Console
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.pull import OutputOptions, finish
from kapso_sync.cli.runner import run_to_end
from kapso_sync.cli.state_folders import described, find_known_folder, source_of, state_folders
from kapso_sync.errors import ExitCode, UsageError
from kapso_sync.model.events import event_of
from kapso_sync.model.json_values import Json
from kapso_sync.model.source import Revision
from kapso_sync.settings import Settings
from kapso_sync.status.event_text import event_text
from kapso_sync.store.backups import Backup, read_backup, read_backups
from kapso_sync.store.database import BACKUPS_NAME
from kapso_sync.store.history import read_history
from kapso_sync.wiring.folder import find_state_folder
from kapso_sync.wiring.pull import plan_a_restore


def history(slug: str, context: CommandContext, *, json_output: bool) -> int:
    """Print the history of a function, and its backups; makes no API call."""
    settings = context.load_settings()
    folder = find_known_folder(settings, lambda known: _knows(known, slug))
    entries, backups = read_history(folder, slug), read_backups(folder / BACKUPS_NAME, slug)
    if not entries and not backups:
        others = [described(other) for other in state_folders(settings) if _knows(other, slug)]
        named = f"name the SOURCE that was synced, with its --path, --env and --env-file: {'; '.join(others)}"
        hint = named if others else "`kapso-sync status` lists what was synced"
        raise UsageError(f"nothing is known of `{slug}` in {folder}", hint=hint)
    if json_output:
        document: dict[str, Json] = {
            "slug": slug,
            "events": [dict(entry) for entry in entries],
            "backups": [_backup_document(backup) for backup in backups],
        }
        context.stdout().document(document)
    else:
        _print(context.stdout(), entries, backups)
    return int(ExitCode.OK)


def restore(slug: str, which: str | None, context: CommandContext, output: OutputOptions) -> int:
    """Write a backup back into the folder, and show the difference; nothing is written to Kapso."""
    settings = context.load_settings()
    backup = _chosen(slug, which, settings)

    async def work() -> int:
        bus = context.event_bus(settings)
        target, plan = await plan_a_restore(settings, backup, bus, force=output.force)
        return finish(target, plan, output, context)

    return run_to_end(work)


def _knows(folder: Path, slug: str) -> bool:
    return bool(read_history(folder, slug) or read_backups(folder / BACKUPS_NAME, slug))


def _chosen(slug: str, which: str | None, settings: Settings) -> Backup:
    """Return the backup of this id, or in this file (which may be of a slug that it had before), else the newest.

    Where the source's own state has none that fits, those of all sources of this user count: a daemon that follows a repository
    saves what its work tree wants back.
    """
    file = read_backup(Path(which)) if which is not None and Path(which).is_file() else None
    if file is not None:
        return dataclasses.replace(file, slug=slug)
    own = find_state_folder(settings)
    others = [folder for folder in state_folders(settings) if folder != own]
    known: list[Backup] = []
    for folders in ([own], others):
        kept = {folder: read_backups(folder / BACKUPS_NAME, slug) for folder in folders}
        found = {
            folder: [backup for backup in kept[folder] if which is None or backup.id.startswith(which)] for folder in folders
        }
        found = {folder: backups for folder, backups in found.items() if backups}
        known += [backup for backups in kept.values() for backup in backups]
        fits = [backups[0] for backups in found.values()] if which is None else list(itertools.chain(*found.values()))
        if len({backup.id for backup in fits}) == 1:
            return fits[0]
        if fits:
            what = "several sources have backups" if which is None else f"{which} fits several backups"
            raise UsageError(f"{what} of `{slug}`", hint=f"choose one with --from ID: {_listed(fits)}")
    what = f"no backup {which}" if which is not None else "no backup"
    hint = f"choose one with --from ID: {_listed(known)}" if known else f"they are kept in {own / BACKUPS_NAME}"
    raise UsageError(f"there is {what} of `{slug}`", hint=hint)


def _listed(backups: Sequence[Backup]) -> str:
    return ", ".join(f"{backup.id} of {source_of(backup.path.parents[2]) or backup.path.parent}" for backup in backups[:10])


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
    described = f" ({entry['described']})" if entry.get("described") else ""
    return f"{Revision(revision).short}{described}{subject}{author}"


def _entry_text(entry: Mapping[str, Any]) -> str:
    """Return one entry as a sentence; its event's name where another version wrote it."""
    name = str(entry["event"])
    event = event_of(name, entry)
    return name if event is None else event_text(event)
