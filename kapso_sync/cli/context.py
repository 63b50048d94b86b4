"""Holds what every command starts with: the flags that override settings, and the settings and event bus made of them."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from kapso_sync.advice import Advice, names_command
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import KapsoSyncError, ManifestInvalid, Problem

if TYPE_CHECKING:
    from kapso_sync.cli.console import Console
    from kapso_sync.model import events
    from kapso_sync.settings import Settings
    from kapso_sync.telemetry.event_bus import EventBus
    from kapso_sync.telemetry.redact import Redactor

Command = Callable[..., int]

source_argument = click.argument("source", required=False, metavar="[SOURCE]")
remote_map_flag = click.option("--remote-map", is_flag=True, help="Update .kapso/remote-map.json of Kapso's own CLI.")
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

_NOT_REPEATED = frozenset({"log_level", "log_format"})
"""Flags that no command in a hint needs."""

PASS_FLAGS = tuple(name for name in _FLAGS if name not in DAEMON_FLAGS)
"""Flags of a command that runs one pass."""

STATE_FLAGS = ("path", "branch", "ref", "env", "state_dir")
"""Flags that find the state folder of a source."""

DAEMON_KNOWN_BY = ("source", *STATE_FLAGS)
"""Settings by which a command finds a running daemon."""


def _new_redactor() -> Redactor:
    from kapso_sync.telemetry.redact import Redactor

    return Redactor()


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The command line's settings by name, its SOURCE included, and the file that ``--env-file`` names.

    ``commands`` are all commands, by name: a hint repeats what its command takes. ``redactor`` learns the secrets of this
    process; log, reports, documents and errors all go through it.
    """

    overrides: Mapping[str, object] = field(default_factory=dict)
    env_file: Path | None = None
    commands: Mapping[str, click.Command] = field(default_factory=dict, repr=False)
    redactor: Redactor = field(default_factory=_new_redactor, repr=False)

    def stdout(self) -> Console:
        """Return the console for reports."""
        from kapso_sync.cli.console import stdout_console

        return stdout_console(self.redactor)

    def stderr(self) -> Console:
        """Return the console for errors, progress and logs."""
        from kapso_sync.cli.console import stderr_console

        return stderr_console(self.redactor)

    def of_source(self, source: str | None) -> CommandContext:
        """Return the context with this source, if the command line names none and it is not the current folder."""
        if source is None or "source" in self.overrides or source == str(Path.cwd()):
            return self
        return replace(self, overrides={**self.overrides, "source": source})

    def advise(self, text: str) -> str:
        """Return the text with this command line's SOURCE and flags in the commands that it names."""
        return self._advice(self.overrides, self.env_file)(text) if names_command(text) else text

    def shown(self, problems: Sequence[Problem]) -> tuple[Problem, ...]:
        """Return the problems without secrets, and with the commands in their hints completed."""
        redact = self.redactor.text
        return tuple(
            replace(
                problem,
                message=redact(problem.message),
                hint=redact(self.advise(problem.hint)) if problem.hint else None,
                frame=redact(problem.frame) if problem.frame else None,
            )
            for problem in problems
        )

    def advice_for_daemon(self, settings: Settings) -> Advice:
        """Return what completes commands so that they work in another process beside the daemon of these settings.

        The daemon holds the state folder, so it is asked to do what a `sync` would do.
        """
        from kapso_sync.wiring.folder import source_spec

        values = {name: value for name in DAEMON_KNOWN_BY if (value := getattr(settings, name)) is not None}
        try:
            values["source"] = source_spec(settings).location
        except KapsoSyncError:
            values["source"] = settings.source or "."
        values |= {"state_dir": settings.state_dir.absolute()} if settings.state_dir else {}
        env_file = self.env_file.absolute() if self.env_file else None
        return self._advice(values, env_file, instead={"sync": "reconcile"})

    def _advice(
        self, values: Mapping[str, object], env_file: Path | None, *, instead: Mapping[str, str] | None = None
    ) -> Advice:
        given = {**({"source": values["source"]} if "source" in values else {}), **values}
        given |= {"env_file": env_file} if env_file else {}
        arguments = {name: _command_arguments(command.params, given) for name, command in self.commands.items()}
        return Advice(arguments, instead or {})

    def load_settings(self) -> Settings:
        """Return the settings: the command line's, the file's, the environment's, and defaults. Raises `ConfigError`."""
        from kapso_sync.settings import load_settings

        return load_settings(self.overrides, env_file=self.env_file)

    def event_bus(
        self, settings: Settings, *listeners: events.Listener, level: str = "error", console: Console | None = None
    ) -> EventBus:
        """Return the event bus, which logs to stderr from ``level`` on if the settings set no level.

        On a terminal the default is no log: the command's report says the same to the same person. ``console`` is the one on
        stderr, if the command prints there too.
        """
        from kapso_sync.wiring.log import make_event_bus

        errors = console or self.stderr()
        bus = make_event_bus(
            settings,
            errors.log_stream(),
            level="off" if errors.terminal else level,
            advise=self.advise,
            colour=errors.colour,
            redactor=self.redactor,
        )
        bus.add(*listeners)
        return bus


