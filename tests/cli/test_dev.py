"""``kapso-sync dev``: save a file, see the answer."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from kapso_sync.cli.workerd import find_workerd
from tests.proc import family, tcp_ports, unix_sockets
from tests.program import git, kapso_sync, started, write_functions

needs_workerd = pytest.mark.skipif(find_workerd() is None, reason="needs workerd: npm ci")

ECHO = "async function handler(request, env) {\n  return Response.json({got: await request.json(), rate: env.RATE});\n}\n"


class Screen:
    """What the program prints, as it comes; times and folders made equal."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, last: str) -> str:
        """Return what was printed up to a line that ends so."""
        shown = ""
        deadline = time.monotonic() + 20
        while not shown.endswith(f"{last}\n"):
            shown += self._lines.get(timeout=max(deadline - time.monotonic(), 0.01))
        return shown

    def rest(self) -> str:
        """Return what was printed since, to the end."""
        self._process.wait(20)
        time.sleep(0.1)
        return "".join(self._lines.queue)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            shown = re.sub(r"\b\d+ ms", "N ms", line).replace(str(self._folder), "FOLDER")
            self._lines.put(re.sub(r"workerd \d{4}-\d\d-\d\d", "workerd DATE", shown))


@contextlib.contextmanager
def developing(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Screen]:
    """Run ``dev`` on a folder; it ends with 0 at Ctrl-C, and quietly."""
    with started("dev", "--source", str(folder), *arguments, environment={**(environment or {})}) as process:
        screen = Screen(process, folder)
        yield screen
        process.send_signal(signal.SIGINT)
        assert (process.wait(20), screen.rest()) == (0, "")
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.e2e
@needs_workerd
def test_dev_runs_saved_functions_and_prints_the_response(tmp_path: Path) -> None:
    """At first all functions run; then those that a save changed, with their secrets, until Ctrl-C."""
    folder = tmp_path / "functions"
    write_functions(folder, {"greet": ECHO, "other": "const handler = () => new Response('other');\n"})
    secrets = '    secrets: {RATE: {value: "0.19"}, TOKEN: {env: TOKEN}, KEY: {env: KEY}, CERT: {file: cert}}\n'
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("greet.js\n", f"greet.js\n{secrets}"))
    given = {"TOKEN": "abc", "KAPSO_SYNC_SECRET_ENV": "TOKEN", "KAPSO_SYNC_SECRETS_DIR": "SECRETS"}
    with developing(folder, "--data", '{"a": 1}', environment=given) as screen:
        assert screen.until("  other") == snapshot(
            """\
Functions of FOLDER on workerd DATE. Save a file to run them again; Ctrl-C ends.

warning: env.KEY is not set: it needs the variable KEY, which is not set; put it into an --env-file, or set it where kapso-sync runs, with KAPSO_SYNC_SECRET_ENV=TOKEN,KEY

warning: env.CERT is not set: it needs cert below SECRETS: No such file or directory; mount it there; KAPSO_SYNC_SECRETS_DIR names the folder

greet  200  application/json  N ms
  {
    "got": {
      "a": 1
    },
    "rate": "0.19"
  }

other  200  text/plain  N ms
  other
"""  # noqa: E501 - as it is printed
        )
        (folder / "greet.js").write_text("function handler(request, env) {\n  console.log('in');\n  return env.TOKEN.x.y;\n}\n")
        assert screen.until("  }") == snapshot(
            """\

greet  500  application/json  N ms
  log   in
  error TypeError: Cannot read properties of undefined (reading 'y')
            at handler (greet.js:3:22)
     1 | function handler(request, env) {
     2 |   console.log('in');
     3 |   return env.TOKEN.x.y;
                              ^
  {
    "error": "TypeError: Cannot read properties of undefined (reading 'y')"
  }
"""
        )
        (folder / "greet.js").write_text("function handler(request, env) {\n  return (;\n}\n")
        assert screen.until("^") == snapshot(
            """\

error: greet.js:2:11: syntax error: Unexpected ";"
     1 | function handler(request, env) {
     2 |   return (;
                   ^
"""
        )
        (folder / "greet.js").write_text("throw new Error('not yet');\nfunction handler() {}\n")
        assert screen.until("^") == snapshot(
            """\

greet  does not start
  Uncaught Error: not yet
    at greet.js:1:7
     1 | throw new Error('not yet');
               ^
"""
        )
        (folder / "greet.js").write_text(ECHO)
        assert "greet  200" in screen.until("  }")


