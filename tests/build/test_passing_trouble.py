"""Trouble with the machine, and not with the code: such a function is blocked, and built as soon as the trouble is over."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kapso_sync.tools import ToolPlaces
from tests.build.workbench import ESBUILD, Texts, Workbench, needs_esbuild

pytestmark = needs_esbuild

TYPED = {"greet.ts": "export default { async fetch(): Promise<Response> { return new Response('x') } };\n"}
KILLED = "kill -9 $$"
TROUBLES = {
    "killed": (KILLED, "esbuild was killed: did the memory run out?"),
    "silent": ("exit 1", "esbuild ended with an error and said nothing"),
    "full disk": (
        "echo '✘ [ERROR] Failed to write to output file: no space left on device' >&2; exit 1",
        "Failed to write to output file: no space left on device",
    ),
}


class Troubled:
    """A builder whose esbuild fails while ``trouble`` is a file."""

    def __init__(self, folder: Path, failing: str, *, with_version: bool = False) -> None:
        self.trouble = folder / "trouble"
        script, real = folder / "esbuild", f'exec {ESBUILD} "$@"'
        version = "" if with_version else f'if [ "$1" = --version ]; then {real}; fi\n'
        script.write_text(f"#!/bin/sh\n{version}if [ -e {self.trouble} ]; then {failing}; fi\n{real}\n", encoding="utf-8")
        script.chmod(0o755)
        self._bench = Workbench(places=ToolPlaces(script, (), []))

    def build(self, texts: Texts, *, trouble: bool = False) -> tuple[bool, list[tuple[str, str | None]], bool]:
        """Whether the one entry is usable; else its problems with their hints, and whether it is blocked."""
        self.trouble.touch() if trouble else self.trouble.unlink(missing_ok=True)
        made = self._bench.build(texts, next(iter(texts)))
        problems = [(problem.message, problem.hint) for unusable in made.unusable for problem in unusable.problems]
        return bool(made.functions), problems, any(unusable.blocked for unusable in made.unusable)


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_build_that_failed_for_want_of_memory_or_space_is_tried_again(tmp_path: Path, kind: str) -> None:
    """The change would never be deployed otherwise: its content is the same in the next pass."""
    failing, text = TROUBLES[kind]
    troubled = Troubled(tmp_path, failing)
    usable, problems, blocked = troubled.build(TYPED, trouble=True)
    assert (usable, blocked) == (False, True)
    assert text in problems[0][0]
    assert str(problems[0][1]).endswith("the next pass tries again")
    assert troubled.build(TYPED) == (True, [], False)


def test_code_that_esbuild_refuses_is_not_built_again(tmp_path: Path) -> None:
    """The control: a mistake in the code is remembered, so the trouble is not even met."""
    troubled = Troubled(tmp_path, KILLED)
    broken = {
        "greet.ts": "import { absent } from './lib';\nexport default () => new Response(absent());\n",
        "lib.ts": "export {};\n",
    }
    refused = troubled.build(broken)
    assert refused[0] is False
    assert refused[2] is False
    assert troubled.build(broken, trouble=True) == refused


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_plain_file_is_parsed_by_esbuild_once_that_is_possible(tmp_path: Path, kind: str) -> None:
    """Meanwhile it counts as it does without esbuild; a mistake that esbuild alone sees must not go up for ever."""
    troubled = Troubled(tmp_path, TROUBLES[kind][0])
    twice = {"greet.js": "async function handler() { let a = 1; let a = 2; return new Response('x') }\n"}
    assert troubled.build(twice, trouble=True)[0]
    assert troubled.build(twice)[:2] == (False, [('syntax error: The symbol "a" has already been declared', None)])


@pytest.mark.parametrize("kind", TROUBLES)
def test_new_syntax_is_understood_once_esbuild_can_be_asked(tmp_path: Path, kind: str) -> None:
    """Our own parser takes it for a syntax error."""
    troubled = Troubled(tmp_path, TROUBLES[kind][0])
    new = {"greet.js": "class A { accessor x = 1 }\nexport default { async fetch() { return new Response(new A().x) } };\n"}
    assert not troubled.build(new, trouble=True)[0]
    assert troubled.build(new) == (True, [], False)


def test_an_esbuild_that_could_not_say_its_version_is_asked_again(tmp_path: Path) -> None:
    """It was killed, and is the right one."""
    troubled = Troubled(tmp_path, KILLED, with_version=True)
    usable, problems, blocked = troubled.build(TYPED, trouble=True)
    assert (usable, blocked) == (False, True)
    assert "does not run" in problems[0][0]
    assert troubled.build(TYPED) == (True, [], False)


def test_temporary_files_that_cannot_be_written_block_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is to blame: neither the code nor kapso-sync has a mistake."""
    troubled = Troubled(tmp_path, KILLED)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    usable, problems, blocked = troubled.build(TYPED)
    assert (usable, blocked) == (False, True)
    text, hint = problems[0]
    assert text.startswith(
        f"it is TypeScript: esbuild cannot be run here and now: No such file or directory at {tmp_path}/absent/"
    )
    assert hint == "is the disk of temporary files full? the next pass tries again"
    plain = {"greet.js": "async function handler() { return new Response('x') }\n"}
    assert troubled.build(plain)[0]
    monkeypatch.undo()
    assert troubled.build(TYPED) == (True, [], False)


