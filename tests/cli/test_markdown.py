"""A plan as Markdown for a pull request: held by snapshots, and safe against markup in code and names."""

# ruff: noqa: E501 - a table's row is one line

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from markdown_it import MarkdownIt

from kapso_sync.cli.markdown import MAX_LENGTH, plan_markdown
from kapso_sync.errors import Location, Notice
from kapso_sync.model.plan import Plan
from kapso_sync.model.policies import MaxDelete
from kapso_sync.model.source import Revision
from kapso_sync.reconcile.plan.guard import Limits, guard
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from tests.builders import CODE_B, OWNER, POLICY, content, desired, memory, owned, remote, unusable, want
from tests.cli.test_render import mixed_plan
from tests.program import kapso_sync


def pruning_plan() -> Plan:
    git = desired(want("kept", CODE_B))
    there = [remote("kept"), remote("gone"), remote("held", protected=True)]
    plan = make_plan(git, resolve_intents(there, memory(owned(remote("kept"))), OWNER), replace(POLICY, prune=True))
    return guard(plan, Limits(MaxDelete(9, percent=False))).plan


def test_markdown_plan_for_a_pull_request() -> None:
    """A marker line, the summary, a table with every reason, folded diffs, the digest."""
    assert plan_markdown(mixed_plan()) == snapshot("""\
<!-- kapso-sync plan example.com/acme/flows -->
## kapso-sync plan for example.com/acme/flows

https://example.com/acme/flows at 4f1c2ab8d0e1 “Add greeting” by Ada

**1 to create, 2 to update, 1 to deploy, 1 to adopt, 2 blocked, 1 invalid; 1 in sync.**

### Deletions

What is deleted is gone for good, id and secrets included; code and fields are saved to `backups/` first.

| function | id | why |
|---|---|---|
| gone | id-gone | **held**: deletions wait while \\`broken\\` cannot be used: it may be the same function under a new name<br>fix \\`broken\\` in git first |

### Changes

| function | action | why |
|---|---|---|
| added | create and deploy | in the manifest, not on Kapso |
| broken | **invalid** | broken.js:3:1: syntax error |
| changed | update and deploy | changed in git: code, name |
| drifted | update and deploy | changed on Kapso: code |
| found | adopt | on Kapso, unowned, and the same as in git |
| stored | deploy | saved on Kapso, never deployed |
| taken | **blocked** (update) | it is owned by example.com/other, and we are example.com/acme/flows<br>\\`kapso-sync sync --take-from example.com/other\\` takes it over |

<details><summary>changed: update</summary>

```diff
--- kapso/changed (fields)
+++ git/changed (fields)
@@ -1 +1 @@
-name: Old name
+name: New name
--- kapso/changed (code)
+++ git/changed (code)
@@ -1 +1 @@
-async function handler() { return new Response('a'); }
+async function handler() { return new Response('b'); }
```

</details>

<details><summary>drifted: update</summary>

```diff
--- kapso/drifted (code)
+++ git/drifted (code)
@@ -1 +1 @@
-async function handler() { return new Response('b'); }
+async function handler() { return new Response('a'); }
```

</details>

Apply exactly this plan: `kapso-sync sync --expect sha256:d8fcdfa55b6c518957e56800d9b30b631a4260903aba088d1b1cca2d6dc243c4`
""")


def test_markdown_plan_lists_deletions_first_in_their_own_section() -> None:
    """With the backup or the grace of each; a deletion that is held says so."""
    assert plan_markdown(pruning_plan()) == snapshot("""\
<!-- kapso-sync plan example.com/acme/flows -->
## kapso-sync plan for example.com/acme/flows

test at c0ffee

**1 to update, 1 to delete; 0 in sync. 1 function left git and is kept.**

### Deletions

What is deleted is gone for good, id and secrets included; code and fields are saved to `backups/` first.

| function | id | why |
|---|---|---|
| gone | id-gone | it is ours and left git; a backup is saved first |

### Changes

| function | action | why |
|---|---|---|
| kept | update and deploy | changed in git: code |

<details><summary>kept: update</summary>

```diff
--- kapso/kept (code)
+++ git/kept (code)
@@ -1 +1 @@
-async function handler() { return new Response('a'); }
+async function handler() { return new Response('b'); }
```

</details>

### Warnings

- not in git, kept since it is protected (only \\`protected: false\\` in the manifest lifts that): held

Apply exactly this plan: `kapso-sync sync --expect sha256:df5d5ed690c2ebf39ac0b280fb8f0e4b3816c465e765eaa9a5f6d9b1c0cf51dd`
""")


def test_markdown_plan_without_changes_has_no_table() -> None:
    """Neither a table nor a digest."""
    plan = make_plan(desired(want("a")), resolve_intents([remote("a")], memory(), OWNER), POLICY)
    assert plan_markdown(plan) == snapshot("""\
<!-- kapso-sync plan example.com/acme/flows -->
## kapso-sync plan for example.com/acme/flows

test at c0ffee

**In sync: 1 function, nothing to do.**

""")


