"""Builds what says why an invocation failed: with every secret redacted, and the places led back to the source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from kapso_sync.errors import ConfigError
from kapso_sync.invocations.evidence import error_text, evidence_of
from kapso_sync.invocations.places import InvocationPlacer, LocalBuilds, place_all
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import InvocationRecord, RemoteFunction
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.session import Explain
from kapso_sync.settings import Settings
from kapso_sync.store.daemon_files import DaemonFiles
from kapso_sync.telemetry import Redactor
from kapso_sync.wiring.building import make_secret_reader


def make_explainer(settings: Settings, redactor: Redactor, folder: Path) -> Explain:
    """Return what explains invocations of the functions of one state folder."""

    def placer(now: RemoteFunction) -> InvocationPlacer:
        return InvocationPlacer(now, LocalBuilds([folder]), edge=settings.check_window)

    async def explain(api: FunctionsApi, function_id: str, slug: str, record: InvocationRecord) -> tuple[str, Evidence]:
        learn_secrets(settings, redactor, [folder])
        (placed,) = await place_all(api, (function_id, slug), [record], placer)
        return error_text(placed, redactor.text), evidence_of(placed, slug, None, redactor.text)

    return explain


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
