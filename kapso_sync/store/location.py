"""Names the state folder of a source and an API base."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping


def state_folder_name(parts: Mapping[str, str | None]) -> str:
    """Return the folder's name: a readable beginning from ``parts["source"]``, and a hash of all parts."""
    digest = hashlib.sha256("\0".join(f"{name}={parts[name] or ''}" for name in sorted(parts)).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", (parts["source"] or "").rpartition("/")[2]).strip("-.")[:40]
    return f"{readable or 'source'}-{digest[:16]}"