def _command_arguments(parameters: Sequence[click.Parameter], given: Mapping[str, object]) -> str:
    """Return what of the given settings a command with these parameters takes, as words of a shell."""
    known = {parameter.name: parameter for parameter in parameters}
    words: list[str] = []
    for name, value in given.items():
        parameter = known.get(name)
        if parameter is None or name in _NOT_REPEATED:
            continue
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            words += [parameter.opts[0], str(value)]
    return shlex.join(words)


def with_flags(*names: str) -> Callable[[Command], Command]:
    """Give a command these flags, or those of a single pass; with SOURCE they reach it as its argument ``context``."""
    chosen = names or PASS_FLAGS

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*, env_file: Path | None, **given: Any) -> int:
            values = {name: given.pop(name) for name in (*chosen, "source") if name in given}
            overrides = {name: value for name, value in values.items() if value is not None}
            group = click.get_current_context().find_root().command
            commands = group.commands if isinstance(group, click.Group) else {}
            context = CommandContext(overrides, env_file, commands)
            try:
                return command(**given, context=context)
            except KapsoSyncError as error:
                error.message = context.redactor.text(error.message)
                error.hint = context.redactor.text(context.advise(error.hint)) if error.hint else None
                if isinstance(error, ManifestInvalid):
                    error.problems = context.shown(error.problems)
                raise

        decorated = _with_option(_env_file_option())(wrapper)
        for name in reversed(chosen):
            decorated = _with_option(_flag_option(name))(decorated)
        return decorated

    return decorate


@functools.cache
def _flag_option(name: str) -> click.Option:
    """Return the option of a flag, one for all commands: copies would be half of what the command line takes of memory."""
    flag, text = _FLAGS[name]
    return click.Option([flag, name], default=None, help=text, metavar=_VALUES.get(name))


@functools.cache
def _env_file_option() -> click.Option:
    return click.Option(["--env-file"], type=_GivenPath(path_type=Path), help="Read settings from this file as well.")


def _with_option(option: click.Option) -> Callable[[Command], Command]:
    """Return what gives a command this option, as `click.option` gives it one of its own."""
    return click.option(cls=cast("type[click.Option]", lambda *_, **__: option))


class _GivenPath(click.Path):
    """A path; an empty one, as a script's empty variable makes it, is not given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or None if it is empty."""
        return None if isinstance(value, str) and not value.strip() else super().convert(value, param, ctx)


def _without_empty(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values; an empty one is refused: without ``--only`` a command means all functions, which nobody asked for."""
    if not all(value.strip() for value in values):
        raise click.BadParameter(f"it is empty; name a {param.metavar}, or leave it out")
    return values


def repeated(flag: str, metavar: str, text: str) -> Callable[[Command], Command]:
    """Return an option that may be given several times."""
    return click.option(flag, multiple=True, metavar=metavar, callback=_without_empty, help=f"{text} (repeatable).")


def with_overrides(command: Command) -> Command:
    """Give a command the options that allow something for one pass only; they reach it as its argument ``overrides``."""

    @functools.wraps(command)
    def wrapper(*, allow_recreate: bool, reset_secrets: bool, **given: Any) -> int:
        from kapso_sync.model.policies import PassOverrides

        named = {name: frozenset(given.pop(name)) for name in ("retry", "overwrite", "take_from", "delete")}
        overrides = PassOverrides(**named, allow_recreate=allow_recreate, reset_secrets=reset_secrets)
        return command(**given, overrides=overrides)

    options = (
        repeated("--retry", "SLUG", "Try quarantined code again"),
        repeated("--overwrite", "SLUG", "Write git over drift once"),
        repeated("--take-from", "OWNER", "Take this owner's functions"),
        repeated("--delete", "SLUG", "Delete this one, not in git"),
        click.option("--allow-recreate", is_flag=True, help="Create any number of vanished ones again."),
        click.option("--reset-secrets", is_flag=True, help="Also set secrets that Kapso had before us."),
    )
    decorated: Command = wrapper
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