def test_a_result_that_could_not_be_written_whole_blocks_a_function(tmp_path: Path) -> None:
    """Esbuild does not say that of its metafile."""
    cut = f'{ESBUILD} "$@"; for word; do case $word in --metafile=*) : > "${{word#--metafile=}}";; esac; done; exit 0'
    troubled = Troubled(tmp_path, cut)
    usable, problems, blocked = troubled.build(TYPED, trouble=True)
    assert (usable, blocked) == (False, True)
    assert "esbuild's metafile is cut off" in problems[0][0]
    assert troubled.build(TYPED) == (True, [], False)


CRASHES = """echo "$@" >> {log}
for word; do
  case $word in -*) continue;; esac
  if grep -qs -e CRASH -e ../bad.ts "$word"; then echo "fatal error: stack overflow" >&2; exit 2; fi
done"""
"""As some code makes esbuild end, whatever else is in the run: an entry's wrapper names the file."""


def crashing(folder: Path) -> tuple[Workbench, Callable[[], int]]:
    """A builder whose esbuild crashes over some code, and how often it was run."""
    log, script = folder / "runs.log", folder / "esbuild"
    lines = f'if [ "$1" = --version ]; then exec {ESBUILD} --version; fi\n{CRASHES.format(log=log)}\nexec {ESBUILD} "$@"\n'
    script.write_text(f"#!/bin/sh\n{lines}", encoding="utf-8")
    script.chmod(0o755)
    return Workbench(places=ToolPlaces(script, (), [])), lambda: len(log.read_text(encoding="utf-8").splitlines())


def test_code_that_crashes_esbuild_is_invalid_and_stops_no_other(tmp_path: Path) -> None:
    """It would crash esbuild in each pass, so it is not tried again."""
    bench, runs = crashing(tmp_path)
    texts = {"bad.ts": f"{TYPED['greet.ts']}// CRASH\n", **{f"good{n}.ts": TYPED["greet.ts"] for n in range(5)}}
    made = bench.build(texts, *texts)
    assert [unusable.slug for unusable in made.unusable] == ["bad"]
    assert not made.unusable[0].blocked
    before = runs()
    assert bench.build(texts, *texts) == made
    assert runs() == before


def test_a_plain_file_that_crashes_esbuild_does_not_keep_others_from_being_parsed(tmp_path: Path) -> None:
    """Nothing is known of it then, and it counts as it does without esbuild; it is not tried again either."""
    bench, runs = crashing(tmp_path)
    plain = "async function handler() { return new Response('x') }\n"
    texts = {f"good{n}.js": plain for n in range(5)}
    texts |= {"bad.js": f"{plain}// CRASH\n", "twice.js": plain.replace("{ return", "{ let a; let a; return")}
    made = bench.build(texts, *texts)
    assert [unusable.slug for unusable in made.unusable] == ["twice"]
    before = runs()
    assert bench.build(texts, *texts) == made
    assert runs() == before


def test_a_mistake_in_a_file_of_an_odd_name_is_a_mistake(tmp_path: Path) -> None:
    """Esbuild prints the name between blanks, and a name may begin with one."""
    troubled = Troubled(tmp_path, KILLED)
    usable, _, blocked = troubled.build({" a.ts": "export default () => {{\n"})
    assert (usable, blocked) == (False, False)


LARGE = {"greet.js": f"async function handler() {{ return new Response('{'x' * 70_000}') }}\n"}
"""A file of this size is looked at in a process of its own."""


@pytest.mark.parametrize("kind", ["killed", "full disk"])
def test_a_large_file_that_could_not_be_looked_at_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It would be invalid as long as the daemon lives, with a hint to split it."""
    flag, script = tmp_path / "killed", tmp_path / "python"
    script.write_text(f'#!/bin/sh\nif [ -e {flag} ]; then kill -9 $$; fi\nexec {sys.executable} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    bench = Workbench()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(script))
        if kind == "killed":
            flag.touch()
        else:
            patched.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
        (unusable,) = bench.build(LARGE, "greet.js").unusable
        assert unusable.blocked
        assert unusable.problems[0].message.startswith("the file cannot be read here and now: ")
        assert unusable.problems[0].code == "not-read"
        assert unusable.problems[0].hint == "the next pass tries again"
    assert bench.build(LARGE, "greet.js").functions
