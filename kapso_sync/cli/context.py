"""Holds what every command starts with: the flags that override settings, and the settings and event bus made of them."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kapso_sync.cli.console import Console
    from kapso_sync.model import events
    from kapso_sync.settings import Settings
    from kapso_sync.telemetry import EventBus

Command = Callable[..., int]

source_argument = click.argument("source", required=False, metavar="[SOURCE]")
json_flag = click.option("--json", "json_output", is_flag=True, help="Print one JSON document on stdout.")

_FLAGS: Mapping[str, tuple[str, str]] = {
    "path": ("--path", "The functions folder inside the source."),
    "branch": ("--branch", "The branch. Default: the remote's own."),
    "ref": ("--ref", "A tag or a commit, in place of a branch."),
    "env": ("--env", "The manifest's environment to use."),
    "owner": ("--owner", "The owner. Default: git remote and path."),
    "state_dir": ("--state-dir", "The state folder. Default: one per user."),
    "adopt": ("--adopt", "Unowned ones: identical, always or never."),
    "drift": ("--drift", "Changes made on Kapso: correct or report."),
    "prune": ("--prune/--no-prune", "Delete owned functions that left git."),
    "max_delete": ("--max-delete", "Most deletions in a pass, such as 3 or 25%."),
    "prune_grace": ("--prune-grace", "Wait before a deletion, such as 10m."),
    "allow_empty": ("--allow-empty/--no-allow-empty", "Accept a source that lists no function."),
    "interval": ("--interval", "How often to reconcile, such as 5m."),
    "git_interval": ("--git-interval", "How often to ask git for a new revision."),
    "debounce": ("--debounce", "Quiet time after a file event."),
    "listen": ("--listen", "HOST:PORT of the server; empty: none."),
    "log_level": ("--log-level", "debug, info, warning, error or off."),
    "log_format": ("--log-format", "auto, json or console."),
}


_VALUES: Mapping[str, str] = {
    "path": "FOLDER",
    "branch": "NAME",
    "ref": "NAME",
    "env": "NAME",
    "owner": "NAME",
    "state_dir": "FOLDER",
    "adopt": "POLICY",
    "drift": "POLICY",
    "max_delete": "NUMBER",
    "prune_grace": "DURATION",
    "interval": "DURATION",
    "git_interval": "DURATION",
    "debounce": "DURATION",
    "listen": "ADDRESS",
    "log_level": "LEVEL",
    "log_format": "FORMAT",
}
"""What the help calls the value of a flag."""

DAEMON_FLAGS = ("interval", "git_interval", "debounce", "listen")
"""Flags that only the daemon uses."""

ALL_FLAGS = tuple(_FLAGS)

PASS_FLAGS = tuple(name for name in _FLAGS if name not in DAEMON_FLAGS)
"""Flags of a command that runs one pass."""

STATE_FLAGS = ("path", "branch", "ref", "env", "state_dir")
"""Flags that find the state folder of a source."""

COMMAND_FLAGS: Mapping[str, tuple[str, ...]] = {
    "sync": PASS_FLAGS,
    "plan": PASS_FLAGS,
    "validate": (*STATE_FLAGS, "allow_empty"),
    "status": STATE_FLAGS,
}
"""The flags of the commands that others advise."""


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The command line's settings by name, its SOURCE included, and the file that ``--env-file`` names."""

    overrides: Mapping[str, object] = field(default_factory=dict)
    env_file: Path | None = None

    def load_settings(self) -> Settings:
        """Return the settings: the command line's, the file's, the environment's, and defaults. Raises `ConfigError`."""
        from kapso_sync.settings import load_settings

        return load_settings(self.overrides, env_file=self.env_file)

    def command(self, name: str, *options: str) -> str:
        """Return a command line that works as it is printed: this command's source and flags, where the other one has them."""
        words = ["kapso-sync", name]
        source = self.overrides.get("source")
        if source is not None:
            words.append(str(source))
        for flag, value in self.overrides.items():
            if flag in _FLAGS and flag in COMMAND_FLAGS.get(name, ()):
                yes, _, no = _FLAGS[flag][0].partition("/")
                words += [(yes if value else no)] if isinstance(value, bool) else [yes, str(value)]
        if self.env_file is not None:
            words += ["--env-file", str(self.env_file)]
        return shlex.join([*words, *options])

    def event_bus(
        self, settings: Settings, *listeners: events.Listener, level: str = "error", console: Console | None = None
    ) -> EventBus:
        """Return the event bus, which logs to stderr from ``level`` on if the settings set no level.

        On a terminal the default is no log: the command's report says the same to the same person. ``console`` is the one on
        stderr, if the command prints there too.
        """
        from kapso_sync.cli.console import stderr_console
        from kapso_sync.wiring import make_event_bus

        errors = console or stderr_console()
        default = "off" if errors.terminal else level
        return make_event_bus(settings, errors.log_stream(), *listeners, level=default, colour=errors.colour)


def with_flags(*names: str) -> Callable[[Command], Command]:
    """Give a command these flags, or those of a single pass; with SOURCE they reach it as its argument ``context``."""
    chosen = names or PASS_FLAGS

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*, env_file: Path | None, **given: Any) -> int:
            values = {name: given.pop(name) for name in (*chosen, "source") if name in given}
            overrides = {name: value for name, value in values.items() if value is not None}
            return command(**given, context=CommandContext(overrides, env_file))

        decorated = click.option("--env-file", type=click.Path(path_type=Path), help="Read settings from this file as well.")(
            wrapper
        )
        for name in reversed(chosen):
            flag, text = _FLAGS[name]
            decorated = click.option(flag, name, default=None, help=text, metavar=_VALUES.get(name))(decorated)
        return decorated

    return decorate


def repeated(flag: str, metavar: str, text: str) -> Callable[[Command], Command]:
    """Return an option that may be given several times."""
    return click.option(flag, multiple=True, metavar=metavar, help=f"{text} (repeatable).")
