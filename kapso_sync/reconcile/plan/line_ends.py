"""The one rule for line ends and final newlines: code that differs in nothing else is the same. Pure."""

from __future__ import annotations

from kapso_sync.model.desired import DesiredFunction
from kapso_sync.model.functions import CODE, Content, RemoteFunction, normal_code
from kapso_sync.model.state import InventoryRecord
from kapso_sync.reconcile.plan.last_applied import code_digest


def comparable_content(want: DesiredFunction, remote: RemoteFunction, last_applied: InventoryRecord | None) -> Content:
    """Return the content that git wants, with the hash that equal code has on the other two sides.

    A checkout with ``eol=crlf`` says the same as the repository, and another tool may drop the last newline: so nothing of
    that is written. Where the code is Kapso's but for that, it gets the hash of Kapso's; where it is what was last applied, it
    gets the hash that git's code had then.

        git has CRLF, Kapso LF                             no difference
        git has CRLF, LF was applied, Kapso other code     changed on Kapso, and not in git
    """
    if remote.code == want.code:
        return want.content
    if remote.code is not None and normal_code(want.code) == normal_code(remote.code):
        return {**want.content, CODE: remote.code_hash}
    applied = last_applied.applied.code if last_applied is not None and last_applied.applied is not None else None
    if last_applied is not None and CODE in last_applied.wanted and applied == code_digest(want.code):
        return {**want.content, CODE: last_applied.wanted[CODE]}
    return want.content
