"""Copies of what is about to be overwritten or deleted: one folder a function, one file a content, bounded in number."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kapso_sync.model.functions import Json, RemoteFunction, canonical_json, code_hash

COPIES = 20
"""So many copies are kept of each function, besides those that are never dropped."""

NEVER_DROPPED = frozenset({"deleted", "adopted", "conflict"})
"""Reasons of copies that may be the last of their content anywhere. Of the other kept ones the newest stays."""


@dataclass(frozen=True, slots=True)
class _Copy:
    path: Path
    saved_at: str
    reason: str
    keep: bool


def back_up(folder: Path, remote: RemoteFunction, reason: str, now: datetime, *, keep: bool) -> str:
    """Save a function's code and fields below ``folder`` and return the copy's name, ``<slug>/<hash>.json``.

    The same content is kept once; ``keep`` says that the content is not in git. The copy is on disk when this returns.
    Raises OSError.
    """
    path = folder / copy_name(remote)
    home = path.parent
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = _read(path)
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
    _drop_old(home)
    return f"{home.name}/{path.name}"


def copy_name(remote: RemoteFunction) -> str:
    """Return the name that a copy of this function has, below the backups folder; it goes by the content."""
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


def _drop_old(home: Path) -> None:
    copies = sorted(filter(None, map(_read, home.glob("*.json"))), key=lambda copy: copy.saved_at, reverse=True)
    newest_kept = next((copy for copy in copies if copy.keep), None)
    droppable = [copy for copy in copies if copy is not newest_kept and not (copy.keep and copy.reason in NEVER_DROPPED)]
    for copy in droppable[COPIES:]:
        with contextlib.suppress(OSError):
            copy.path.unlink()


def _read(path: Path) -> _Copy | None:
    try:
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return _Copy(path, str(data["saved_at"]), str(data["reason"]), bool(data["keep"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _safe(slug: str) -> str:
    """Return the slug as a folder name; slugs on Kapso are plain, but an answer is never trusted with a path."""
    return re.sub(r"[^a-z0-9-]", lambda found: f"%{ord(found[0]):02x}", slug)[:200] or "%"
