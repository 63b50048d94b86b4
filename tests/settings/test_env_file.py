"""``.env`` files: which lines are variables, and which are wrong."""

from __future__ import annotations

import io
import logging

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.env_file import EnvFile, parse_env_file


@pytest.mark.parametrize(
    ("text", "variables", "wrong"),
    [
        ("A=1\nB='two\nlines'\nexport C=\"x\\ny\" # comment\n", {"A": "1", "B": "two\nlines", "C": "x\ny"}, ()),
        ("\ufeffA=$HOME\nA=${B}\n", {"A": "${B}"}, ()),
        ("A=1\nonly-a-name\n", {"A": "1"}, ()),
        ("A b\n", {}, (1,)),
        ("A=1\n\n  \n# c\nA b\n\nB='open\nC=3\n", {"A": "1", "C": "3"}, (5, 7)),
        ("A=1\r\n\r\n= x\r\n", {"A": "1"}, (3,)),
        ("A='x\ny' z\nB=2", {"B": "2"}, (1,)),
    ],
)
def test_variables_and_the_numbers_of_wrong_lines(text: str, variables: dict[str, str], wrong: tuple[int, ...]) -> None:
    assert parse_env_file(text) == EnvFile(variables, wrong)


@given(st.text(alphabet="AB=1 '\"\\\n\r#$\ufeff"))
def test_variables_are_those_of_python_dotenv(text: str) -> None:
    """The control is the library's own function, without its log; a line is wrong exactly where that complains.

    A byte order mark before a value, which the library keeps, is no part of it.
    """
    logger, complaints = logging.getLogger("dotenv.main"), list[logging.LogRecord]()
    catcher = logging.Handler()
    catcher.emit = complaints.append  # type: ignore[assignment]
    logger.addHandler(catcher)
    try:
        known = dotenv_values(stream=io.StringIO(text), interpolate=False)
    finally:
        logger.removeHandler(catcher)
    found = parse_env_file(text)
    assert found.variables == {name: value.removeprefix("\ufeff") for name, value in known.items() if value is not None}
    assert len(found.wrong_lines) == len(complaints)


def test_wrong_lines_are_shown_by_number_alone_and_not_all_of_them() -> None:
    assert parse_env_file("A b\n").wrong == "line 1"
    assert parse_env_file("A b\nB=1\nC c\n").wrong == "lines 1 and 3"
    many = parse_env_file("hunter2 hunter2\n" * 100)
    assert many.wrong == "lines 1, 2, 3, 4, 5 and 95 more"
    assert "hunter2" not in repr(many)
