"""Says what helps where the state folder cannot be written: a full disk needs another hint than a folder of others."""

from __future__ import annotations

import errno
import sqlite3

FREE_SPACE = "free some space on the disk of the state folder, or give its user a larger quota"


def writing_hint(error: Exception, otherwise: str) -> str:
    """Return what helps against an error of the file system or of SQLite; ``otherwise`` is for all but a full disk."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    else:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return FREE_SPACE if full else otherwise
