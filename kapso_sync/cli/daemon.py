"""``run`` and what is said to a running daemon: ``reconcile``, ``suspend``, ``resume``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from kapso_sync.cli.documents import print_status
from kapso_sync.errors import ConfigError, ExitCode, UsageError
from kapso_sync.settings import Settings, load_settings, parse_duration
from kapso_sync.wiring import find_state_folder

Overrides = Mapping[str, object]
REQUEST_TIMEOUT = 10.0
PASS_TIMEOUT = 2 * 3600.0
"""Seconds to wait for a daemon's answer, and for the end of a pass."""


def run(overrides: Overrides, env_file: Path | None) -> int:
    """Run the daemon until a signal; raises `KapsoSyncError` for what must stop it at once."""
    from kapso_sync.wiring.daemon import make_daemon
    from kapso_sync.wiring.notifications import check_notification_settings

    def load() -> Settings:
        settings = load_settings(overrides, env_file=env_file)
        settings.key()
        check_notification_settings(settings)
        return settings

    async def work() -> int:
        return await make_daemon(load, sys.stderr).run()

    return asyncio.run(work())


def reconcile(overrides: Overrides, env_file: Path | None, retry: Sequence[str], *, wait: bool, json_output: bool) -> int:
    """Ask for a pass, in which ``retry`` leaves quarantine; with ``wait`` print what came of it, and return its exit code."""
    query = str(httpx.QueryParams([*(("retry", slug) for slug in retry), *([("wait", "1")] if wait else [])]))
    path = "/api/reconcile" + (f"?{query}" if query else "")
    answer = _ask(overrides, env_file, path, None, PASS_TIMEOUT if wait else REQUEST_TIMEOUT)
    if "suspended" in answer:
        return _not_now(answer, wait=wait, json_output=json_output)
    if json_output:
        print(json.dumps(answer, indent=2))
    elif wait:
        print_status(answer["status"])
    else:
        print("The daemon looks now.")
    return int(answer.get("exit_code", ExitCode.OK))


def _not_now(answer: Mapping[str, Any], *, wait: bool, json_output: bool) -> int:
    """Say that the daemon is suspended; who wanted to wait for a pass has not got one."""
    reason = answer["suspended"]
    print(
        json.dumps(answer, indent=2)
        if json_output
        else f"Suspended: {reason}. The daemon looks once `kapso-sync resume` ends it."
    )
    return int(ExitCode.FUNCTION_FAILED if wait else ExitCode.OK)


def suspend(overrides: Overrides, env_file: Path | None, reason: str, duration: str | None) -> int:
    """Ask the daemon to write nothing."""
    try:
        seconds = None if duration is None else parse_duration(duration)
    except ValueError as error:
        raise UsageError(f"--for {duration}: {error}", hint="an example: --for 2h") from error
    _ask(overrides, env_file, "/api/suspend", {"reason": reason, "for_seconds": seconds}, REQUEST_TIMEOUT)
    print(f"Suspended: {reason}. `kapso-sync resume` ends it" + (f", or {duration} from now." if duration else "."))
    return int(ExitCode.OK)


def resume(overrides: Overrides, env_file: Path | None) -> int:
    """Ask the daemon to write again."""
    _ask(overrides, env_file, "/api/resume", None, REQUEST_TIMEOUT)
    print("Resumed; the daemon looks now.")
    return int(ExitCode.OK)


def _ask(overrides: Overrides, env_file: Path | None, path: str, body: object, patience: float) -> dict[str, Any]:
    settings = load_settings(overrides, env_file=env_file)
    folder = find_state_folder(settings)
    url = daemon_url(folder)
    if url is None:
        raise ConfigError(
            f"no daemon runs on the state folder {folder}",
            hint="name the same source, --path and --env as `kapso-sync run`; without KAPSO_SYNC_LISTEN it takes no orders",
        )
    token = settings.admin_key() or _token(folder)
    try:
        with httpx.Client(base_url=url, timeout=httpx.Timeout(REQUEST_TIMEOUT, read=patience), trust_env=False) as client:
            answer = client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
    except httpx.HTTPError as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"the daemon at {url} does not answer: {text}", hint="is it running?") from error
    if answer.status_code != 202:
        hint = "is KAPSO_SYNC_ADMIN_TOKEN the daemon's?" if answer.status_code == 401 else "its log may say more"
        raise ConfigError(f"the daemon refuses: {_reason(answer)}", hint=hint)
    document: dict[str, Any] = answer.json()
    return document


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:200]


def daemon_url(folder: Path) -> str | None:
    """Return where the daemon of a state folder listens, or None when none says so."""
    try:
        url = json.loads((folder / "daemon.json").read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) else None


def _token(folder: Path) -> str:
    try:
        return (folder / "admin-token").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"the admin token in {folder} cannot be read: {error.strerror}", hint="run as the daemon's user, or set the token"
        ) from error
