"""Says what helps where the state folder cannot be written: a full disk needs another hint than a database that is in use."""

from __future__ import annotations

import errno
import sqlite3

FREE_SPACE = "free some space on the disk of the state folder, or give its user a larger quota"

NO_FILE = "move it away: kapso-sync did not make it"
BUSY = "another program has its database open, such as a backup or `sqlite3`: wait until it has ended, or end it"


def writing_hint(error: Exception, otherwise: str) -> str:
    """Return what helps against an error of the file system or of SQLite; ``otherwise`` is for what has no hint of its own."""
    if isinstance(error, OSError):
        if error.errno in (errno.EINVAL, errno.EISDIR):
            return NO_FILE
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    else:
        code = getattr(error, "sqlite_errorcode", None)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return BUSY
        full = code == sqlite3.SQLITE_FULL
    return FREE_SPACE if full else otherwise
