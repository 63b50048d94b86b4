"""The console: width, colour, progress, the log beside it, and foreign text."""

from __future__ import annotations

import io
import re
import shlex
import time
from pathlib import Path

import pytest

import kapso_sync as package
from kapso_sync.cli.console import Console, Progress, shows_progress, uses_colour, whole
from kapso_sync.model import events
from tests.program import Terminal, answering, git, kapso_sync, write_functions
from tests.served import Served

Environment = dict[str, str]
NINE = tuple(f"function-{name}" for name in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
COMMAND = "`kapso-sync sync /home/ada/orders/flows --retry a-function-with-a-long-name`"
DIGEST = "sha256:" + "c0ffee42" * 8
HOSTILE = "\x1b[2J\x9b31m\x07\r\u202e[red]"


def printed(width: int | None, *parts: object, **environment: str) -> list[str]:
    """The lines that one call of `line` prints on a terminal of this width, or in a pipe."""
    stream = Terminal() if width else io.StringIO()
    Console(stream, {"COLUMNS": str(width or ""), **environment}).line(*parts)  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_on_a_terminal_are_wrapped_at_words_with_a_hanging_indent(width: int) -> None:
    """No line is longer than the terminal, and no word is broken or lost."""
    text = "the owner was github.com/acme/website and is now github.com/acme/flows " * 4
    lines = printed(width, ("warning: ", "yellow"), text, TERM="dumb")
    assert max(map(len, lines)) <= width
    assert len(lines) > 1
    assert not lines[0].startswith(" ")
    assert all(line.startswith("  ") and not line.startswith("   ") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == f"warning: {text}".strip()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_command_a_digest_and_a_path_are_never_broken(width: int) -> None:
    """Whoever copies them gets all of them, also where they are longer than the terminal is wide."""
    path = "/home/ada lovelace/a folder/functions"
    lines = printed(width, "first ", whole(path), f" then run {COMMAND} for {DIGEST} and be done", TERM="dumb")
    assert all(sum(copied in line for line in lines) == 1 for copied in (path, COMMAND, DIGEST))


def test_a_pipe_gets_one_line_for_each_thing_that_is_said() -> None:
    """So that grep finds all of it."""
    text = "many words " * 50
    assert printed(None, text) == [text]


def test_a_terminal_that_hides_its_width_counts_as_80_columns() -> None:
    """And one that calls itself tiny is not cut to nothing."""
    assert Console(Terminal(), {}).width == 80
    assert Console(Terminal(), {"COLUMNS": "0"}).width == 80
    assert Console(Terminal(), {"COLUMNS": "3"}).width == 20
    assert Console(io.StringIO(), {"COLUMNS": "40"}).width is None


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": ""}, False),
        (True, {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour_follows_no_color_force_color_and_the_terminal(
    terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    """In this order, and without colour there is no escape sequence at all, not even for bold."""
    assert uses_colour(environment, terminal=terminal) is coloured
    stream = Terminal() if terminal else io.StringIO()
    console = Console(stream, environment)
    console.line(("bold ", "bold"), ("dim ", "dim"), ("red", "red"))
    console.error("no", "try again")
    assert ("\x1b" in stream.getvalue()) is coloured


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)]
)
def test_the_variables_hold_for_reports_and_errors_of_commands(
    folder: Path, environment: Environment, variables: Environment, coloured: bool
) -> None:
    """Both streams of a pipe."""
    ran = kapso_sync("plan", str(folder), environment={**environment, **variables})
    wrong = kapso_sync("plan", "/nowhere", "--log-level", "off", environment={**environment, **variables})
    assert ("\x1b" in ran.out, "\x1b[1;31merror: " in wrong.err) == (coloured, coloured)
    assert "error: /nowhere" in wrong.err.replace("\x1b[1;31m", "").replace("\x1b[0m", "")


@pytest.mark.parametrize(
    ("terminal", "environment", "drawn"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "CI": "true"}, False),
        (True, {"TERM": "xterm", "CI": "false"}, True),
        (False, {"TERM": "xterm"}, False),
        (False, {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_progress_is_drawn_on_a_terminal_and_never_in_ci(terminal: bool, environment: dict[str, str], drawn: bool) -> None:
    """Colour that is forced into a pipe brings no bar along."""
    assert shows_progress(environment, terminal=terminal) is drawn
    stream = Terminal() if terminal else io.StringIO()
    with Progress(Console(stream, environment)) as progress:
        progress.listen(events.DeployStarted(slug="a"))
        progress.listen(events.DeploySucceeded(slug="a", duration_ms=5))
    assert ("deploying" in stream.getvalue()) is drawn


def test_a_log_line_is_not_glued_into_the_progress_bar() -> None:
    """It begins a line of its own, since both go through one console."""
    stream = Terminal()
    console = Console(stream, {"TERM": "xterm", "NO_COLOR": "1"})
    with Progress(console) as progress:
        progress.listen(events.DeployStarted(slug="a"))
        console.log_stream().write("2026-01-01 [info] deploy.started slug=a\n")
        progress.listen(events.DeploySucceeded(slug="a", duration_ms=5))
    before, _, after = stream.getvalue().partition("2026-01-01 [info] deploy.started slug=a")
    assert before.endswith(("\n", "\r", "\x1b[2K")), "the bar is erased first"
    assert after.startswith("\n")


def test_the_log_is_written_as_it_is_into_a_pipe() -> None:
    """JSON lines of any length stay lines."""
    stream = io.StringIO()
    line = '{"event": "' + "x" * 500 + '"}\n'
    Console(stream, {}).log_stream().write(line)
    assert stream.getvalue() == line


def test_only_the_console_decides_how_something_is_printed() -> None:
    """No other module uses rich, writes to a standard stream, or asks whether there is a terminal; JSON is printed as it is."""
    others = [path for path in (Path(package.__file__).parent / "cli").glob("*.py") if path.name != "console.py"]
    assert len(others) > 15
    for path in others:
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"from rich|import rich|sys\.(stdout|stderr)\.(write|isatty)", code), path.name
    assert "from rich" in (Path(package.__file__).parent / "cli" / "console.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [None, 40])
def test_foreign_text_stays_inert(width: int | None) -> None:
    """No escape sequence, no carriage return, no turned direction, no markup."""
    stream = Terminal() if width else io.StringIO()
    console = Console(stream, {"COLUMNS": str(width or ""), "NO_COLOR": "1"})
    for show in (console.line, console.verbatim, console.error, console.warning, console.hint, console.title):
        show(HOSTILE)
    console.line(whole(HOSTILE), (HOSTILE, "red"))
    assert not set(stream.getvalue()) & set("\x1b\x9b\x07\r\u202e")
    assert r"\x1b[2J\x9b31m\x07\r\u202e[red]" in stream.getvalue()


def test_hostile_words_from_git_and_kapso_are_spelled_out_by_every_command(
    kapso: Served, tmp_path: Path, environment: Environment
) -> None:
    """A commit's subject, a field's value, code, and Kapso's own error."""
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    write_functions(repository / "functions", {"greet": answering("hello"), "part": answering("bye")})
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", f"Say {HOSTILE.replace(chr(13), '')}")
    body = {"error": f"no {HOSTILE}"}
    kapso.faults({"what": "status", "status": 422, "method": "POST", "route": "/functions", "slug": "part", "body": body})
    source = repository.as_uri()
    lines = [("sync", source), ("status", source), ("history", "greet", source)]
    kapso_sync("sync", source, environment=environment)
    kapso.edit("greet", code=f"// {HOSTILE}\n{answering('x')}", description=HOSTILE, deploy=True)
    lines += [("plan", source), ("invoke", HOSTILE), ("plan", source, "--only", HOSTILE)]
    for line in lines:
        ran = kapso_sync(*line, environment={**environment, "NO_COLOR": "1", "TERM": "dumb"}, terminal=True, width=200)
        assert ran.screen
        assert not set(ran.screen) & set("\x1b\x9b\x07\r\u202e"), line
        assert r"\x1b[2J" in ran.screen, line


@pytest.mark.parametrize("situation", ["nothing was there", "all were changed"])
def test_a_sync_of_nine_functions_with_one_failure_fits_one_screen(
    kapso: Served, tmp_path: Path, environment: Environment, situation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 lines of 80 columns, and the last one says what to do, with a command that works as it is printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows").mkdir()
    git(tmp_path / "flows", "init", "--quiet", "--initial-branch=main")
    git(tmp_path / "flows", "remote", "add", "origin", "https://github.com/acme/flows.git")
    folder = tmp_path / "flows" / "functions"
    if situation == "all were changed":
        write_functions(folder, {slug: answering(slug) for slug in NINE})
        assert kapso_sync("sync", "flows", environment=environment).code == 0
    broken = "async function handler(request, env) {\n  return new Response('oops'\n}\n"
    write_functions(folder, {slug: answering("better") if slug != "function-six" else broken for slug in NINE})
    ran = kapso_sync("sync", "flows", environment=environment, terminal=True, width=80)
    shown = kapso_sync("sync", "flows", environment={**environment, "NO_COLOR": "1"}, terminal=True, width=80).out
    assert ran.code == 1
    for screen in (plain(ran.out), shown):
        lines = screen.splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80
        assert lines[-1] == "next: fix `function-six` in git, then run `kapso-sync sync flows`"
    assert all(slug in plain(ran.out) for slug in NINE)
    write_functions(folder, {slug: answering("better") for slug in NINE})
    assert kapso_sync("sync", "flows", environment=environment).code == 0


def plain(text: str) -> str:
    """A text without its colours."""
    from rich.text import Text

    return Text.from_ansi(text).plain


def test_the_next_command_has_the_flags_of_this_one(kapso: Served, folder: Path, environment: Environment) -> None:
    """Otherwise it would do something else."""
    kapso.faults({"what": "status", "status": 422, "method": "POST", "route": "/functions", "slug": "greet"})
    state = f"{folder.parent}/my state"
    ran = kapso_sync(
        *("sync", str(folder), "--state-dir", state, "--no-prune", "--only", "greet", "--log-level", "off"),
        environment=environment,
    )
    command = f"kapso-sync sync --only greet {folder} --state-dir '{state}' --no-prune"
    assert ran.out.splitlines()[-1].endswith(f"then run `{command}`")
    kapso.faults()
    assert kapso_sync(*shlex.split(command)[1:], environment=environment).out.startswith("+ greet  created, live\n")


def test_the_command_after_a_plan_does_what_the_plan_shows(kapso: Served, folder: Path, environment: Environment) -> None:
    """With the options for one pass, such as the deletions that a person named."""
    owned = {**environment, "KAPSO_SYNC_OWNER": "acme/flows"}
    kapso_sync("sync", str(folder), environment=owned)
    write_functions(folder, {"greet": answering("hello")})
    planned = kapso_sync("plan", str(folder), "--delete", "part", environment=owned).out.splitlines()[-1]
    command = f"kapso-sync sync --delete part {folder}"
    assert planned == f"next: `{command}` does this"
    assert kapso_sync(*shlex.split(command)[1:], environment=owned).out.startswith("- part  deleted\n")


@pytest.mark.parametrize("width", [40, 200])
def test_screens_of_any_width_show_the_same_words(folder: Path, environment: Environment, width: int) -> None:
    """Only their lines break elsewhere."""
    setting = {**environment, "NO_COLOR": "1", "TERM": "dumb"}
    piped = kapso_sync("plan", str(folder), environment=environment).out
    shown = kapso_sync("plan", str(folder), environment=setting, terminal=True, width=width).out
    assert shown.split() == piped.split()
    assert (len(shown.splitlines()) > len(piped.splitlines())) is (width == 40)


def test_a_long_word_is_wrapped_in_no_time() -> None:
    """Foreign text may be one word of a megabyte; what stands in backquotes is still kept whole."""
    terminal = Terminal()
    started = time.process_time()
    Console(terminal, {"COLUMNS": "40"}).line("x" * 500_000, " and `kapso-sync plan --branch main` for --x=`a b`, then")
    assert time.process_time() - started < 5
    assert "`kapso-sync plan --branch main`" in terminal.getvalue().replace("\n", "|")
    assert "--x=`a b`," in terminal.getvalue()