def test_markdown_plan_shows_file_and_line_of_a_warning() -> None:
    """The place stands before the message."""
    plan = make_plan(desired(want("a")), resolve_intents([remote("a")], memory(), OWNER), POLICY)
    plan = replace(plan, notices=(Notice("no-serve", "nothing would answer", Location("a.ts", 1, 1)),))
    assert "\n- a.ts:1:1: nothing would answer\n" in plan_markdown(plan)


def hostile_plan(code: str, reason: str = "") -> Plan:
    git = replace(desired(want("a", code)), revision=Revision("4f1c2ab8d0e1", subject=reason or "Fix", author="Eve"))
    plan = make_plan(git, resolve_intents([remote("a")], memory(owned(remote("a"))), OWNER), POLICY)
    return replace(plan, notices=(Notice("unlisted-file", f"no entry names {reason}"),))


@pytest.mark.parametrize(
    "code",
    [
        "````\n</details>\n# Owned\n",
        "```\n```\n~~~\n",
        "</details><img src=x>\n",
        "\u202e// evil\n",
        "\u2028```\n",
        "`" * 70 + "\n",
    ],
)
def test_code_cannot_close_its_markdown_code_fence(code: str) -> None:
    """Whatever the code holds, the page has one folded code block, which ends where we end it."""
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(plan_markdown(hostile_plan(code)))
    fences = [token for token in tokens if token.type == "fence"]
    (fence,) = [fence for fence in fences if fence.info == "diff"]
    assert fences == [fence]
    assert "+++ git/a (code)" in fence.content
    blocks = [token.content for token in tokens if token.type == "html_block"]
    assert [block.count("</details>") for block in blocks if "details" in block] == [0, 1]
    assert "\u202e" not in plan_markdown(hostile_plan(code))


@given(st.text())
def test_names_and_commit_subjects_are_escaped_in_markdown(text: str) -> None:
    """They cause no HTML, no link, no mention and no row of the table."""
    page = plan_markdown(hostile_plan(CODE_B, f"<b>{text}</b> @everyone [x](http://evil) | a | `c`"))
    head, _, _ = page.partition("<details>")
    assert "<b>" not in head
    assert "@everyone" not in page
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(page)
    inline = [child for token in tokens for child in token.children or ()]
    assert not [child for child in inline if child.type in ("link_open", "image")]
    assert {child.content for child in inline if child.type == "html_inline"} <= {"<br>"}


def test_a_markdown_plan_that_is_too_long_is_truncated_with_a_note() -> None:
    """Below 65,000 characters, with every code block closed; digest and warnings stay, and a note says what is missing."""
    code = "".join(f"const value{number} = {number};\n" for number in range(400))
    names = [f"function-{number:03}" for number in range(60)]
    before = [remote(name) for name in names]
    known = memory(*(owned(record, content()) for record in before))
    plan = make_plan(desired(*(want(name, code) for name in names)), resolve_intents(before, known, OWNER), POLICY)
    page = plan_markdown(plan)
    assert 50_000 < len(page) <= MAX_LENGTH
    assert all(f"| {name} | update and deploy |" in page for name in names)
    assert page.count("<details>") == page.count("</details>") < len(names)
    assert re.search(r"> \*\*Cut\.\*\* \d+ parts do not fit into a comment", page)
    assert page.rstrip().endswith(f"{plan.digest}`")


def test_a_markdown_plan_of_thousands_of_functions_stays_below_the_limit(  # the table itself is cut
) -> None:
    """The table is truncated as well."""
    names = [f"function-{number:04}" for number in range(3000)]
    plan = make_plan(desired(*(want(name) for name in names), unusable("bad")), resolve_intents([], memory(), OWNER), POLICY)
    assert len(plan_markdown(plan)) <= MAX_LENGTH


def test_json_and_markdown_together_are_a_usage_error() -> None:
    """Before anything is read."""
    ran = kapso_sync("plan", "--json", "--format", "markdown")
    assert (ran.code, "both --json and --format markdown" in ran.err) == (64, True)


def test_plan_writes_markdown_beside_json_from_one_plan(environment: dict[str, str], folder: Path, tmp_path: Path) -> None:
    """A comment and a gate by digest then mean the same plan; a file that cannot be written is a usage error."""
    ran = kapso_sync("plan", str(folder), "--json", "--markdown", str(tmp_path / "plan.md"), environment=environment)
    written = (tmp_path / "plan.md").read_text(encoding="utf-8")
    assert written.startswith("<!-- kapso-sync plan ")
    assert ran.document["digest"] in written
    ran = kapso_sync("plan", str(folder), "--markdown", str(tmp_path / "nowhere" / "plan.md"), environment=environment)
    assert ran.code == 64
    assert "plan.md cannot be written: No such file or directory" in ran.err
