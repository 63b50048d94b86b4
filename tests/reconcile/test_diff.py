"""Diffs for people: complete, and of limited size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from kapso_sync.model.functions import CODE
from kapso_sync.model.json_values import Json
from kapso_sync.reconcile.plan.comparison import CHANGED_LINES_LIMIT, content_diff


def code_diff(old: str, new: str) -> str:
    return content_diff("a", ({}, old), ({}, new), (CODE,))


def test_a_diff_shows_fields_before_code() -> None:
    """A line for each field; long descriptions line by line."""
    old: dict[str, Json] = {"name": "Old", "description": "One\nTwo", "timeout": 5}
    new: dict[str, Json] = {"name": "New", "description": "One\nThree", "timeout": 5}
    diff = content_diff("greet", (old, "a\nb\n"), (new, "a\nc\n"), ("name", "description", CODE))
    assert diff == snapshot("""\
--- kapso/greet (fields)
+++ git/greet (fields)
@@ -1,4 +1,4 @@
-name: Old
+name: New
 description: |
   One
-  Two
+  Three
--- kapso/greet (code)
+++ git/greet (code)
@@ -1,2 +1,2 @@
 a
-b
+c
""")


def test_a_line_of_a_field_looks_like_no_change_of_another_one() -> None:
    """Whoever may name a function on Kapso wrote a second line that looks like one of the diff."""
    diff = content_diff("a", ({"name": "One\n+runtime_config: {}\n::error::x"}, None), ({"name": "Two"}, None), ("name",))
    assert [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))] == [
        "-name: |",
        "-  One",
        "-  +runtime_config: {}",
        "-  ::error::x",
        "+name: Two",
    ]


def test_a_missing_final_newline_is_shown() -> None:
    """It is a difference like any other."""
    assert code_diff("a\n", "a") == snapshot("""\
--- kapso/a (code)
+++ git/a (code)
@@ -1 +1 @@
-a
+a
\\ No newline at end of file
""")


def test_a_diff_of_a_new_function_starts_from_dev_null() -> None:
    """As in git."""
    assert content_diff("a", ({}, None), ({}, "a\n"), (CODE,)).startswith("--- /dev/null\n+++ git/a (code)\n")
    assert content_diff("a", ({}, "a\n"), ({}, None), (CODE,)).startswith("--- kapso/a (code)\n+++ /dev/null\n")


def test_a_huge_diff_is_replaced_by_a_summary() -> None:
    """A diff of thousands of changed lines would take minutes."""
    old = "".join(f"old {number}\n" for number in range(CHANGED_LINES_LIMIT + 1))
    new = "".join(f"new {number}\n" for number in range(CHANGED_LINES_LIMIT + 2))
    assert code_diff(f"same\n{old}end\n", f"same\n{new}end\n").endswith(
        "@@ 2001 lines replaced by 2002, too many to compare line by line @@\n"
    )


@given(st.lists(st.sampled_from("abc\u2028\x0c\r\x85")).map("".join), st.lists(st.sampled_from("abc\n")).map("".join))
def test_a_diff_is_empty_only_if_nothing_differs(old: str, new: str) -> None:
    """No kind of line separator hides a change."""
    assert bool(code_diff(old, new)) == (old != new)
