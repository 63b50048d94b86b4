"""Talks to a running daemon over its HTTP API; finds its address and its admin token in the state folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import httpx

from kapso_sync.cli.state_folders import find_daemon_folder, running_daemons
from kapso_sync.errors import ConfigError
from kapso_sync.http_client import failure_reason
from kapso_sync.model.policies import PassOverrides
from kapso_sync.settings import Settings
from kapso_sync.store.daemon_files import DaemonFiles
from kapso_sync.wiring.folder import state_root

REQUEST_TIMEOUT = 10.0
STATUS_TIMEOUT = 2.0
PASS_TIMEOUT = 2 * 3600.0
"""Seconds to wait for a daemon's answer, for its status, and for the end of a pass."""

_HINTS = {401: "is KAPSO_SYNC_ADMIN_TOKEN the daemon's?", 404: "`kapso-sync status` lists its functions"}
"""What to do about an answer, by its HTTP status."""


class DaemonClient:
    """A client of the daemon that runs on this state folder, if one does."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._files = DaemonFiles(folder)

    @classmethod
    def of(cls, settings: Settings) -> DaemonClient:
        """Return the client of the daemon that runs with these settings. Raises like `find_daemon_folder`."""
        return cls(settings, find_daemon_folder(settings))

    def status(self) -> dict[str, Any] | None:
        """Return the daemon's status document, or None if no daemon answers."""
        url = self._address()
        if url is None:
            return None
        try:
            headers = {"Authorization": f"Bearer {self._token()}"}
            answer = httpx.get(f"{url}/api/status", headers=headers, timeout=STATUS_TIMEOUT, trust_env=False)
            document: dict[str, Any] = answer.raise_for_status().json()
        except (httpx.HTTPError, ConfigError, ValueError):
            return None
        return document

    def reconcile(self, overrides: PassOverrides, *, wait: bool) -> dict[str, Any]:
        """Request a pass with ``overrides``; with ``wait`` return after it. Raises `ConfigError`."""
        given: dict[str, object] = dataclasses.asdict(overrides)
        named = [(name, value) for name, values in given.items() if isinstance(values, frozenset) for value in sorted(values)]
        flags = [(name, "1") for name, value in {**given, "wait": wait}.items() if value is True]
        parameters = httpx.QueryParams([*named, *flags])
        return self._post(f"/api/reconcile?{parameters}", None, PASS_TIMEOUT if wait else REQUEST_TIMEOUT)

    def suspend(self, reason: str, seconds: float | None) -> None:
        """Ask the daemon to write nothing until `resume`, or for this many seconds. Raises `ConfigError`."""
        self._post("/api/suspend", {"reason": reason, "for_seconds": seconds}, REQUEST_TIMEOUT)

    def resume(self) -> None:
        """Ask the daemon to write again. Raises `ConfigError`."""
        self._post("/api/resume", None, REQUEST_TIMEOUT)

    def _post(self, path: str, body: object, read_timeout: float) -> dict[str, Any]:
        url = self._address()
        if url is None:
            raise self._no_daemon()
        headers = {"Authorization": f"Bearer {self._token()}"}
        timeout = httpx.Timeout(REQUEST_TIMEOUT, read=read_timeout)
        try:
            with httpx.Client(base_url=url, timeout=timeout, trust_env=False) as client:
                answer = client.post(path, json=body, headers=headers)
        except httpx.HTTPError as error:
            text = failure_reason(error)
            raise ConfigError(f"the daemon at {url} does not answer: {text}", hint="is it running?") from error
        if answer.status_code != 202:
            hint = _HINTS.get(answer.status_code, "its log may say more")
            raise ConfigError(f"the daemon refuses: {_reason(answer)}", hint=hint)
        document: dict[str, Any] = answer.json()
        return document

    def _address(self) -> str | None:
        """Return the URL of the daemon that runs here; whatever may listen where a dead one did gets no token."""
        daemon = self._files.daemon()
        if daemon is None or daemon.url is None:
            return None
        try:
            httpx.URL(daemon.url)
        except httpx.InvalidURL:
            return None  # the file is damaged
        return daemon.url

    def _no_daemon(self) -> ConfigError:
        """Return the error that says which daemons run, or how to start one."""
        running = running_daemons(self._settings)
        start = "`kapso-sync run` starts one; one that runs without KAPSO_SYNC_LISTEN takes no orders"
        if running:
            start = f"name the SOURCE, --path and --env of one that runs: {'; '.join(map(str, running))}"
        if self._settings.source is None and not self._files.folder.exists():
            return ConfigError(
                f"no running daemon of this user takes orders: there is none in {state_root(self._settings)}", hint=start
            )
        return ConfigError(f"no daemon runs on the state folder {self._files.folder}", hint=start)

    def _token(self) -> str:
        token = self._settings.admin_key()
        if token:
            return token
        try:
            return self._files.read_token()
        except OSError as error:
            raise ConfigError(
                f"the admin token in {self._files.folder} cannot be read: {error.strerror}",
                hint="run as the daemon's user, or set KAPSO_SYNC_ADMIN_TOKEN or KAPSO_SYNC_ADMIN_TOKEN_FILE as it has them",
            ) from error


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:200]
