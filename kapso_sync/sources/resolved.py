"""Defines a resolved source: how to read it, whose functions it has, and where its state is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError

if TYPE_CHECKING:
    from kapso_sync.model.ports import Source  # it names every value of a pass, which a plain folder does not need
from kapso_sync.sources.spec import SourceSpec


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """A resolved SOURCE argument: how to read it, the owner of its functions, and the state folder.

    ``owner_is_stable``: the owner stays the same when the folder moves. ``other_owners`` are names of the same owner, whose
    functions are ours too. ``home`` returns the functions folder in a folder.
    """

    spec: SourceSpec
    source: Source
    owner: str
    folder: Path
    owner_is_stable: bool = True
    other_owners: frozenset[str] = frozenset()
    home: Callable[[], str] = lambda: ""

    def require_stable_owner(self) -> None:
        """Raise `ConfigError` if the owner may change: then functions of another folder would count as ours."""
        if not self.owner_is_stable:
            raise ConfigError(
                "deletions need a known owner, and this folder has no git remote",
                hint="set KAPSO_SYNC_OWNER to a name that stays, such as acme/flows",
            )
