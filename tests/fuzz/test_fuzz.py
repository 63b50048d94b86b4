"""Every input that ever failed keeps every promise now, and so do a few new ones."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.fuzz.answering import answering
from tests.fuzz.archive import pack, unpack
from tests.fuzz.engine import inputs
from tests.fuzz.promises import CANARY, FORGED, BrokenPromise, Hang, bounded, check_no_canary, check_printed
from tests.fuzz.target import CORPUS, Target
from tests.fuzz.targets import TARGETS, http

pytestmark = pytest.mark.e2e

SECONDS = 60.0
"""Seconds of the clock that an input may take on a busy machine; its CPU time is limited by the target."""

NEW = 2
"""New inputs for each target; `make fuzz` tries more."""

KEPT = [pytest.param(target, path, id=f"{name}-{path.name}") for name, target in TARGETS.items() for path in target.corpus]


@pytest.mark.parametrize(("target", "path"), KEPT)
def test_an_input_that_once_failed_keeps_every_promise(target: Target, path: Path) -> None:
    """No traceback, no hang, bounded memory, nothing from outside, no control character: for each file of the corpus."""
    with bounded(target.cpu, SECONDS):
        target.run(path.read_bytes())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_new_inputs_keep_every_promise(target: Target) -> None:
    """The grammar's inputs, the same ones at every run of the suite; their number is small, since the suite is fast."""
    for data in itertools.islice(inputs(target, seed=1), len(target.corpus), len(target.corpus) + NEW):
        with bounded(target.cpu, SECONDS):
            target.run(data)


def test_the_corpus_has_inputs_for_every_target_and_for_no_other() -> None:
    """A renamed target would leave its regression inputs behind."""
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(target.corpus for target in TARGETS.values())


@pytest.mark.parametrize(
    "text",
    [
        f"quotes {CANARY}\n",
        f"a line\n{FORGED}\n",
        "red \x1b[31m\n",
        "back \u202e\n",
        "two \u2028 lines\n",
        "c1 \x9b\n",
        "half \ud800\n",
    ],
)
def test_a_broken_promise_is_noticed(text: str) -> None:
    """The positive control of every target that prints."""
    with pytest.raises(BrokenPromise):
        check_printed(text)


def test_a_text_that_keeps_its_promises_passes() -> None:
    """Letters of any script, tabs, and lines of our own."""
    check_printed(f"ñ 🦊\tx\n said: {FORGED}\n", lines=2)
    check_no_canary("nothing")


@pytest.mark.parametrize(
    ("request_", "answer", "changed"),
    [
        (b"POST /api/resume HTTP/1.1", b"", True),
        (b"GET /api/status HTTP/1.1", b"HTTP/1.1 200 OK\r\nX-Content-Type-Options: nosniff\r\n\r\n", False),
        (b"GET /healthz HTTP/1.1", b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"GET /healthz HTTP/1.1", b"HTTP/1.1 500 X\r\nX-Content-Type-Options: nosniff\r\n\r\n", False),
    ],
)
def test_a_server_that_lets_strangers_in_or_fails_is_noticed(request_: bytes, answer: bytes, changed: bool) -> None:
    """The positive control of the target `http`."""
    with pytest.raises(BrokenPromise):
        http.check(request_, answer, changed=changed, public=True)


async def test_a_client_that_asks_another_host_or_path_is_noticed() -> None:
    """The positive control of the targets that answer as services; the first request keeps every promise."""
    async with answering(pack({"0": b"HTTP/1.1 200 X\n\nx"})) as server, httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"{server.url}/right")
        server.check("/right")
        with pytest.raises(BrokenPromise, match="asks for"):
            server.check("/wrong")
        await client.get(server.url.replace("127.0.0.1", "localhost") + "/right")
        with pytest.raises(BrokenPromise, match="another host"):
            server.check("/right")


def test_an_input_that_hangs_or_takes_memory_is_noticed() -> None:
    """An endless loop ends at its deadline, also one that ignores every error, and 300 MB are too many."""

    def spin() -> None:
        while True:
            with contextlib.suppress(Exception):
                sum(range(1000))

    with pytest.raises(Hang), bounded(0.2, SECONDS):
        spin()
    with pytest.raises(BrokenPromise, match="MiB"), bounded(20.0, SECONDS):
        bytearray(b"x") * (600 * 1024 * 1024)


def test_an_archive_comes_back() -> None:
    """Also with odd names and contents."""
    files = {"a/b.js": b"x\n", "new\nline": b"-- not a head\n", "\udcff": b"\xff\n", "empty": b""}
    assert dict(unpack(pack(files))) == files


def fuzz(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``make fuzz`` without make, on the program and the targets in a folder."""
    command = [sys.executable, "-m", "tests.fuzz", "--target", "marks", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_a_bug_ends_a_run_with_an_error_and_its_input_can_be_replayed(tmp_path: Path) -> None:
    """In a copy of the program with a bug that few inputs meet; without the bug the replay ends well, as the control."""
    root = CORPUS.parents[2]
    for name in ("kapso_sync", "tests"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "golden", "e2e"))
    broken = tmp_path / "kapso_sync" / "model" / "ownership.py"
    sound = broken.read_text(encoding="utf-8")
    head = "def split_description("
    assert sound.count(head) == 1
    bug = "def split_description(text):\n    if '#' in text:\n        raise ZeroDivisionError\n    return _split(text)\n\n\n"
    broken.write_text(sound.replace(head, f"{bug}def _split("), encoding="utf-8")
    ran = fuzz(tmp_path, "--minutes", "0.04")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    found = re.search(r"make fuzz TARGET=marks INPUT=(\S+)", ran.stdout)
    assert found is not None
    assert "ZeroDivisionError at ownership.py" in ran.stdout
    assert (tmp_path / found[1]).is_file()
    again = fuzz(tmp_path, "--input", found[1])
    assert (again.returncode, "ZeroDivisionError" in again.stderr) == (1, True)
    broken.write_text(sound, encoding="utf-8")
    assert fuzz(tmp_path, "--input", found[1]).returncode == 0
