"""Defines the commands. Each parses, calls, prints and returns its exit code; slow imports happen inside."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kapso_sync import __version__
from kapso_sync.advice import Advice
from kapso_sync.cli.context import (
    ALL_FLAGS,
    STATE_FLAGS,
    CommandContext,
    json_flag,
    remote_map_flag,
    repeated,
    source_argument,
    with_flags,
    with_overrides,
)
from kapso_sync.cli.output import OutputLost
from kapso_sync.cli.plain import print_document, print_line
from kapso_sync.closest import closest
from kapso_sync.errors import ExitCode, KapsoSyncError, UsageError

if TYPE_CHECKING:
    from kapso_sync.model.policies import PassOverrides


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; print every error to stderr.

    Output that cannot be written is an error of its own, whatever the command did. Like git, nothing is said to whoever closed
    the pipe on purpose.
    """
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except OutputLost as lost:
        if not lost.reader_is_gone:
            from kapso_sync.cli.console import stderr_console

            stderr_console().error(f"standard output cannot be written: {lost.reason.strerror}")
        return int(ExitCode.OUTPUT_LOST)
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        # Without a command, older versions of click print the help, and newer ones raise it as an error.
        code = app.main(args=list(arguments) or ["--help"], prog_name="kapso-sync", standalone_mode=False)
    except KapsoSyncError as error:
        from kapso_sync.cli.runner import print_error

        return int(print_error(error))
    except click.Abort:
        return int(ExitCode.INTERRUPTED)
    except click.ClickException as error:
        from kapso_sync.cli.runner import print_error

        return int(print_error(UsageError(_lower_first(error.format_message()), hint=_usage_hint(error))))
    return int(code or 0)


def _lower_first(text: str) -> str:
    """Return a sentence of click's as ours: no capital, and no full stop."""
    return (text[:1].lower() + text[1:]).removesuffix(".")


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"`{context.command_path if context is not None else 'kapso-sync'} --help` shows the options, and an example"


HABITS = {
    "apply": "`kapso-sync sync` writes and deploys what differs",
    "deploy": "`kapso-sync sync` writes and deploys what differs",
    "push": "`kapso-sync sync` writes and deploys what differs",
    "up": "`kapso-sync run` is the daemon, `kapso-sync sync` one pass",
    "start": "`kapso-sync run` is the daemon",
    "serve": "`kapso-sync run` is the daemon, `kapso-sync dev` runs functions locally",
    "diff": "`kapso-sync plan` shows what a sync would change",
    "import": "`kapso-sync pull` writes Kapso's functions into the folder",
    "rollback": "revert the commit in git, or bring a backup into the folder with `kapso-sync restore SLUG`",
    "undo": "revert the commit in git, or bring a backup into the folder with `kapso-sync restore SLUG`",
    "delete": "remove the function from git; `kapso-sync sync --delete SLUG` then deletes it on Kapso",
    "destroy": "remove the function from git; `kapso-sync sync --delete SLUG` then deletes it on Kapso",
    "list": "`kapso-sync status` lists the functions, `kapso-sync plan` compares them with Kapso",
    "get": "`kapso-sync status` lists the functions, `kapso-sync plan` compares them with Kapso",
    "describe": "`kapso-sync history SLUG` shows what was done to a function",
    "tail": "`kapso-sync logs SLUG` shows a function's invocations, and with `--follow` those that come",
    "login": "set KAPSO_API_KEY, or KAPSO_API_KEY_FILE to a file that holds the key",
}
"""Commands of git, kubectl, Terraform and wrangler, and the way to do the same here."""


SECTIONS = {
    "To begin": ("init", "demo", "doctor", "pull"),
    "Every day": ("plan", "sync", "status", "validate", "test", "dev", "invoke"),
    "To look back": ("logs", "history", "restore"),
    "The daemon": ("run", "reconcile", "suspend", "resume"),
    "More": ("emulator", "schema", "disown", "version", "help"),
}
"""The commands in the order in which people need them."""


