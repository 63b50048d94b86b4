"""Unified diffs from what Kapso has to what git says, bounded in size and in time."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from kapso_sync.model.functions import CODE, DESCRIPTION, Content, canonical_json

CHANGED_LINES_LIMIT = 2_000
"""Beyond this many changed lines on either side no line-by-line diff is computed: difflib takes quadratic time."""


def content_diff(slug: str, old: tuple[Content, str | None], new: tuple[Content, str | None], fields: Sequence[str]) -> str:
    """Return the diff of the named fields and, where ``code`` is among them, of the code.

    ``old`` and ``new`` are a content and the code's text (None: not there, or unknown). The result is empty or ends
    with a newline.
    """
    names = [name for name in fields if name != CODE]
    before = [line for name in names for line in _field_lines(old[0], name)]
    after = [line for name in names for line in _field_lines(new[0], name)]
    parts = [_unified(before, after, f"kapso/{slug} (fields)", f"git/{slug} (fields)")]
    if CODE in fields:
        parts.append(_unified(_lines(old[1]), _lines(new[1]), f"kapso/{slug} (code)", f"git/{slug} (code)"))
    return "".join(parts)


def file_diff(path: str, old: str | None, new: str) -> str:
    """Return the diff from one text of a file to another (``old`` None: there is no file); empty or ending with a newline."""
    return _unified(_lines(old), _lines(new), f"a/{path}", f"b/{path}")


def _field_lines(content: Content, name: str) -> list[str]:
    if name not in content:
        return []
    value = content[name]
    if name == DESCRIPTION and isinstance(value, str) and "\n" in value:
        return [f"{name}: |\n", *(f"  {line}\n" for line in value.splitlines())]
    return [f"{name}: {value if isinstance(value, str) else canonical_json(value)}\n"]


def _lines(text: str | None) -> list[str]:
    """Split at newlines only: other line separators are part of the line, and must not be hidden."""
    if not text:
        return []
    lines = [f"{line}\n" for line in text.split("\n")]
    if text.endswith("\n"):
        lines.pop()
    else:
        lines[-1] += "\\ No newline at end of file\n"
    return lines


def _unified(old: list[str], new: list[str], old_name: str, new_name: str) -> str:
    if old == new:
        return ""
    from_name, to_name = (old_name if old else "/dev/null"), (new_name if new else "/dev/null")
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    changed = max(len(old), len(new)) - head - tail
    if old and new and changed > CHANGED_LINES_LIMIT:
        removed, added = len(old) - head - tail, len(new) - head - tail
        return f"--- {from_name}\n+++ {to_name}\n@@ {removed} lines replaced by {added}, too many to compare line by line @@\n"
    return "".join(difflib.unified_diff(old, new, from_name, to_name))


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    count = 0
    for left, right in zip(old, new, strict=False):
        if left != right:
            break
        count += 1
    return count
