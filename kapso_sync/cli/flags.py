"""Flags that stand for settings, shared by every command that works on a source: one table, one decorator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

Command = Callable[..., int]

source_argument = click.argument("source", required=False, metavar="[SOURCE]")
json_flag = click.option("--json", "json_output", is_flag=True, help="Print one JSON document on stdout, nothing else there.")

_FLAGS: Mapping[str, tuple[str, str]] = {
    "path": ("--path", "The functions folder inside the source."),
    "branch": ("--branch", "The branch to follow. Default: the remote's own."),
    "ref": ("--ref", "A tag or a commit, in place of a branch."),
    "env": ("--env", "Which of the manifest's environments holds; it becomes part of the owner."),
    "owner": ("--owner", "Who owns the functions. Default: the normalised git remote and path."),
    "state_dir": ("--state-dir", "Where to remember. Default: a per-user state folder."),
    "adopt": ("--adopt", "Functions that are nobody's: identical, always or never."),
    "drift": ("--drift", "Changes made on Kapso: correct or report."),
    "prune": ("--prune/--no-prune", "Delete owned functions that left git."),
    "max_delete": ("--max-delete", "Most deletions in one pass: a number, or a share of the owned functions."),
    "prune_grace": ("--prune-grace", "How long a function must be absent from git before it is deleted: 0, or such as 10m."),
    "allow_empty": ("--allow-empty/--no-allow-empty", "Accept a source that lists no function."),
    "interval": ("--interval", "How often to look for drift, such as 5m."),
    "git_interval": ("--git-interval", "How often to ask the git remote for its head."),
    "debounce": ("--debounce", "Quiet time after a file event."),
    "listen": ("--listen", "HOST:PORT of health, metrics, status page and webhook; empty: none."),
    "log_level": ("--log-level", "debug, info, warning or error."),
    "log_format": ("--log-format", "auto, json or console."),
}


DAEMON_FLAGS = ("interval", "git_interval", "debounce", "listen")
"""Flags that mean something to the daemon only."""

ALL_FLAGS = tuple(_FLAGS)


@dataclass(frozen=True, slots=True)
class Flags:
    """What was given on the command line: ``values`` by setting, and the file that ``--env-file`` names."""

    values: Mapping[str, object] = field(default_factory=dict)
    env_file: Path | None = None

    def overrides(self, source: str | None = None) -> dict[str, object]:
        """Return the settings that the command line overrides."""
        given = {name: value for name, value in self.values.items() if value is not None}
        return given if source is None else {**given, "source": source}


def with_flags(*names: str) -> Callable[[Command], Command]:
    """Give a command these flags (those of a single pass, without names); it gets them as its keyword argument ``flags``."""
    chosen = names or tuple(name for name in _FLAGS if name not in DAEMON_FLAGS)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*, env_file: Path | None, **given: Any) -> int:
            values = {name: given.pop(name) for name in chosen}
            return command(**given, flags=Flags(values, env_file))

        decorated = click.option("--env-file", type=click.Path(path_type=Path), help="Read settings from this file as well.")(
            wrapper
        )
        for name in reversed(chosen):
            flag, text = _FLAGS[name]
            decorated = click.option(flag, name, default=None, help=text)(decorated)
        return decorated

    return decorate


def repeated(flag: str, metavar: str, text: str) -> Callable[[Command], Command]:
    """Return an option that may be given several times."""
    return click.option(flag, multiple=True, metavar=metavar, help=f"{text} (repeatable).")
