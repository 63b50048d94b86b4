"""The process's own streams: encodings that lack characters, disks that are full, readers that have gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from kapso_sync.cli.app import app
from tests.program import answering, write_functions
from tests.served import served

Environment = dict[str, str]
WORDS = "Grüße 日本 ✓"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder whose functions are on Kapso, one without a manifest beside it, and the variables for both."""

    folder: Path
    environment: Environment

    def change(self, text: str) -> None:
        """Let git say other code, so that a plan has a diff."""
        (self.folder / "greet.js").write_text(answering(text), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Names and code that no ASCII terminal can show, synced once."""
    top = tmp_path_factory.mktemp("output")
    write_functions(top / "functions", {"greet": answering(WORDS)}, extra=f"    name: {WORDS}\n    description: {WORDS}\n")
    (top / "bare").mkdir()
    (top / "bare" / "other.js").write_text(answering("other"), encoding="utf-8")
    with served() as kapso:
        made = Place(top / "functions", kapso.environment(top / "state"))
        assert run("sync", str(made.folder), environment=made.environment).returncode == 0
        yield made


def run(*arguments: str, environment: Mapping[str, str], stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    """Run the program as a process of its own, where no terminal is."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KAPSO_", "PYTHON", "LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, "-m", "kapso_sync", *arguments],
        env={**clean, **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )


COMMANDS = {
    "demo": (),
    "dev": ("greet", "--source", "FOLDER"),
    "disown": ("FOLDER",),
    "doctor": (),
    "emulator": ("--port", "0"),
    "help": (),
    "history": ("greet", "FOLDER"),
    "init": ("EMPTY",),
    "invoke": ("greet",),
    "logs": ("greet", "FOLDER"),
    "plan": ("FOLDER",),
    "pull": ("FOLDER",),
    "schema": (),
    "status": ("FOLDER",),
    "sync": ("FOLDER",),
    "validate": ("FOLDER",),
    "test": ("FOLDER",),
    "version": (),
}
"""Commands that print a report on stdout, with arguments that work after a sync."""

SILENT = {"run", "reconcile", "suspend", "resume", "restore"}
"""The daemon logs on stderr, and the others need a daemon or a backup: they print through the same console."""


def arguments_of(command: str, folder: Path) -> tuple[str, ...]:
    """The command line, with the folder's path."""
    places = {"FOLDER": str(folder), "EMPTY": str(folder.with_name("bare"))}
    return (command, *(places.get(word, word) for word in COMMANDS[command]))


def cases() -> list[tuple[str, ...]]:
    """Every command, and every one that has --json once more with it."""
    with_json = [name for name in COMMANDS if any("--json" in parameter.opts for parameter in app.commands[name].params)]
    return [*((name,) for name in COMMANDS), *((name, "--json") for name in with_json)]


def test_every_command_is_tried() -> None:
    """A new command belongs to one of the lists."""
    assert COMMANDS.keys() | SILENT == set(app.commands)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("case", cases(), ids=" ".join)
def test_output_that_cannot_be_written_is_one_line_and_exit_74(case: tuple[str, ...], place: Place) -> None:
    """A full disk behind a redirection: no traceback, and no success."""
    command, *options = case
    with Path("/dev/full").open("wb") as full:
        ran = run(*arguments_of(command, place.folder), *options, environment=place.environment, stdout=full.fileno())
    said = [line for line in ran.stderr.decode().splitlines() if not line.startswith("{")]
    assert ran.returncode == 74, said
    assert said[-1] == "error: standard output cannot be written: No space left on device"
    assert "Traceback" not in "".join(said)
    assert "Exception ignored" not in "".join(said)


@pytest.mark.parametrize(
    "case", [("plan",), ("plan", "--json"), ("sync",), ("status",), ("schema",), ("help",), ("version",)], ids=" ".join
)
def test_a_reader_that_has_gone_is_told_nothing(case: tuple[str, ...], place: Place) -> None:
    """As in `kapso-sync plan | head -1`."""
    command, *options = case
    read, write = os.pipe()
    os.close(read)
    try:
        ran = run(*arguments_of(command, place.folder), *options, environment=place.environment, stdout=write)
    finally:
        os.close(write)
    assert ran.returncode == 74
    assert not [line for line in ran.stderr.decode().splitlines() if not line.startswith("{")]


def test_closed_streams_are_no_traceback_and_leave_the_journal_alone(place: Place) -> None:
    """`>&-` frees the number 1, which the next file that is opened would get: here, the state database."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")}
    shell = f"exec {sys.executable} -m kapso_sync sync {place.folder}"
    for closed, code in ((">&-", 74), ("2>&-", 0), (">&- 2>&- <&-", 74)):
        ran = subprocess.run(
            ["/bin/sh", "-c", f"{shell} {closed}"],
            env={**clean, **place.environment},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == code, (closed, ran.stderr)
        assert b"Traceback" not in ran.stderr
    status = run("status", str(place.folder), environment=place.environment)
    assert status.returncode == 0
    assert b"exit code 0" in status.stdout


LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, strict": {"PYTHONIOENCODING": "ascii:strict"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
CHANGED = [
    ("plan",),
    ("plan", "--format", "markdown"),
    ("status",),
    ("history",),
    ("doctor",),
    ("validate",),
    ("pull", "--diff"),
]


@pytest.mark.parametrize(
    ("case", "locale"),
    [*((case, "C") for case in CHANGED), *((("plan",), other) for other in LOCALES)],
    ids=str,
)
def test_what_an_encoding_cannot_show_is_replaced(case: tuple[str, ...], locale: str, place: Place) -> None:
    """Nothing is raised, in reports, diffs and logs alike, and the rest of each line is there."""
    command, *options = case
    place.change(f"{WORDS} again")
    ran = run(*arguments_of(command, place.folder), *options, environment={**place.environment, **LOCALES[locale]})
    assert ran.returncode in (0, 1), ran.stderr
    assert b"Traceback" not in ran.stderr
    assert b"Unicode" not in ran.stderr
    assert ran.stdout
    if command == "plan":
        lines = ran.stdout.decode("latin-1" if locale == "Latin-1" else "ascii").splitlines()
        word = "Grüße" if locale == "Latin-1" else "Gr??e"
        assert any(line.strip() == f"+  return new Response('{word} ?? + again');" for line in lines) or "--format" in options


def test_signs_of_ours_have_a_plain_form(place: Place) -> None:
    """A check mark and a cross must not become the same question mark."""
    doctor = run("doctor", environment={**place.environment, **LOCALES["ascii"]})
    assert {line[:2] for line in doctor.stdout.splitlines() if line} & {b"+ ", b"x "}
    place.change(f"{WORDS} again")
    shown = run("plan", str(place.folder), environment={**place.environment, "PYTHONIOENCODING": "utf-8"})
    assert f"+  return new Response('{WORDS} again');".encode() in shown.stdout


def test_a_folder_whose_name_is_not_utf8_is_synced_and_shown(place: Place, tmp_path: Path) -> None:
    """A name that Latin-1 once wrote: it has an owner and a state folder, and is spelled out where it is shown."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/fl\xf6ws"))
    write_functions(folder, {"odd": answering("odd")})
    environment = {**place.environment, "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state")}
    for command in ("validate", "plan", "sync", "status"):
        for options in ((), ("--json",)):
            ran = run(command, str(folder), *options, environment=environment)
            assert ran.returncode == 0, ran.stderr
            assert b"Traceback" not in ran.stderr
    assert b"fl\\udcf6ws" in run("status", str(folder), environment=environment).stdout
