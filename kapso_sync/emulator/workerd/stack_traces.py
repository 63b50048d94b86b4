"""Puts what workerd says about code where its author finds it: our own frames left out, columns as in the file."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCRIPT_HEAD = "module.exports = (function (module, exports, require) {"
"""What the dispatcher puts before a script, on the same line."""

_FAILED = "Failed to start Worker:\n"
_FRAME = re.compile(r"^ +at .*?(?P<file>[\w:.-]+):(?P<line>\d+):(?P<column>\d+)")


@dataclass(frozen=True, slots=True)
class Code:
    """Code by the name of its file in the isolate; ``module`` tells its style."""

    file: str
    text: str
    module: bool

    def placed(self, words: str) -> str:
        """Return an error's words with places in the code alone, lines and columns counted from 1."""
        words = words.removeprefix(_FAILED)
        # A syntax error has no stack: workerd adds its place, and counts columns from 0 there.
        shift = int(words.startswith("Uncaught SyntaxError"))
        lines = (self._line(line, shift) for line in words.splitlines())
        return "\n".join(line for line in lines if line is not None)

    def _line(self, line: str, shift: int) -> str | None:
        frame = _FRAME.match(line)
        if frame is None:
            return line
        number, column = int(frame["line"]), int(frame["column"]) + shift
        if frame["file"] != self.file or number > self.text.count("\n") + 1:
            return None
        if number == 1 and not self.module:
            column -= len(SCRIPT_HEAD)
        return f"{line[: frame.start('line')]}{number}:{column}{line[frame.end('column') :]}"
