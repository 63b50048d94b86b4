"""What an API base wants of code."""

from __future__ import annotations

from dataclasses import dataclass

from kapso_sync.model.desired import Contract


@dataclass(frozen=True, slots=True)
class Target:
    """``modules``: code in module style (``export default``) is taken as it is. Script style is taken everywhere.

    ``contract`` is what entries get that ask for nothing.
    """

    modules: bool
    contract: Contract = Contract.AUTO


def target_for(base_url: str, contract: Contract = Contract.AUTO) -> Target:
    """Return what the base wants; source: Kapso's documentation of the two bases."""
    return Target(base_url.endswith("/api/v1"), contract)
