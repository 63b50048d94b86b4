"""What a fuzz target is: a plain function of bytes, and the grammar that its inputs are made and changed by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.grammar import Draw

CORPUS = Path(__file__).parent / "corpus"
"""Inputs that the suite replays: seeds that people wrote, and every input that ever failed."""


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of input.

    ``run`` raises for a broken promise, and returns for everything else. ``make`` returns a new input; ``tokens`` are what
    mutation puts into existing ones. ``cpu`` is the deadline of one input, in seconds of CPU time. ``share`` is its part of
    the time, compared with others.
    """

    name: str
    run: Callable[[bytes], None]
    make: Callable[[Draw], bytes]
    tokens: Sequence[bytes] = ()
    cpu: float = 5.0
    share: float = 1.0

    @property
    def corpus(self) -> tuple[Path, ...]:
        """The inputs of this target that the repository keeps."""
        return tuple(sorted(path for path in (CORPUS / self.name).glob("*") if path.is_file()))
