"""What an API base wants of code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """``modules``: code in module style (``export default``) is taken as it is. Script style is taken everywhere."""

    modules: bool


def target_for(base_url: str) -> Target:
    """Return what the base wants; source: Kapso's documentation of the two bases."""
    return Target(modules=base_url.endswith("/api/v1"))
