"""``status`` and ``invoke``: looking at what is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from kapso_sync import __version__
from kapso_sync.cli.daemon import daemon_url
from kapso_sync.cli.documents import print_status
from kapso_sync.cli.flags import Flags
from kapso_sync.cli.runner import run_to_end
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ExitCode, UsageError
from kapso_sync.model.functions import Json
from kapso_sync.model.status import DaemonStatus, status_document
from kapso_sync.settings import Settings, load_settings
from kapso_sync.store.database import read_last_pass, read_state
from kapso_sync.wiring import find_state_folder, make_event_bus, open_api

INVOKE_TIMEOUT = 2.0
"""Seconds to wait for a daemon's answer."""

FAILED = 400
"""From this status on an invocation counts as failed."""


def status(overrides: Mapping[str, object], env_file: Path | None, *, json_output: bool) -> int:
    """Print what the running daemon knows, else what the state folder remembers; takes no lock, and asks Kapso nothing."""
    settings = load_settings(overrides, env_file=env_file)
    folder = find_state_folder(settings)
    document = _of_daemon(settings, folder) or _of_folder(settings, folder)
    if json_output:
        print(json.dumps(document, indent=2))
    else:
        print_status(document, folder)
    return int(ExitCode.OK)


def _of_daemon(settings: Settings, folder: Path) -> dict[str, Any] | None:
    """Return what a daemon on this state folder says of itself, or None when none answers."""
    url = daemon_url(folder)
    if url is None:
        return None
    try:
        token = settings.admin_key() or (folder / "admin-token").read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.get(f"{url}/api/status", headers=headers, timeout=INVOKE_TIMEOUT, trust_env=False)
        document: dict[str, Any] = answer.raise_for_status().json()
    except (httpx.HTTPError, OSError, ValueError):
        return None
    return document


def _of_folder(settings: Settings, folder: Path) -> dict[str, Any]:
    now = SystemClock().now()
    empty = status_document(DaemonStatus(__version__, now, now, settings.source or str(Path.cwd())))
    document: dict[str, Any] = {**empty, **(read_last_pass(folder) or {})}
    document["unfinished"] = [f"{intent.kind} {intent.slug}" for intent in read_state(folder).intents]
    return document


def invoke(slug: str, data: str, patience: float, flags: Flags, *, json_output: bool) -> int:
    """Call a function by its slug and print its answer; 1 when it answers 400 or above."""
    body = request_body(data)
    settings = load_settings(flags.overrides(), env_file=flags.env_file)

    async def work() -> int:
        async with open_api(settings, make_event_bus(settings, sys.stderr, level="warning")) as api:
            found = {function.slug: function for function in await api.list_functions()}.get(slug)
            if found is None:
                raise UsageError(f"no function `{slug}` on Kapso", hint="`kapso-sync status` lists what was synced")
            answer = await api.invoke_function(found.id, body, patience=patience)
        if json_output:
            document = {
                "slug": slug,
                "id": found.id,
                "status": answer.status,
                "content_type": answer.content_type,
                "body": answer.text,
            }
            print(json.dumps(document, indent=2))
        else:
            sys.stderr.write(f"{answer.status} {answer.content_type}\n")
            print(answer.text)
        return int(ExitCode.OK if answer.status < FAILED else ExitCode.FUNCTION_FAILED)

    return run_to_end(work)


def request_body(data: str) -> Json:
    """Return the JSON that ``--data`` gives, itself or as ``@file``; raises `UsageError`."""
    try:
        text = Path(data[1:]).read_text(encoding="utf-8") if data.startswith("@") else data
        body: Json = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"--data is not JSON: {error}", hint="""an example: --data '{"ping": true}', or --data @file.json"""
        ) from error
    return body
