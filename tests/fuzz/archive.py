r"""Several files in one readable text, as Go's ``txtar`` has them: each begins with a line ``-- name --``.

Source: https://pkg.go.dev/golang.org/x/tools/txtar. A name may hold any byte as ``\xNN``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_HEAD = re.compile(rb"^-- (.+?) --\r?(?:\n|\Z)", re.MULTILINE)
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


def unpack(data: bytes) -> list[tuple[str, bytes]]:
    """Return names and contents in order, a name perhaps several times; what stands before the first head is left out."""
    heads = list(_HEAD.finditer(data))
    ends = [head.start() for head in heads[1:]] + ([len(data)] if heads else [])
    return [(_name(head[1]), data[head.end() : end]) for head, end in zip(heads, ends, strict=True)]


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the text; each content ends with a line break."""
    return b"".join(b"-- " + _spelled(name) + b" --\n" + _closed(content) for name, content in files.items())


def _name(spelled: bytes) -> str:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), spelled).decode("utf-8", "surrogateescape")


def _spelled(name: str) -> bytes:
    raw = b"".join(_raw(char) for char in name)
    return re.sub(rb"[\x00-\x1f\x7f]", lambda found: b"\\x%02x" % found[0][0], raw)


def _closed(content: bytes) -> bytes:
    return content if content.endswith(b"\n") or not content else content + b"\n"


def _raw(char: str) -> bytes:
    try:
        return char.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return char.encode("utf-8", "surrogatepass")
