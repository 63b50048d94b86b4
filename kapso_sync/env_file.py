"""Parses ``.env`` files: lines of ``NAME=value``, as python-dotenv reads them, without expanding anything."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import field

from kapso_sync.dataclass import dataclass

MAX_SHOWN = 5
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class EnvFile:
    """The variables of a file, and the numbers, from 1, of the lines that are no ``NAME=value``. Those are left out."""

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    wrong_lines: Sequence[int] = ()

    @property
    def wrong(self) -> str:
        """The wrong lines in words, such as ``line 3``; never their content, which may be half of a credential."""
        shown = [str(number) for number in self.wrong_lines[:MAX_SHOWN]]
        more = len(self.wrong_lines) - len(shown)
        shown += [f"{more} more"] if more else []
        return f"line {shown[0]}" if len(shown) == 1 else f"lines {', '.join(shown[:-1])} and {shown[-1]}"


def parse_env_file(text: str) -> EnvFile:
    """Return the variables of a text; of a name that occurs twice, the last one counts.

    This is `dotenv.dotenv_values`, which writes its complaints to stderr and names the line after the last good one.
    """
    from dotenv.parser import parse_stream  # noqa: PLC0415 - imported only if there is a file, to start faster

    variables: dict[str, str] = {}
    wrong: list[int] = []
    for binding in parse_stream(io.StringIO(text)):
        statement = binding.original.string
        if binding.error:
            blank = statement[: len(statement) - len(statement.lstrip())]
            wrong.append(binding.original.line + len(_LINE_END.findall(blank)))
        elif binding.key is not None and binding.value is not None:
            # A value that was pasted from a file of Windows may begin with a mark, which is no part of it.
            variables[binding.key] = binding.value.removeprefix("\ufeff")
        elif binding.key is not None:
            variables.pop(binding.key, None)
    return EnvFile(variables, tuple(wrong))
