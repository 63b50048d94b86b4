"""The ownership mark: read wherever it stands, written once, never part of a function's own text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.model.ownership import Mark, check_of, is_marked, mark_for, split_description, without_marks

OURS = mark_for("example.com/acme/flows", "greet")
THEIRS = mark_for("example.com/other", "greet", protected=True)

TEXTS = st.lists(st.sampled_from([str(OURS), str(THEIRS), "Greets ", "\n", "[", "]", "[kapso-sync:", "#1a2b3c]"])).map("".join)


@pytest.mark.parametrize(
    ("description", "text", "mark"),
    [
        (None, "", None),
        ("Greets people", "Greets people", None),
        (f"Greets people{OURS}", "Greets people", OURS),
        (f"Greets people{OURS}\n", "Greets people", OURS),
        (f"Greets people{OURS} and waves", "Greets people and waves", OURS),
        (f"Greets people{OURS}{OURS}", "Greets people", OURS),
        (f"{THEIRS} copied{OURS}", " copied", OURS),
        (f"Greets\n{str(OURS).strip()}\npeople", "Greets\n\npeople", OURS),
        ("[kapso-sync:a b#1a2b3c] is no mark", "[kapso-sync:a b#1a2b3c] is no mark", None),
    ],
)
def test_a_mark_is_read_wherever_it_stands(description: str | None, text: str, mark: Mark | None) -> None:
    assert split_description(description) == (text, mark)


@given(TEXTS)
def test_no_text_that_is_read_holds_a_mark_and_writing_adds_exactly_one(description: str) -> None:
    text, mark = split_description(description)
    assert split_description(text) == (text, None)
    assert (mark is None) == (without_marks(description) == description)
    written = f"{text}{OURS}"
    assert is_marked(written, OURS)
    assert split_description(written) == (text, OURS)


@pytest.mark.parametrize("extra", [" and waves", str(OURS), str(THEIRS)])
def test_a_description_that_is_more_than_text_and_one_mark_is_to_be_written_again(extra: str) -> None:
    assert is_marked(f"Greets{OURS}", OURS)
    assert not is_marked(f"Greets{OURS}{extra}", OURS)
    assert not is_marked(f"Greets{THEIRS}", OURS)


def test_half_of_a_surrogate_pair_in_a_slug_has_a_check() -> None:
    """JSON can carry one, in the owner of a mark."""
    assert check_of("\ud800", "greet") != check_of("\ud801", "greet")
