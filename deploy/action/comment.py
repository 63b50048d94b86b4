"""Keep one comment with the plan at a pull request: the first line of the text finds the one that is there.

Reads `GITHUB_TOKEN`, `GITHUB_REPOSITORY`, `PULL_REQUEST`, and `GITHUB_API_URL`, as a runner sets it.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MAX_LENGTH = 65_536
"""Most characters of a comment; GitHub refuses a longer one. `plan --markdown` stays below it."""

PAGE = 100
MAX_PAGES = 30
TIMEOUT = 30.0


class Comments:
    """The comments at one pull request."""

    def __init__(self, api: str, token: str, repository: str, number: str) -> None:
        self._repository = f"{api}/repos/{repository}"
        self._number = number
        self._token = token

    def find(self, marker: str) -> str | None:
        """Return the URL of the first comment of an app that begins with a line, or None."""
        for page in range(1, MAX_PAGES + 1):
            found = self._ask("GET", f"{self._repository}/issues/{self._number}/comments?per_page={PAGE}&page={page}")
            for comment in found:
                # Somebody else's comment with the same line would be overwritten, or would be shown in place of the plan.
                if comment["user"]["type"] == "Bot" and comment["body"].partition("\n")[0].strip() == marker:
                    return str(comment["url"])
            if len(found) < PAGE:
                break
        return None

    def keep(self, text: str) -> str:
        """Write the text into the comment that is there, or into a new one; return the address that people open."""
        known = self.find(text.partition("\n")[0].strip())
        body = {"body": text[:MAX_LENGTH]}
        if known is not None:
            return str(self._ask("PATCH", known, body)["html_url"])
        return str(self._ask("POST", f"{self._repository}/issues/{self._number}/comments", body)["html_url"])

    def _ask(self, method: str, url: str, body: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the runner's own address
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode("utf-8"),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
            return json.load(answer)


def main(path: str) -> int:
    """Keep the comment, and print its address; 1 and an annotation where GitHub refuses."""
    environment = os.environ
    comments = Comments(
        environment.get("GITHUB_API_URL", "https://api.github.com"),
        environment["GITHUB_TOKEN"],
        environment["GITHUB_REPOSITORY"],
        environment["PULL_REQUEST"],
    )
    try:
        print(comments.keep(Path(path).read_text(encoding="utf-8")))
    except urllib.error.HTTPError as error:
        hint = "; the job needs `permissions: pull-requests: write`" if error.code in (401, 403, 404) else ""
        print(f"::error::GitHub refused the comment with {error.code}{hint}")
        return 1
    except OSError as error:
        print(f"::error::GitHub did not answer: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
