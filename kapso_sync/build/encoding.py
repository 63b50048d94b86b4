"""Check that a file is UTF-8 text, and name what git stored in its place if it is not the file itself."""

from __future__ import annotations

import codecs
import re

from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.syntax import Place

_LFS = re.compile(rb"version https?://(?:git-lfs\.github\.com|hawser\.github\.com|git-media\.io)/\S+\r?\n")
"""Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, which names the two older addresses as well."""

_ANNEX = re.compile(rb"/annex/objects/\S+\s")
"""Source: https://git-annex.branchable.com/internals/pointer_file/"""

_GIT_CRYPT = b"\0GITCRYPT\0"
"""Source: https://github.com/AGWA/git-crypt, the header of its encrypted files."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_START = Place(1, 1)


def encoding_diagnostic(file: str, content: bytes) -> Diagnostic | None:
    """Return why a file's content cannot be used as text, or None; a UTF-8 byte order mark is allowed."""
    stand_in = _stand_in(file, content.removeprefix(codecs.BOM_UTF8))
    if stand_in is not None:
        return stand_in
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(file, content, error.start)
    if "\0" in text:
        before = text[: text.index("\0")]
        where = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        if len(content) % 2 == 0 and b"\0" in content[:2]:
            return Diagnostic("not-utf8", "the file is UTF-16 text, not UTF-8", file, _START, _SAVE)
        return Diagnostic("binary", "the file holds a NUL character", file, where, "only text can be part of a function")
    return None


_SAVE = "save it as UTF-8; if `working-tree-encoding` of .gitattributes converts it, take that attribute away"


def _not_utf8(file: str, content: bytes, at: int) -> Diagnostic:
    """Return the diagnostic for the byte at this offset, which is not UTF-8."""
    if content.startswith(_UTF_16):
        return Diagnostic("not-utf8", "the file is UTF-16 text, not UTF-8", file, _START, _SAVE)
    before = content[:at]
    column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
    text = f"the file is not UTF-8 text: there is the byte {content[at]:#04x}"
    return Diagnostic("not-utf8", text, file, Place(before.count(b"\n") + 1, column), _SAVE)


def _stand_in(file: str, content: bytes) -> Diagnostic | None:
    """Return a diagnostic if git's filters replaced the file's content by something else, or None."""
    if _LFS.match(content) and b"oid " in content[:1024]:
        hint = "`git lfs pull` fetches it in a checkout; a git source reads no LFS: commit the file itself"
        return Diagnostic("git-lfs", "the file is a Git LFS pointer, not its content", file, _START, hint)
    if content.startswith(_GIT_CRYPT):
        hint = "`git-crypt unlock` decrypts a checkout; a git source has no key for it: commit the file unencrypted"
        return Diagnostic("git-crypt", "the file is encrypted by git-crypt", file, _START, hint)
    if _ANNEX.match(content) and len(content) < 32 * 1024:
        hint = "`git annex get` fetches it in a checkout; a git source reads no annex: commit the file itself"
        return Diagnostic("git-annex", "the file is a git-annex pointer, not its content", file, _START, hint)
    return None
