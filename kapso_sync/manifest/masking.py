"""Finds what an error must not show: the values below `secrets`, where people write a credential by mistake."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence

from kapso_sync.credentials import MASK, looks_like_a_value

Span = tuple[int, int]
"""Start and end of a part of a text, in characters."""

LINE_END = re.compile(r"\r\n|\r|\n")
"""What ends a line, in YAML and in JSON."""

_SECRET_KEY = re.compile(r"(?i:secrets?)(?:\s.*)?|[A-Z][A-Z0-9_]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,100}")
_MENTION = re.compile(r"""(?i:\bsecrets?\b)["']?\s*:?\s*|\b[A-Z0-9_]+["']?\s*:\s*""")
_KEY_LINE = re.compile(r"""\s*(?:"[^"]*"|'[^']*'|[^\s"'#:{}\[\],]+)\s*:(?=\s|$)""")
_SECRET_LINE = re.compile(r"""\s*[{,]?\s*["']?(?:[A-Z][A-Z0-9_]*|env|file|dotenv|value|keep|json)["']?\s*:(?=\s|$)\s*""")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_COMMENT = re.compile(r"[ \t,}\]]*[ \t]#[^\r\n]*")


def is_secret_key(key: str) -> bool:
    """Return whether a value of this key is not shown: `secrets`, or a secret's name, which may stand at a wrong place."""
    return _SECRET_KEY.fullmatch(key) is not None


def shown_secret_key(key: str) -> str:
    """Return a key below `secrets`; a key that cannot be a name is masked.

    YAML takes ``{env:hunter2}``, without a space after the colon, for one key.
    """
    return key if _NAME.fullmatch(key) and not looks_like_a_value(key) else MASK


def is_secret_path(path: Iterable[str | int]) -> bool:
    """Return whether the value at a path is not shown."""
    return any(isinstance(part, str) and is_secret_key(part) for part in path)


def with_comment(text: str, span: Span) -> Span:
    """Return a value's span with the comment behind it: of a password such as ``a #b`` YAML takes the end for one."""
    found = _COMMENT.match(text, span[1])
    return (span[0], found.end()) if found else span


def line_spans(text: str) -> list[Span]:
    """Return the lines of a text, without their ends."""
    start, spans = 0, []
    for end in LINE_END.finditer(text):
        spans.append((start, end.start()))
        start = end.end()
    return [*spans, (start, len(text))] if start < len(text) else spans


def unread_secrets(text: str, *, is_json: bool) -> Iterator[Span]:
    """Yield what may be a secret's value in a text that no parser reads to its end; rather too much than too little.

    A line with `secrets` hides what follows on it, and the lines that are indented deeper. In a flow collection indentation
    means nothing, so it hides the rest of the text.
    """
    indent: int | None = None
    in_flow = False
    for start, end in line_spans(text):
        line = text[start:end]
        if not line.strip():
            continue
        own = len(line) - len(line.lstrip())
        if indent is not None and not in_flow and own <= indent and _KEY_LINE.match(line):
            indent = None
        if indent is not None:
            key = _SECRET_LINE.match(line)
            yield start + (key.end() if key else own), end
        elif mention := _MENTION.search(line):
            yield start + mention.end(), end
            indent, in_flow = own, is_json
        if indent is not None:
            unquoted = _QUOTED.sub("", line)
            in_flow = in_flow or sum(map(unquoted.count, "{[")) > sum(map(unquoted.count, "}]"))


def merged_spans(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that overlap as one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


def masked(text: str, window: Span, place: int, spans: Sequence[Span]) -> tuple[str, int]:
    """Return the window of a text with the spans masked, and how far from its start the place is then.

    ``spans`` are as `merged_spans` returns them.
    """
    start, stop = window
    shown, column = "", place - start
    first = bisect.bisect_right(spans, start, key=lambda span: span[1])
    for left, right in spans[first:]:
        if left >= stop:
            break
        left, right = max(left, start), min(right, stop)  # noqa: PLW2901 - the part inside the window
        shown += text[start:left] + MASK
        if place >= right:
            column += len(MASK) - (right - left)
        elif place > left:
            column -= place - left
        start = right
    return shown + text[start:stop], column
