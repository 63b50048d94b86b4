"""Print the notes of one version: its part of the changelog.

python deploy/release/notes.py 0.2.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def notes_of(version: str, changelog: str) -> str | None:
    """Return the text below the heading of a version, or None if it has none."""
    heading = re.compile(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = heading.search(changelog)
    return None if found is None else found[1].strip() + "\n"


def main(version: str) -> int:
    """Print the notes, or return 1 where the changelog has no dated heading for the version."""
    notes = notes_of(version, CHANGELOG.read_text(encoding="utf-8"))
    if notes is None:
        print(f"the changelog has no dated heading for {version}", file=sys.stderr)
        return 1
    print(notes, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
