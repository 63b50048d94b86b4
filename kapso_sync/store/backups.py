"""Keeps copies of functions before they are overwritten or deleted, limited in number and age.

Each function has a folder, and each content a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kapso_sync.dataclass import dataclass
from kapso_sync.files import read_small
from kapso_sync.model.functions import RemoteFunction, code_hash
from kapso_sync.model.json_values import Json, canonical_json
from kapso_sync.permissions import make_private

MAX_COPIES = 20
"""Maximum number of backups of each function, besides those that are never dropped."""

MAX_BYTES = 64 * 1024 * 1024
"""Most bytes of a backup: more than all answers of Kapso with code may have."""

MAX_AGE = timedelta(days=180)
"""Maximum age of those backups."""

NEVER_DROPPED = frozenset({"deleted", "adopted", "conflict"})
"""Reasons of backups that may be the last copy of their content. Of the other kept ones the newest stays."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup of a function: when and why it was made, and its content. ``keep``: its content was not in git.

    ``deployed`` is False for a draft. ``id`` is the beginning of the content's hash; ``code`` is None if Kapso showed none.
    """

    path: Path
    slug: str
    function_id: str
    saved_at: datetime
    reason: str
    keep: bool
    fields: Mapping[str, Json]
    code: str | None = field(repr=False)
    deployed: bool = True

    @property
    def id(self) -> str:
        """The id that people use for it."""
        return self.path.stem


def back_up(folder: Path, remote: RemoteFunction, reason: str, now: datetime, *, keep: bool) -> str:
    """Save a function's code and fields below ``folder`` and return the copy's name, ``<slug>/<hash>.json``.

    The same content is kept once; ``keep`` says that the content is not in git. The copy is on disk when this returns.
    Raises OSError.
    """
    path = folder / copy_name(remote)
    home = path.parent
    make_private(home)
    known = read_backup(path)
    kept = keep or (known is not None and known.keep)
    why = known.reason if known is not None and known.keep and not keep else reason
    document = {
        "slug": remote.slug,
        "function_id": remote.id,
        "saved_at": now.isoformat(timespec="milliseconds"),
        "reason": why,
        "keep": kept,
        "fields": dict(remote.fields),
        "code": remote.code,
        "last_deployed_at": remote.last_deployed_at.isoformat() if remote.last_deployed_at else None,
    }
    _write(path, document)
    _drop_old(home, now)
    return f"{home.name}/{path.name}"


def copy_name(remote: RemoteFunction) -> str:
    """Return the name of a function's backup, below the backups folder; it depends on the content only."""
    content: dict[str, Json] = {**remote.fields, "slug": remote.slug, "code": remote.code}
    digest = code_hash(canonical_json(content)).removeprefix("sha256:")
    return f"{_safe(remote.slug)}/{digest[:16]}.json"


def _write(path: Path, document: Mapping[str, object]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass") as file:
        json.dump(document, file, ensure_ascii=True, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_backups(folder: Path, slug: str) -> tuple[Backup, ...]:
    """Return the backups of a function below ``folder``, the newest first; other files are ignored."""
    return _newest_first(folder / _safe(slug))


def read_backup(path: Path) -> Backup | None:
    """Return one backup, or None if the file is not one."""
    try:
        data: Mapping[str, Any] = json.loads(read_small(path, MAX_BYTES))
        code = data["code"]
        return Backup(
            path=path,
            slug=str(data["slug"]),
            function_id=str(data["function_id"]),
            saved_at=datetime.fromisoformat(data["saved_at"]).astimezone(UTC),
            reason=str(data["reason"]),
            keep=bool(data["keep"]),
            fields=dict(data["fields"]),
            code=code if isinstance(code, str) else None,
            deployed=data.get("last_deployed_at", "") is not None,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _newest_first(home: Path) -> tuple[Backup, ...]:
    copies = filter(None, map(read_backup, home.glob("*.json")))
    return tuple(sorted(copies, key=lambda copy: copy.saved_at, reverse=True))


def _drop_old(home: Path, now: datetime) -> None:
    copies = _newest_first(home)
    newest_kept = next((copy for copy in copies if copy.keep), None)
    droppable = [copy for copy in copies if copy is not newest_kept and not (copy.keep and copy.reason in NEVER_DROPPED)]
    for number, copy in enumerate(droppable):
        if number >= MAX_COPIES or now - copy.saved_at > MAX_AGE:
            with contextlib.suppress(OSError):
                copy.path.unlink()


def _safe(slug: str) -> str:
    """Return the slug as a folder name; slugs on Kapso are plain, but an answer is never trusted with a path."""
    return re.sub(r"[^a-z0-9-]", lambda found: f"%{ord(found[0]):02x}", slug)[:200] or "%"
