"""Runs one target in a process of its own, guided by coverage with atheris where it is installed, and blindly elsewhere.

Atheris has wheels for Linux on x86-64 only; without it, the same grammar makes and changes inputs, but nothing tells it which
of them reached new code.
What fails is written once for each place in the code, and the run goes on.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

ADDRESS_SPACE = 4 * 1024**3
"""Bytes of address space that a run may use: an input that asks for more fails with MemoryError."""

STUCK = 120
"""Seconds after which atheris ends a run whose input does not return to Python's own alarms."""

MAX_LENGTH = 32 * 1024
SAVED = 0.5
"""Seconds between two writes of the numbers."""


@dataclass
class Numbers:
    """What a run did so far; the process that started it reads them from a file."""

    executions: int = 0
    entries: int = 0
    seconds: float = 0.0
    guided: bool = False
    failures: dict[str, str] = field(default_factory=dict)


class Run:
    """A run of one target in ``folder``, which holds its growing corpus, and its failures."""

    def __init__(self, name: str, folder: Path, seconds: float, seed: int) -> None:
        self._name = name
        self._folder = folder
        self._seconds = seconds
        self._seed = seed
        self._corpus = folder / name
        self._failures = folder / "failures" / name
        self._started = time.monotonic()
        self._saved = 0.0
        self._before = 0
        self.numbers = Numbers()

    def start(self) -> None:
        """Run until the time is over."""
        for path in (self._corpus, self._failures):
            path.mkdir(parents=True, exist_ok=True)
        self._before = sum(1 for _ in self._corpus.iterdir())
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        logging.disable(logging.CRITICAL)
        if importlib.util.find_spec("atheris") is not None:
            self.numbers.guided = True
            self._with_atheris()
        else:
            self._blindly()
            self._save()

    def _target(self) -> Any:
        return importlib.import_module("tests.fuzz.targets").TARGETS[self._name]

    def _with_atheris(self) -> None:
        atheris = importlib.import_module("atheris")
        with atheris.instrument_imports(include=["kapso_sync"]):
            target = self._target()
        grammar = importlib.import_module("tests.fuzz.grammar")

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            draw = grammar.Draw(Random(seed))
            if draw.chance(0.3):
                return bytes(atheris.Mutate(data, most))
            return bytes(grammar.mutated(data, draw, target.tokens, target.make)[:most])

        seeds = [str(path) for path in (self._corpus, target.corpus[0].parent if target.corpus else None) if path is not None]
        arguments = [
            f"-max_total_time={max(1, int(self._seconds))}",
            f"-timeout={STUCK}",
            f"-max_len={MAX_LENGTH}",
            f"-seed={self._seed or 1}",
            f"-artifact_prefix={self._failures}/",
            "-rss_limit_mb=3000",
            "-verbosity=0",
            "-print_final_stats=0",
        ]
        run = self._guarded(target.run, target.cpu)
        atheris.Setup([sys.argv[0], *arguments, *seeds], run, custom_mutator=mutate)
        atheris.Fuzz()

    def _blindly(self) -> None:
        target = self._target()
        run = self._guarded(target.run, target.cpu, wall=STUCK)
        self._started = time.monotonic()  # a slow import takes nothing away
        for data in inputs(target, self._seed):
            if time.monotonic() - self._started > self._seconds:
                return
            run(data)

    def _guarded(self, run: Callable[[bytes], None], cpu: float, wall: float | None = None) -> Callable[[bytes], None]:
        """Return the function that runs one input, counts it, and notes what it breaks."""
        promises = importlib.import_module("tests.fuzz.promises")

        def once(data: bytes) -> None:
            try:
                with promises.bounded(cpu, wall):
                    run(data)
            except (Exception, promises.Hang) as error:  # noqa: BLE001 - that is what is looked for
                self._failed(data, error)
            self.numbers.executions += 1
            if time.monotonic() - self._saved > SAVED:
                self._save()

        return once

    def _failed(self, data: bytes, error: BaseException) -> None:
        what = place_of(error)
        if what in self.numbers.failures:
            return
        path = self._failures / hashlib.sha256(data).hexdigest()[:16]
        path.write_bytes(data)
        self.numbers.failures[what] = str(path)
        path.with_suffix(".txt").write_text(
            "".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace"
        )
        self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        self.numbers.seconds = self._saved - self._started
        self.numbers.entries = sum(1 for _ in self._corpus.iterdir()) - self._before
        part = self._folder / f"{self._name}.json.part"
        part.write_text(json.dumps(asdict(self.numbers)), encoding="utf-8")
        part.replace(self._folder / f"{self._name}.json")


def inputs(target: Any, seed: int) -> Iterator[bytes]:
    """Yield inputs without end: the target's corpus, then new ones and changed ones, the same for the same seed."""
    from tests.fuzz.grammar import Draw, mutated

    draw = Draw(Random(seed))
    pool = [path.read_bytes() for path in target.corpus]
    yield from pool
    while True:
        data = target.make(draw) if not pool or draw.chance(0.4) else mutated(draw.pick(pool), draw, target.tokens, target.make)
        data = data[:MAX_LENGTH]
        if len(pool) < 500:
            pool.append(data)
        else:
            pool[draw.random.randrange(len(pool))] = data
        yield data


def place_of(error: BaseException) -> str:
    """Return the kind of an error and the place in our code that it came from, for people and to tell failures apart."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}kapso_sync{os.sep}" in frame.filename] or list(frames)
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:160]}" if ours else repr(error)


def main() -> None:
    """Run ``TARGET FOLDER SECONDS SEED``."""
    name, folder, seconds, seed = sys.argv[1:5]
    Run(name, Path(folder), float(seconds), int(seed)).start()


if __name__ == "__main__":
    main()
