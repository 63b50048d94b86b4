"""``status``: shows the status of the running daemon, or of the state folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kapso_sync import __version__
from kapso_sync.advice import as_it_is
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.daemon_client import DaemonClient
from kapso_sync.cli.json_documents import print_status
from kapso_sync.cli.state_folders import find_known_folder, source_of
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ExitCode
from kapso_sync.model.status import DaemonStatus, status_document
from kapso_sync.settings import Settings
from kapso_sync.store.database import read_last_pass, read_state


def status(context: CommandContext, *, json_output: bool) -> int:
    """Print the status of the running daemon, or else of the state folder; takes no lock, and makes no API call."""
    settings = context.load_settings()
    folder = find_known_folder(settings, lambda known: read_last_pass(known) is not None)
    running = DaemonClient(settings, folder).status()
    document = running or _of_folder(settings, folder)
    if json_output:
        print(json.dumps(document, indent=2))
    else:
        # A daemon has completed its own commands.
        print_status(document, folder, as_it_is if running else context.of_source(source_of(folder)).advise)
    return int(ExitCode.OK)


def _of_folder(settings: Settings, folder: Path) -> dict[str, Any]:
    now = SystemClock().now()
    empty = status_document(DaemonStatus(__version__, now, now, settings.source or str(Path.cwd())))
    document: dict[str, Any] = {**empty, **(read_last_pass(folder) or {})}
    document["unfinished"] = [f"{intent.kind} {intent.slug}" for intent in read_state(folder).intents]
    return document
