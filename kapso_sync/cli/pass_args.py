"""Holds the options of ``sync`` and ``plan`` for one pass."""

from __future__ import annotations

from kapso_sync.cli.context import CommandContext
from kapso_sync.dataclass import dataclass
from kapso_sync.model.policies import PassOverrides
from kapso_sync.settings import Settings


@dataclass(frozen=True, slots=True)
class PassArgs:
    """The options of the command for one pass.

    ``settings`` are loaded once for all that the command does: the ``--env-file`` may be a pipe, which can be read once.
    """

    context: CommandContext
    settings: Settings
    overrides: PassOverrides
    only: tuple[str, ...]
    expect: str | None
    json_output: bool
    remote_map: bool = False

    def advise_again(self, text: str) -> str:
        """Return the text with commands for the same functions; what was allowed for this pass alone is used up."""
        options = "".join(f" --only {slug}" for slug in self.only)
        return self.context.advise(text.replace("`kapso-sync sync", f"`kapso-sync sync{options}"))

    def advise_exactly(self, text: str) -> str:
        """Return the text with commands that make the same plan again: with the options of this one as well."""
        options = "".join(f" --only {slug}" for slug in self.only) + self.overrides.options
        return self.context.advise(text.replace("`kapso-sync sync", f"`kapso-sync sync{options}"))

    @property
    def is_whole(self) -> bool:
        """Return whether the pass is about all functions, and nothing is allowed or expected of it in particular."""
        return not (self.only or self.expect) and self.overrides == PassOverrides()
