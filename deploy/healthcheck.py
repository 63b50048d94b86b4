"""The image's HEALTHCHECK: asks the daemon at the address of KAPSO_SYNC_LISTEN whether it is healthy."""

from __future__ import annotations

import http.client
import os
import sys
import urllib.error
import urllib.request

TIMEOUT = 4.0
"""Seconds until the daemon must have answered; the image's HEALTHCHECK allows five."""

WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what is listened on, not opened here
"""Hosts that mean every address of the machine, and where they answer this machine."""


def main() -> int:
    """Return 0 if the daemon answers that it is healthy, or has no server to ask; else print the reason and return 1."""
    listen = os.environ.get("KAPSO_SYNC_LISTEN", "127.0.0.1:8321").strip()
    if not listen:
        return 0
    host, _, port = listen.rpartition(":")
    try:
        urllib.request.urlopen(f"http://{WILDCARDS.get(host, host)}:{port}/healthz", timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        print(error.read(1000).decode("utf-8", "replace"))
        return 1
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"no answer at KAPSO_SYNC_LISTEN {listen}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
