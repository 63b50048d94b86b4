"""No text from outside controls a terminal, makes a line of its own, or gives a command to a CI system, in any output."""

from __future__ import annotations

import ast
import io
import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import kapso_sync
from kapso_sync.cli.console import Console
from kapso_sync.cli.history import _print as print_history
from kapso_sync.cli.init import _print as print_init
from kapso_sync.cli.invoke import print_body
from kapso_sync.cli.json_documents import plan_document
from kapso_sync.cli.markdown import plan_markdown
from kapso_sync.cli.plain import print_traceback
from kapso_sync.cli.pull import OutputOptions
from kapso_sync.cli.pull import _print as print_pull
from kapso_sync.cli.render import print_plan, print_report
from kapso_sync.cli.runner import print_problems
from kapso_sync.cli.status import print_status
from kapso_sync.cli.validate import _annotations
from kapso_sync.errors import ApiRejected, Call, Location, Notice, Problem
from kapso_sync.model import events
from kapso_sync.model.plan import Blocked, BlockedBy, Invalid, Plan
from kapso_sync.model.pull import FileChange, Pulled, PullPlan, Taken
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.source import Revision
from kapso_sync.model.status import DaemonStatus, status_document
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from kapso_sync.reconcile.pull.proposal import Proposal, ProposedFunction
from kapso_sync.store.backups import Backup
from kapso_sync.telemetry.logs import LogListener, LogSettings
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.visible import json_text, visible, without_commands
from kapso_sync.wiring.source import SourceReport
from tests.builders import OWNER, POLICY, desired, memory, owned, remote, want
from tests.clock import VirtualClock

PIECES = (
    "\x1b[2J", "\x9b31m", "\r", "\n", "\n::error::forged", "::warning file=a.js::x", "  ::set-output name=a::b", "##[error]x",
    "##vso[task.complete]", "##teamcity[x]", "\u202e", "\u2066", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x00", "\x7f",
    "\t", "\ud800", "\u200b", "\ufeff", "\u00ad", "\U000e0041", "%0A", "@all", "`", "|", "a", " ", "é", "漢",
)  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.characters(), min_size=1, max_size=6).map("".join)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def plan_of(text: str) -> Plan:
    """A plan in which everything that an outsider may write is this text."""
    known = resolve_intents([remote("a", f"// {text}\n")], memory(owned(remote("a"))), OWNER)
    plan = make_plan(desired(want("a", f"let x = `{text}`;\n{text}\n", name=text)), known, POLICY)
    problem = Problem("syntax", text, Location(text, 1, 1), text, f"   1 | {visible(text)}")
    return replace(
        plan,
        source=text,
        owner=text,
        revision=Revision("c0ffee", text, text, text),
        steps=(
            *plan.steps,
            Invalid(slug=text, reasons=(text, text), file=text, problems=(problem,)),
            Blocked(by=BlockedBy.BUILD, slug=text, reasons=(text,), hint=text, wanted="update"),
        ),
        notices=(Notice(text, text, Location(text, 1, 1)),),
    )


def report_of(text: str) -> Report:
    plan = plan_of(text)
    outcomes = [
        Outcome(step, result, text, error=text, hint=text, backup=text)
        for step, result in zip(plan.steps, (Result.DONE, Result.FAILED, Result.BLOCKED), strict=True)
    ]
    return Report(plan, tuple(outcomes), halted=ApiRejected(text, call=Call("GET", "/functions"), hint=text))


def status_of(text: str) -> dict[str, object]:
    document = dict(status_document(DaemonStatus("1", NOW, NOW, text)))
    condition = {"type": "Ready", "status": False, "reason": text, "message": text, "since": None}
    function = {"slug": text, "id": text, "state": "Blocked", "conditions": [condition], "message": text, "delete_at": None}
    return {
        **document,
        "owner": text,
        "role": "standby",
        "leader": text,
        "suspended": {"since": NOW.isoformat(), "until": None, "reason": text},
        "revision": {"id": text, "subject": text, "author": text},
        "functions": [{**function, "in_git": True, "retry_at": None, "deploying_since": None, "live_since": None}],
        "unused": [text],
        "unfinished": [text],
    }


def history_of(console: Console, text: str) -> None:
    entry = {"at": "2026-01-01T00:00:00", "revision": text, "subject": text, "author": text, "described": text, "event": text}
    backup = Backup(Path("b") / "x.json", "a", "id", NOW, text, keep=False, fields={}, code="")
    failed = {**entry, "event": "deploy.failed", "slug": text, "function_id": text, "error": text, "hint": text}
    print_history(console, [entry, failed], [backup])


def pull_of(console: Console, text: str) -> None:
    changes = (FileChange(text, None, f"{text}\n".encode("utf-8", "replace")),)
    functions = tuple(Pulled(text, text, taken, (text,), (text,)) for taken in Taken)
    print_pull(console, PullPlan(changes, functions, (Notice(text, text),)), OutputOptions(dry=True, diff=False))


