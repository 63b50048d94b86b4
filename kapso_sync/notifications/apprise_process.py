"""The process that sends one message with Apprise: JSON on standard input, ``{"error": TEXT or null}`` on standard output."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys

_STATUS_IN_LOG = re.compile(r"error=(\d{3})\b")


def send_with_apprise(url: str, title: str, body: str, kind: str) -> str | None:
    """Send a message, without a time limit; return the error in words that quote nothing, or None."""
    import apprise  # noqa: PLC0415 - an optional part

    asset = apprise.AppriseAsset(
        app_id="kapso-sync",
        app_desc="kapso-sync",
        async_mode=False,
        http_redirects=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        pgp_autogen=False,
        pem_autogen=False,
    )
    sender = apprise.Apprise(asset=asset)
    # What apprise logs may quote the address: it is caught, and of it only a status code leaves this function.
    with apprise.LogCapture() as said:  # type: ignore[no-untyped-call]
        if not sender.add(url):
            return "Apprise does not know such an address"
        sent = sender.notify(
            body=body, title=title, notify_type=apprise.NotifyType(kind), body_format=apprise.NotifyFormat.TEXT
        )
        answer = _STATUS_IN_LOG.search(said.getvalue())
    if sent:
        return None
    return f"it answered {answer[1]}" if answer else "it cannot be reached, or refused the message"


def main() -> None:
    """Send the message of standard input. Nothing that a plugin prints is shown, since it may quote the address."""
    message = json.load(sys.stdin)
    output = os.fdopen(os.dup(1), "w", encoding="ascii")
    with open(os.devnull, "w", encoding="ascii") as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    error: str | None = "apprise failed"
    with contextlib.suppress(Exception):
        error = send_with_apprise(message["url"], message["title"], message["body"], message["kind"])
    with output:
        json.dump({"error": error}, output)


if __name__ == "__main__":
    main()
