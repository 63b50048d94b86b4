"""Completes the commands that hints name, so that they work where they are read.

A hint is written where its cause is known, and names a bare command: `kapso-sync sync --retry greet`. Whoever shows it adds the
SOURCE and the flags without which the command would mean another source or another state folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_COMMAND = re.compile(r"`kapso-sync (?P<name>[a-z]+)(?P<rest>[^`]*)`")

Advise = Callable[[str], str]
"""Returns a text with its commands completed."""


def as_it_is(text: str) -> str:
    """Return the text: its commands are complete, or are completed later."""
    return text


@dataclass(frozen=True, slots=True)
class Advice:
    """What completes a command: ``arguments`` are added to it, by its name.

    ``instead`` names, for a command that cannot work here, the one that does the same.
    """

    arguments: Mapping[str, str]
    instead: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        """Return the text with every command in back-ticks completed; most texts have none."""
        if "`kapso-sync " not in text:
            return text
        return _COMMAND.sub(self._completed, text)

    def _completed(self, found: re.Match[str]) -> str:
        name = self.instead.get(found["name"], found["name"])
        added = self.arguments.get(name)
        return f"`kapso-sync {name}{found['rest']}{f' {added}' if added else ''}`"
