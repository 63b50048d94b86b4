"""The database ``env.DB`` of functions: SQLite in memory stands in for Cloudflare's D1, one for the project."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kapso_sync.emulator.serving import serving
from kapso_sync.emulator.values import dump_json, parse_json
from kapso_sync.emulator.workerd import sqlite_worker
from kapso_sync.emulator.workerd.sqlite_worker import ANSWER, JOB, LONGEST_QUERY, too_long


class ScriptRefused(Exception):
    """A script failed, in the statement that begins at ``line`` and ``column``, counted from 1; 0 if that is not known."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class DatabaseEnded(Exception):
    """The process of the database ended before it answered, and what the database had is gone."""


class Database:
    """A database that begins empty, in a process of its own, which starts with the first query.

    Any thread may call it; the others wait.
    """

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._process_generation = 0
        self._closed = False
        self.generation = 0
        """How many times the database was cleared."""

    def clear(self) -> None:
        """Forget everything, and end a query that runs."""
        self.generation += 1
        if self._one_at_a_time.locked():
            self._kill()

    def close(self) -> None:
        """End the process, whatever it does; there are no queries after that."""
        self._closed = True
        self._kill()
        with self._one_at_a_time:
            self._forget_process()

    def load(self, script: str, seconds: float = LONGEST_QUERY) -> None:
        """Run a script of statements in an empty database; raises `ScriptRefused`."""
        try:
            answer = parse_json(self.ask(dump_json({"do": "load", "statements": [[script, []]]}), seconds))
        except DatabaseEnded as error:
            raise ScriptRefused(str(error)) from error
        match answer:
            case {"reason": str(reason), "place": [int(line), int(column)]}:
                raise ScriptRefused(reason, line, column)

    def ask(self, job: bytes, seconds: float = LONGEST_QUERY, generation: int | None = None) -> bytes:
        """Return the answer to a job, both JSON, as `sqlite_worker` has them; raises `DatabaseEnded`.

        ``generation``: the job is about the database as it was then, and is refused if that is gone.
        """
        with self._one_at_a_time:
            if generation not in {None, self.generation}:
                raise DatabaseEnded("the database was emptied before the query")
            if self._process_generation != self.generation:
                self._process_generation = self.generation
                self._forget_process()
            try:
                return self._exchange(job, seconds)
            except OSError as error:
                raise self._ended(seconds) from error

    def _exchange(self, job: bytes, seconds: float) -> bytes:
        if self._process is None and not self._closed:
            self._process = _start()
        if self._closed:  # here, since `close` kills only a process that it sees
            raise DatabaseEnded("the database is closed")
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise AssertionError
        jobs, answers = self._process.stdin, self._process.stdout
        jobs.write(JOB.pack(seconds, len(job)) + job)
        jobs.flush()
        head = answers.read(ANSWER.size)
        length = ANSWER.unpack(head)[0] if len(head) == ANSWER.size else 0
        answer = answers.read(length)
        if not length or len(answer) < length:
            raise self._ended(seconds)
        return answer

    def _ended(self, seconds: float) -> DatabaseEnded:
        status = self._forget_process()
        return DatabaseEnded(too_long(seconds) if status == -signal.SIGALRM else "the process of the database ended")

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def _forget_process(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        with contextlib.suppress(BrokenPipeError), process:
            pass
        return process.returncode


@contextlib.asynccontextmanager
async def serving_db(database: Database, path: Path) -> AsyncIterator[None]:
    """Serve a database on a Unix socket at ``path``, one request at a time; it is closed at the end."""
    one_at_a_time = asyncio.Lock()  # so that those that wait hold no thread

    async def answer(request: Request) -> Response:
        generation = database.generation  # what waits here may be of a function that ran out of time, and is over
        job = await request.body()
        async with one_at_a_time:
            return Response(await asyncio.to_thread(_answer, database, job, generation))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        async with serving(Starlette(routes=[Route("/", answer, methods=["POST"])]), listener):
            try:
                yield
            finally:
                database.close()  # first, so that no request still waits for it


def _answer(database: Database, job: bytes, generation: int) -> bytes:
    try:
        return database.ask(job, generation=generation)
    except DatabaseEnded as error:
        return dump_json({"error": f"{error}: SQLITE_ERROR"})


def _start() -> subprocess.Popen[bytes]:
    """Start the process. It ends with its input, so with this process, and a signal of the terminal does not reach it."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", sqlite_worker.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
