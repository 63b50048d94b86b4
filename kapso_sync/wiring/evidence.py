"""Builds the collector of evidence of failures, and lets the redactor know every secret that invocations may hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from kapso_sync.errors import ConfigError
from kapso_sync.invocations.evidence import LocalEvidenceCollector
from kapso_sync.invocations.places import LocalBuilds
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.settings import Settings
from kapso_sync.store.daemon_files import DaemonFiles
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.wiring.building import make_secret_reader


def make_evidence_collector(settings: Settings, redactor: Redactor, folder: Path, api: FunctionsApi) -> LocalEvidenceCollector:
    """Return the collector for the functions of one state folder."""
    return LocalEvidenceCollector(
        api,
        LocalBuilds([folder]),
        settings.check_window,
        redactor.text,
        lambda: learn_secrets(settings, redactor, [folder]),
    )


def learn_secrets(settings: Settings, redactor: Redactor, folders: Sequence[Path]) -> None:
    """Let the redactor know every value that a function may have by these settings, and kapso-sync's own credentials.

    Invocations may hold any of them, and no manifest is read that says which there are.
    """
    read: list[Callable[[], str | None]] = [
        settings.git_password,
        settings.webhook_key,
        settings.admin_key,
        settings.commit_status_key,
        *(DaemonFiles(folder).read_token for folder in folders),
    ]
    for credential in read:
        # One that cannot be read is none that this process could show, and nothing here needs it.
        with contextlib.suppress(ConfigError, OSError, ValueError):
            redactor.add(credential())
    make_secret_reader(settings, redactor).learn_all()