@pytest.mark.e2e
@needs_workerd
def test_dev_runs_a_single_function_at_every_save(tmp_path: Path) -> None:
    """The request is read from a file, which may change too; other functions do not run, and KV keeps its values."""
    folder = tmp_path / "functions"
    count = """async function handler(request, {KV}) {
      const n = Number(await KV.get('n')) + 1;
      await KV.put('n', String(n));
      return new Response(`${n}: ${(await request.json()).name}`);
    }"""
    write_functions(folder, {"count": count, "other": "function handler( {"})
    data = folder / "request.json"
    data.write_text('{"name": "Ada"}')
    with developing(folder, "count", "--data", f"@{data}") as screen:
        screen.until("  1: Ada")
        data.write_text('{"name": "Bob"}')
        screen.until("  2: Bob")
        (folder / "count.js").write_text(f"// Saved.\n{count}")
        screen.until("  3: Bob")
        (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n  count: {flie: x}\n")
        assert "error: manifest.yaml:3:" in screen.until("?")
        (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n  other:\n    file: other.js\n")
        screen.until("error: there is no function `count` in the source")


@pytest.mark.e2e
@needs_workerd
@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="needs Linux's /proc")
def test_dev_listens_where_no_other_user_can_call_it(tmp_path: Path) -> None:
    """It has real secrets: sockets in folders of our own, no port, no abstract name. A control: the emulator has a port."""
    folder = tmp_path / "functions"
    write_functions(folder, {"greet": "const handler = () => new Response('here');\n"})
    with started("dev", "--source", str(folder), environment={}) as process:
        Screen(process, folder).until("  here")
        everything = family(process.pid)
        assert len(everything) > 3, "workerd runs"
        assert tcp_ports(everything) == set()
        sockets = [Path(name) for name in unix_sockets(everything)]
        assert len(sockets) >= 3
        for path in sockets:
            found = path.parent.stat()
            assert (path.is_absolute(), found.st_uid, stat.S_IMODE(found.st_mode)) == (True, os.geteuid(), 0o700)
    with started("emulator", "--port", "0", environment={}) as process:
        assert process.stdout is not None
        address = process.stdout.readline()
        (port,) = tcp_ports(family(process.pid))
        assert f":{port}." in address


@pytest.mark.e2e
@needs_workerd
def test_ctrl_c_ends_dev_while_a_function_loops(tmp_path: Path) -> None:
    """A function that never returns does not block the exit: no traceback, and no process is left."""
    folder = tmp_path / "functions"
    write_functions(
        folder, {"a-quick": "const handler = () => new Response('here');", "loop": "function handler() { while (true); }"}
    )
    with developing(folder) as screen:
        screen.until("  here")
        begun = time.monotonic()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "{"], 64, "error: --data is not JSON"),
        (["--runtime", "off"], 78, "error: `dev` runs functions on workerd, and there is none here"),
        (["--runtime", "nothing"], 78, "error: nothing is not a workerd that starts here"),
        pytest.param(["--source", "flows.git"], 64, "flows.git is not a folder to work in", marks=needs_workerd),
    ],
)
def test_dev_refuses_invalid_data_a_missing_workerd_and_a_bare_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    """Data must be JSON, the error says how to get workerd, and a bare repository cannot be edited."""
    monkeypatch.chdir(tmp_path)
    write_functions(tmp_path / "functions", {"greet": ECHO})
    git(tmp_path, "init", "--quiet", "--bare", "flows.git")
    ran = kapso_sync("dev", "--source", "functions", *arguments)
    assert ran.code == code
    first, hint = ran.err.splitlines()
    assert message in first
    assert hint.startswith("hint: ")