def init_of(console: Console, text: str) -> None:
    proposal = Proposal(None, (ProposedFunction(text, text, (text,)),), {text: text}, (text,))
    print_init(console, proposal, Path("home"), str, written=False)


def validate_of(console: Console, text: str) -> None:
    problem = Problem(text, text, Location(text, 1, 1), text, visible(text))
    print_problems(console, [problem])
    console.warning(text)


def error_of(console: Console, text: str) -> None:
    console.title(text)
    console.error(text, text)
    console.names([text])


SCREENS: dict[str, Callable[[Console, str], None]] = {
    "plan": lambda console, text: print_plan(console, plan_of(text)),
    "sync": lambda console, text: print_report(console, report_of(text)),
    "status": lambda console, text: print_status(console, status_of(text), Path("state")),
    "history": history_of,
    "pull": pull_of,
    "init": init_of,
    "validate": validate_of,
    "errors": error_of,
    "markdown": lambda console, text: console.markdown(plan_markdown(plan_of(text))),
}


def shown(screen: Callable[[Console, str], None], text: str) -> str:
    stream = io.StringIO()
    screen(Console(stream, {}), text)
    return stream.getvalue()


def hostile_in(output: str) -> list[str]:
    """What a terminal or a CI system would heed in an output."""
    found = [repr(char) for char in output if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")]
    return found + [line for line in output.split("\n") if line.strip().startswith("::") or "##[" in line or "##vso[" in line]


def lines_of_code(text: str) -> int:
    """How many lines the code of `plan_of` has more than that of a plain text; a diff shows each."""
    return text.count("\n")


@pytest.mark.parametrize("name", SCREENS)
@settings(max_examples=30, deadline=None)
@given(text=texts)
@example(text="\n::error::forged")
@example(text="::error::forged")
@example(text="\u202e\x1b[31m##[error]\x85\u2028\ud800\x7f\t")
def test_no_text_from_outside_is_heeded_in_any_screen(name: str, text: str) -> None:
    """No control character, no direction mark, no command, whatever it is the name of."""
    assert hostile_in(shown(SCREENS[name], text)) == []


@pytest.mark.parametrize("name", [name for name in SCREENS if name not in ("plan", "sync", "markdown")])
@settings(max_examples=20, deadline=None)
@given(text=texts)
@example(text="a\nb\u2028c\rd\x85e\x0bf")
def test_no_text_from_outside_makes_a_line_of_its_own(name: str, text: str) -> None:
    """As many lines as with a plain text; the screens with code show each of its lines, and are tried with one-line code."""
    assert shown(SCREENS[name], text).count("\n") == shown(SCREENS[name], "plain").count("\n")


@pytest.mark.parametrize("name", ["plan", "sync", "markdown"])
def test_a_plan_has_no_more_lines_than_its_code(name: str) -> None:
    """A line break of code is one line of a diff, and no other break is."""
    plain = shown(SCREENS[name], "plain").count("\n")
    assert shown(SCREENS[name], "a\u2028b\rc\x85d\x0be").count("\n") == plain


def test_the_rules_find_what_is_hostile() -> None:
    """The positive control: the same texts, printed as they are."""
    for text in PIECES[:24]:
        assert hostile_in(f"{text}\n::error::x") != [], ascii(text)
    for text in (
        "\x1b[2J",
        "\x9b31m",
        "\u202e",
        "\u2028",
        "\ud800",
        "\x7f",
        "\t",
        "::error::x",
        "a\n  ::error::x",
        "##[error]",
    ):
        assert hostile_in(text) != [], ascii(text)
    assert hostile_in("a plain line\n## A title\na::b") == []


@settings(max_examples=60, deadline=None)
@given(texts)
@example("a\n::error::forged,title=x")
def test_an_annotation_is_one_command_of_ours(text: str) -> None:
    """GitHub reads file, title and message out of it; none of them can end it or begin another."""
    report = SourceReport(None, (Problem(text, text, Location(text, 3, 4), text),), (Notice(text, text),), "functions")
    lines = list(_annotations(report))
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::warning"]
    for line in lines:
        assert "\n" not in line
        assert "\r" not in line
        properties, _, _ = line.partition(" ")[2].partition("::")
        assert all("=" in pair for pair in properties.split(","))
        assert [char for char in line if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")] == []


@pytest.mark.parametrize("form", ["json", "console"])
@settings(max_examples=40, deadline=None)
@given(text=texts)
@example(text="\n::error::##[error]\x7f")
def test_a_log_line_is_one_line_that_nothing_heeds(form: str, text: str) -> None:
    """In both forms, whatever field the text is in; JSON keeps its value."""
    stream = io.StringIO()
    listener = LogListener(LogSettings("debug", form), stream, VirtualClock(), Redactor())  # type: ignore[arg-type]
    listener(events.FunctionFailed(slug=text, function_id=text, error=text, error_type=text, hint=text))
    listener(events.PruneBlocked(slugs=(text, text), reason=text, hint=text))
    assert hostile_in(stream.getvalue()) == []
    assert stream.getvalue().count("\n") == 2
    if form == "json":
        assert json.loads(stream.getvalue().split("\n")[0])["slug"].encode("utf-8", "surrogatepass")


@settings(max_examples=60, deadline=None)
@given(texts)
@example("##[error]\x7f")
def test_a_json_document_has_the_same_values_and_nothing_to_heed(text: str) -> None:
    """JSON escapes what a terminal heeds, and what it leaves is escaped as well."""
    written = json_text({"text": text, "plan": plan_document(plan_of(text))})
    assert hostile_in(written) == []
    assert json.loads(written)["text"] == text


def test_a_line_that_begins_with_two_colons_is_spelled_otherwise() -> None:
    """Also behind spaces, which GitHub's runner drops; elsewhere two colons mean nothing, and stay."""
    assert without_commands("  ::error::x") == "  \\x3a:error::x"
    assert without_commands("a ::before { }") == "a ::before { }"
    assert without_commands("see ##[error]x") == "see #\\x23[error]x"


def writes_in(source: str) -> Iterator[str]:
    """Calls that write to the streams of the process: print, click's echo, and a stream's own methods."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("print", "click.echo", "click.secho", "pprint.pprint", "rich.print") or called.startswith(
            ("sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer", "sys.stderr.buffer", "sys.__std", "os.write")
        ):
            yield f"{node.lineno}: {called}"


BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=12,
)


def printed_body(text: str) -> str:
    """What ``invoke`` prints of an answer into a pipe."""
    stream = io.StringIO()
    print_body(text, Console(stream, {}))
    return stream.getvalue()


@given(BODIES, st.booleans(), st.sampled_from([None, 2, "\t"]), st.sampled_from(["", "\r\n", "\t "]))
def test_json_that_a_function_answers_reaches_a_pipe_with_the_same_values_and_no_control_character(
    value: object, ascii_only: bool, indent: int | str | None, around: str
) -> None:
    """So that jq reads it, and a terminal behind the pipe is not controlled."""
    text = around + json.dumps(value, ensure_ascii=ascii_only, indent=indent) + around
    shown = printed_body(text)
    assert json.loads(shown) == json.loads(text)
    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert shown.count("\n") == text.count("\n") + 1


def test_json_of_a_function_is_printed_as_it_is_written() -> None:
    """Numbers, the order of keys, and letters of all languages stay; what controls a terminal or a CI system is escaped."""
    text = '{"b": 1.50, "a": 12345678901234567890, "é": "\u202e\x7f\x9b\U000e0041 ##vso[x] ::error::"}'
    assert printed_body(text) == (
        '{"b": 1.50, "a": 12345678901234567890, "é": "\\u202e\\u007f\\u009b\\udb40\\udc41 #\\u0023vso[x] ::error::"}\n'
    )


@given(st.text())
def test_text_that_a_function_answers_is_spelled_out_in_a_pipe(text: str) -> None:
    """Line by line; with ``--json`` it is whole, as one text."""
    shown = printed_body(text)
    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert not any(line.lstrip().startswith("::") or "##[" in line for line in shown.split("\n"))


ALLOWED = {"cli/console.py", "cli/plain.py"}
HELP = {"cli/app.py": {"click.echo"}, "build/inspection.py": {"sys.stdout.buffer.write"}}
"""The help is made of our own texts alone; the process that inspects a file answers to its parent."""


def test_nothing_but_the_console_writes_to_the_streams() -> None:
    """Every text goes through one place that makes it safe."""
    root = Path(kapso_sync.__file__).parent
    found = [
        f"{name}:{write}"
        for path in sorted(root.rglob("*.py"))
        if (name := path.relative_to(root).as_posix()) not in ALLOWED
        for write in writes_in(path.read_text(encoding="utf-8"))
        if write.partition(": ")[2] not in HELP.get(name, set())
    ]
    assert found == []


def test_a_write_to_the_streams_is_found() -> None:
    """The positive control of the search."""
    assert [*writes_in("import sys\nprint('a')\nsys.stdout.write('b')\nclick.echo('c')\nsys.stderr.buffer.write(b'd')\n")] == [
        "2: print",
        "3: sys.stdout.write",
        "4: click.echo",
        "5: sys.stderr.buffer.write",
    ]


def test_a_traceback_obeys_no_foreign_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake of ours may quote anything; the lines of the traceback stay."""
    with pytest.raises(ValueError, match="forged") as raised:
        _fail()
    print_traceback(raised.type, raised.value, raised.tb)
    shown = capsys.readouterr().err
    assert hostile_in(shown) == []
    assert "test_a_traceback_obeys_no_foreign_text" in shown
    assert "forged" in shown


def _fail() -> None:
    raise ValueError("a\x1b[2J\n::error::forged\n##[error]\ud800")
