"""Completes the commands that hints name, so that they work where they are read.

A hint is written where its cause is known, and names a bare command: `kapso-sync sync --retry greet`. Whoever shows it adds the
SOURCE and the flags without which the command would mean another source or another state folder.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TypeVar

from kapso_sync.dataclass import dataclass

_T = TypeVar("_T")

_COMMAND = re.compile(r"`kapso-sync (?P<name>[a-z]+)(?P<rest>[^`]*)`")

Advise = Callable[[str], str]
"""Returns a text with its commands completed."""


def as_it_is(text: str) -> str:
    """Return the text: its commands are complete, or are completed later."""
    return text


def names_command(text: str) -> bool:
    """Return whether a text names a command that may have to be completed; most texts do not."""
    return "`kapso-sync " in text


@dataclass(frozen=True, slots=True)
class Advice:
    """What completes a command: ``arguments`` are added to it, by its name.

    ``instead`` names, for a command that cannot work here, the one that does the same.
    """

    arguments: Mapping[str, str]
    instead: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        """Return the text with every command in back-ticks completed."""
        return _COMMAND.sub(self._completed, text) if names_command(text) else text

    def _completed(self, found: re.Match[str]) -> str:
        name = self.instead.get(found["name"], found["name"])
        added = _without_flags(self.arguments.get(name, ""), found["rest"])
        return f"`kapso-sync {name}{found['rest']}{f' {added}' if added else ''}`"


def _without_flags(added: str, rest: str) -> str:
    """Return the arguments without those flags, and their values, that a command already has: the last one would count."""
    given = {word for word in rest.split() if word.startswith("--")}
    if not given:
        return added
    kept: list[str] = []
    dropping = False
    for word in shlex.split(added):
        dropping = word in given or (dropping and not word.startswith("--"))
        if not dropping:
            kept.append(word)
    return shlex.join(kept)


def advice_for_latest(current: Callable[[], _T], advice: Callable[[_T], Advise]) -> Advise:
    """Return what completes commands for the current value of something, such as settings that are reloaded.

    The status of a thousand functions has thousands of texts, so the advice is made once for each value, and not for each text.
    """
    known: tuple[_T, Advise] | None = None

    def complete(text: str) -> str:
        nonlocal known
        value = current()
        if known is None or known[0] is not value:
            known = value, advice(value)
        return known[1](text)

    return complete