class _Group(click.Group):
    """The commands by section, with their whole texts; an unknown one is answered with ours."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        listed = [name for names in SECTIONS.values() for name in names if name in self.commands]
        return [*listed, *(name for name in self.commands if name not in listed)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        order = self.list_commands(ctx)
        for title, names in SECTIONS.items():
            last = title == list(SECTIONS)[-1]
            shown = [name for name in order if name in names or (last and not any(name in all_ for all_ in SECTIONS.values()))]
            with formatter.section(title):
                formatter.write_dl([(name, str(self.commands[name].help).partition("\n")[0]) for name in shown], col_max=12)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            close = closest(name, self.commands, likeness=0.75)
            known = f"did you mean `kapso-sync {close}`?" if close else "`kapso-sync help` lists the commands"
            raise UsageError(f"there is no command `{name}`", hint=_with_first_word(HABITS.get(name, known), args[1:]))
        return super().resolve_command(ctx, args)


def _with_first_word(hint: str, words: Sequence[str]) -> str:
    """Return the hint with the slug or the source that was given, in its commands as well."""
    if not words or words[0].startswith("-"):
        return hint
    word = shlex.quote(words[0])
    if "SLUG" in hint:
        return hint.replace("SLUG", word)
    takes_source = [name for name, command in app.commands.items() if any(p.name == "source" for p in command.params)]
    return Advice({name: f"--source {word}" if name == "dev" else word for name in takes_source})(hint)


def _print_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        print_line(f"kapso-sync {__version__}")
        ctx.exit()


@click.group(
    cls=_Group,
    epilog="Example: kapso-sync plan ./functions",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def app() -> None:
    """Push to git, and what runs on Kapso becomes what git says: safely, with reasons you can read."""


@app.command(epilog="Example: kapso-sync sync https://github.com/acme/flows --path functions")
@source_argument
@click.option("--dry-run", is_flag=True, help="Show the plan, like `plan`; write nothing.")
@repeated("--only", "SLUG", "Touch only this function")
@click.option("--expect", metavar="DIGEST", help="Apply the plan only with this digest.")
@remote_map_flag
@with_overrides
@json_flag
@with_flags()
def sync(
    *,
    dry_run: bool,
    only: tuple[str, ...],
    expect: str | None,
    remote_map: bool,
    overrides: PassOverrides,
    json_output: bool,
    context: CommandContext,
) -> int:
    """Make Kapso match the source, once; wait until the new code runs."""
    from kapso_sync.cli.pass_args import PassArgs
    from kapso_sync.cli.unchanged import plan_unchanged, sync_unchanged

    args = PassArgs(context, context.load_settings(), overrides, only, expect, json_output, remote_map)
    unchanged = plan_unchanged(args) if dry_run else sync_unchanged(args)
    if isinstance(unchanged, int):
        return unchanged
    from kapso_sync.cli import sync as sync_command

    return sync_command.show_plan(args, unchanged) if dry_run else sync_command.sync(args, unchanged)


@app.command(epilog="Example: kapso-sync run https://github.com/acme/flows --path functions")
@source_argument
@with_flags(*ALL_FLAGS)
def run(*, context: CommandContext) -> int:
    """Run the daemon, which reconciles after each change.

    It reconciles after a push, a saved file, an interval or a request, until SIGTERM or SIGINT.
    """
    from kapso_sync.cli import run as run_command

    return run_command.run(context)


@app.command(epilog="Example: kapso-sync reconcile --wait")
@source_argument
@click.option("--wait", is_flag=True, help="Wait until the pass has ended, and exit with its code.")
@with_overrides
@json_flag
@with_flags(*STATE_FLAGS)
def reconcile(*, wait: bool, overrides: PassOverrides, json_output: bool, context: CommandContext) -> int:
    """Tell the running daemon to reconcile now.

    It also retries everything that failed before.
    """
    from kapso_sync.cli import daemon

    return daemon.reconcile(context, overrides, wait=wait, json_output=json_output)


@app.command(epilog="""Example: kapso-sync suspend --reason "migrating the project" --for 2h""")
@source_argument
@click.option("--reason", required=True, help="Why; it is shown to everyone.")
@click.option("--for", "duration", metavar="DURATION", help="Resume by itself after this long, such as 2h.")
@with_flags(*STATE_FLAGS)
def suspend(*, reason: str, duration: str | None, context: CommandContext) -> int:
    """Tell the running daemon to write nothing until `resume`."""
    from kapso_sync.cli import daemon

    return daemon.suspend(context, reason, duration)


@app.command(epilog="Example: kapso-sync resume")
@source_argument
@with_flags(*STATE_FLAGS)
def resume(*, context: CommandContext) -> int:
    """Tell the running daemon to write again."""
    from kapso_sync.cli import daemon

    return daemon.resume(context)


@app.command(epilog="Example: kapso-sync plan ./functions --detailed-exitcode")
@source_argument
@repeated("--only", "SLUG", "Show only this function")
@repeated("--delete", "SLUG", "Show this deletion, as for `sync`")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    help="Default: text; markdown fits a comment.",
)
@click.option(
    "--markdown", "markdown_file", metavar="FILE", type=click.Path(path_type=Path), help="Write it as Markdown as well."
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 when git is ahead, 3 for drift.")
@json_flag
@with_flags()
def plan(
    *,
    only: tuple[str, ...],
    delete: tuple[str, ...],
    form: str | None,
    markdown_file: Path | None,
    detailed_exitcode: bool,
    json_output: bool,
    context: CommandContext,
) -> int:
    """Show what `sync` would do, and why; write nothing."""
    from kapso_sync.cli.pass_args import PassArgs
    from kapso_sync.cli.unchanged import plan_unchanged
    from kapso_sync.model.policies import PassOverrides
    from kapso_sync.wiring.unchanged import DuePass

    if json_output and form not in (None, "json"):
        raise UsageError(f"both --json and --format {form} are given", hint="--json is short for --format json")
    overrides = PassOverrides(delete=frozenset(delete))
    args = PassArgs(context, context.load_settings(), overrides, only, None, json_output or form == "json")
    unchanged = plan_unchanged(args) if form in (None, "text") and markdown_file is None else DuePass()
    if isinstance(unchanged, int):
        return unchanged
    from kapso_sync.cli import sync as sync_command

    markdown = form == "markdown"
    return sync_command.show_plan(args, unchanged, detailed=detailed_exitcode, markdown=markdown, markdown_file=markdown_file)


@app.command(epilog="Example: kapso-sync validate ./functions --json")
@source_argument
@click.option("--github", is_flag=True, help="Print annotations for GitHub.")
@click.option("--types", is_flag=True, help="Run the repository's own tsc as well.")
@json_flag
@with_flags(*STATE_FLAGS, "allow_empty")
def validate(*, github: bool, types: bool, json_output: bool, context: CommandContext) -> int:
    """Check manifest, code and fixtures offline: no key, no API call."""
    from kapso_sync.cli import validate as validate_command

    args = validate_command.ValidateArgs(json=json_output, github=github, types=types)
    return validate_command.validate(context, args)


@app.command(epilog="Example: kapso-sync pull ./functions --diff")
@source_argument
@click.option("--all", "everything", is_flag=True, help="Rewrite the functions that git lists as well.")
@click.option("--force", is_flag=True, help="Overwrite files and entries that were changed here.")
@click.option("--diff", is_flag=True, help="Show what would be written, and write nothing.")
@click.option(
    "--layout", type=click.Choice(["manifest", "kapso"]), help="How new functions are written. Default: as the folder does."
)
@repeated("--only", "SLUG", "Pull only this function")
@remote_map_flag
@json_flag
@with_flags("path", "env", "owner", "state_dir", "log_level", "log_format")
def pull(
    *,
    everything: bool,
    force: bool,
    diff: bool,
    layout: str | None,
    only: tuple[str, ...],
    remote_map: bool,
    json_output: bool,
    context: CommandContext,
) -> int:
    """Write functions that only Kapso has into the folder.

    It changes files and the manifest, and nothing on Kapso.
    """
    from kapso_sync.cli import pull as pull_command
    from kapso_sync.model.pull import FolderLayout
    from kapso_sync.reconcile.pull.planner import PullOptions

    options = PullOptions(everything, force, only, FolderLayout(layout) if layout else None)
    output = pull_command.OutputOptions(dry=diff, diff=diff, json_output=json_output, remote_map=remote_map)
    return pull_command.pull(context, options, output)


@app.command(epilog="Example: kapso-sync init ./functions --write")
@source_argument
@click.option("--write", is_flag=True, help="Write the manifest; without, it is only shown.")
@json_flag
@with_flags("path", "env", "owner", "state_dir", "log_level", "log_format")
def init(*, write: bool, json_output: bool, context: CommandContext) -> int:
    """Propose a manifest for a folder of code that has none.

    With a key, it takes the slugs of the functions on Kapso.
    """
    from kapso_sync.cli import init as init_command

    return init_command.init(context, write=write, json_output=json_output)


@app.command(epilog="Example: kapso-sync test ./functions --changed-since origin/main")
@source_argument
@repeated("--only", "SLUG", "Test only this function")
@click.option("--changed-since", "since", metavar="REV", help="Test only what differs from this revision.")
@click.option("--network", is_flag=True, help="Let functions make requests that no fixture answers.")
@click.option("--github", is_flag=True, help="Print annotations for GitHub.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the results as JUnit XML, too.")
@click.option("--runtime", metavar="auto|PATH", default="auto", show_default=True, help="The workerd to run on.")
@click.option("--verbose", "-v", is_flag=True, help="Show the answers of checks that passed as well.")
@json_flag
@with_flags("path", "branch", "ref", "env", "log_level", "log_format")
def test(
    *,
    only: tuple[str, ...],
    since: str | None,
    network: bool,
    github: bool,
    junit: Path | None,
    runtime: str,
    verbose: bool,
    json_output: bool,
    context: CommandContext,
) -> int:
    """Run every function's checks on this machine.

    It builds everything, and needs neither Kapso nor a key. What functions fetch, and what is in env.KV and env.DB, comes from
    files beside them.
    """
    from kapso_sync.cli import test as test_command

    args = test_command.TestArgs(
        only, since, network=network, json=json_output, github=github, junit=junit, runtime=runtime, verbose=verbose
    )
    return test_command.test(context, args)


@app.command(epilog="Example: kapso-sync history process-webhook")
@click.argument("slug")
@source_argument
@json_flag
@with_flags(*STATE_FLAGS)
def history(*, slug: str, json_output: bool, context: CommandContext) -> int:
    """Show what was done to a function, and its backups.

    It names the commits, and makes no API call.
    """
    from kapso_sync.cli import history as history_command

    return history_command.history(slug, context, json_output=json_output)


@app.command(epilog="Example: kapso-sync restore process-webhook --from 0123456789abcdef")
@click.argument("slug")
@source_argument
@click.option("--from", "which", metavar="ID", help="The backup's id, or its file. Default: the newest.")
@click.option("--force", is_flag=True, help="Overwrite what was changed here.")
@click.option("--diff", is_flag=True, help="Show what would be written, and write nothing.")
@json_flag
@with_flags("path", "env", "owner", "state_dir")
def restore(*, slug: str, which: str | None, force: bool, diff: bool, json_output: bool, context: CommandContext) -> int:
    """Write a backup of a function into the folder.

    It changes nothing on Kapso: commit the file, and the next pass deploys it.
    """
    from kapso_sync.cli import history as history_command
    from kapso_sync.cli.pull import OutputOptions

    output = OutputOptions(dry=diff, diff=True, force=force, json_output=json_output)
    return history_command.restore(slug, which, context, output)


@app.command(epilog="Example: kapso-sync disown ./functions --yes")
@source_argument
@click.option("--yes", is_flag=True, help="Do it; otherwise the functions are only listed.")
@repeated("--only", "SLUG", "Disown only this function")
@json_flag
@with_flags("path", "branch", "ref", "env", "owner", "state_dir", "log_level", "log_format")
def disown(*, yes: bool, only: tuple[str, ...], json_output: bool, context: CommandContext) -> int:
    """Remove our marks from the functions; for those who leave.

    It changes their descriptions, and nothing else.
    """
    from kapso_sync.cli import disown as disown_command

    return disown_command.disown(context, only, yes=yes, json_output=json_output)


@app.command(epilog="Example: kapso-sync status --json")
@source_argument
@json_flag
@with_flags(*STATE_FLAGS)
def status(*, json_output: bool, context: CommandContext) -> int:
    """Show the last pass, and whether each function is ready.

    It makes no API call.
    """
    from kapso_sync.cli import status as status_command

    return status_command.status(context, json_output=json_output)


@app.command(epilog="""Example: kapso-sync invoke process-webhook --data '{"ping": true}'""")
@click.argument("slug")
@click.option("--data", default="{}", help="The request's JSON, or @file.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=30.0, show_default=True, help="Seconds to wait.")
@json_flag
@with_flags("log_level", "log_format")
def invoke(*, slug: str, data: str, timeout: float, json_output: bool, context: CommandContext) -> int:
    """Call a deployed function and print its answer."""
    from kapso_sync.cli import invoke as invoke_command

    return invoke_command.invoke(slug, data, timeout, context, json_output=json_output)


@app.command(epilog="Example: kapso-sync logs process-webhook --failed --follow")
@click.argument("slug")
@source_argument
@click.option("--failed", is_flag=True, help="Show only those that were answered with no 2xx.")
@click.option("--limit", type=int, metavar="N", default=10, show_default=True, help="How many of the newest, 1 to 20.")
@click.option("--follow", "-f", is_flag=True, help="Show those that come as well, until Ctrl-C.")
@click.option("--bodies", is_flag=True, help="Show requests and answers too: they hold personal data.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON document; with --follow one a line.")
@with_flags(*STATE_FLAGS, "log_level", "log_format")
def logs(*, slug: str, failed: bool, limit: int, follow: bool, bodies: bool, json_output: bool, context: CommandContext) -> int:
    """Show a function's invocations, and why they failed.

    Stack traces name the source's files and lines, where this computer has built the code that ran.
    """
    from kapso_sync.cli import logs as logs_command

    args = logs_command.LogsArgs(slug, failed=failed, limit=limit, bodies=bodies, json_output=json_output)
    return logs_command.follow(args, context) if follow else logs_command.logs(args, context)


@app.command(epilog="Example: kapso-sync emulator --port 8787 --world secrets_on_deploy=drop")
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True, help="On loopback; 0 picks a free one.")
@click.option("--data", type=click.Path(path_type=Path), help="Keep everything in this folder.")
@click.option("--faults", type=click.Path(path_type=Path), help="Fault rules, in YAML.")
@click.option("--rate-limit", type=click.IntRange(1), default=1000, show_default=True, help="Calls in each window.")
@click.option("--window", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds in a window.")
@click.option("--deploy-delay", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds a deployment takes.")
@click.option("--quota", type=click.IntRange(0), help="How many functions may be deployed.")
@click.option(
    "--runtime",
    metavar="auto|off|PATH",
    default="auto",
    show_default=True,
    help="Compile and run functions on workerd: one that is found, none, or this one.",
)
@click.option(
    "--world", multiple=True, metavar="NAME=VALUE|FILE", help="A switch, or a JSON file of them (docs/emulator.md); repeatable."
)
@click.option(
    "--control-token", metavar="VALUE", help="What requests below /_emulator/ must send. Default: random, and printed."
)
def emulator(
    *,
    port: int,
    data: Path | None,
    faults: Path | None,
    rate_limit: int,
    window: float,
    deploy_delay: float,
    quota: int | None,
    runtime: str,
    world: tuple[str, ...],
    control_token: str | None,
) -> int:
    """Serve a local Kapso, to try kapso-sync and to test against."""
    from kapso_sync.cli import emulator as emulator_command

    return emulator_command.serve(
        emulator_command.EmulatorArgs(
            port, data, faults, rate_limit, window, deploy_delay, quota, runtime, world, control_token
        )
    )


@app.command(epilog="""Example: kapso-sync dev process-webhook --data '{"ping": true}'""")
@click.argument("slug", required=False, metavar="[SLUG]")
@click.option("--source", metavar="FOLDER", help="The functions. Default: KAPSO_SYNC_SOURCE, else the current folder.")
@click.option("--data", default="{}", help="The request's JSON, or @file, which is read at each run.")
@click.option(
    "--runtime",
    metavar="auto|PATH",
    default="auto",
    show_default=True,
    help="The workerd to run on: one that is found, or this.",
)
@with_flags("path", "debounce")
def dev(*, slug: str | None, data: str, runtime: str, context: CommandContext) -> int:
    """Run functions on this computer, and show their answers.

    It runs them again after every save, and needs no key.
    """
    from kapso_sync.cli import dev as dev_command

    args = dev_command.DevArgs(slug, data, context, runtime)
    return dev_command.dev(args)


@app.command(epilog="Example: kapso-sync demo")
def demo() -> int:
    """Show what kapso-sync does, in under a minute.

    It uses a local emulator and a throw-away repository; nothing leaves this computer.
    """
    from kapso_sync.cli import demo as demo_command

    return demo_command.demo()


@app.command(epilog="Example: kapso-sync schema > manifest.schema.json")
def schema() -> int:
    """Print the JSON Schema of the manifest."""
    from kapso_sync.manifest import json_schema

    print_document(json_schema())
    return int(ExitCode.OK)


@app.command(epilog="Example: kapso-sync doctor --yes")
@click.option("--yes", is_flag=True, help="Ask the API without a question to you; it creates and deletes one function.")
@json_flag
@with_flags("state_dir", "log_level", "log_format")
def doctor(*, yes: bool, json_output: bool, context: CommandContext) -> int:
    """Check this computer, and with a key how this Kapso behaves."""
    from kapso_sync.cli import doctor as doctor_command

    return doctor_command.doctor(context, yes=yes, json_output=json_output)


@app.command(epilog="Example: kapso-sync version --json")
@json_flag
def version(*, json_output: bool) -> int:
    """Print the version, and all versions that a bug report needs."""
    from kapso_sync.cli import version as version_command

    return version_command.show(json_output=json_output)


@app.command("help", epilog="Example: kapso-sync help sync")
@click.argument("command", required=False, metavar="[COMMAND]")
@click.pass_context
def show_help(ctx: click.Context, *, command: str | None) -> int:
    """Print the help of a command, or the list of commands."""
    root = ctx.find_root()
    if command is None:
        click.echo(root.get_help())
        return int(ExitCode.OK)
    name, found, _ = app.resolve_command(root, [command])
    if found is not None:
        click.echo(found.get_help(click.Context(found, info_name=name, parent=root)))
    return int(ExitCode.OK)
