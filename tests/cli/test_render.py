"""Plans and reports as people read them, held by snapshots."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from inline_snapshot import snapshot

from kapso_sync.cli.console import Console
from kapso_sync.cli.json_documents import plan_document
from kapso_sync.cli.render import print_plan, print_report
from kapso_sync.errors import ApiUnavailable, Call, StateForeign
from kapso_sync.model.functions import DeploymentStatus
from kapso_sync.model.plan import Plan
from kapso_sync.model.policies import MaxDelete
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.source import Revision
from kapso_sync.reconcile.plan.deletion_grace import Timestamps, defer_deletions
from kapso_sync.reconcile.plan.guard import guard
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from kapso_sync.visible import visible
from tests.builders import CODE_B, DAWN, LIMITS, OWNER, POLICY, content, desired, memory, owned, remote, unusable, want


def shown(what: Plan | Report, *, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(stream, {"FORCE_COLOR": "1"} if colour else {})
    if isinstance(what, Plan):
        print_plan(console, what)
    else:
        print_report(console, what)
    return stream.getvalue()


def mixed_plan() -> Plan:
    """One function of every kind."""
    before = remote("changed", name="Old name")
    git = desired(
        want("added", moved_from=(), name="A new one"),
        want("changed", CODE_B, name="New name"),
        want("drifted"),
        want("fine"),
        want("found"),
        unusable("broken"),
        want("stored"),
        want("taken"),
    )
    git = replace(
        git, revision=Revision("4f1c2ab8d0e1", subject="Add greeting", author="Ada"), source="https://example.com/acme/flows"
    )
    kapso = [
        before,
        remote("drifted", CODE_B),
        remote("fine"),
        remote("found", owner=None),
        remote("gone"),
        remote("stored", status=DeploymentStatus.DRAFT, deployed=None),
        remote("taken", owner="example.com/other"),
    ]
    known = memory(owned(before, {**content(), "name": "Old name"}), owned(remote("drifted")))
    plan = make_plan(git, resolve_intents(kapso, known, OWNER), replace(POLICY, prune=True))
    return guard(plan, LIMITS).plan


def test_a_text_plan_shows_reasons_diffs_summary_and_digest() -> None:
    """Symbol, slug, action, reason, diff; then the summary, the digest and the warnings."""
    assert shown(mixed_plan()) == snapshot("""\
Plan for https://example.com/acme/flows at 4f1c2ab8d0e1 “Add greeting” by Ada
Owner example.com/acme/flows

+ added  create and deploy
    in the manifest, not on Kapso
    1 line of code from added.js; sets name

x broken  invalid
    broken.js:3:1: syntax error

~ changed  update and deploy  id-changed
    changed in git: code, name
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

~ drifted  update and deploy  id-drifted
    changed on Kapso: code
    --- kapso/drifted (code)
    +++ git/drifted (code)
    @@ -1 +1 @@
    -async function handler() { return new Response('b'); }
    +async function handler() { return new Response('a'); }

= found  adopt  id-found
    on Kapso, unowned, and the same as in git

^ stored  deploy  id-stored
    saved on Kapso, never deployed

! taken  blocked (update)  id-taken
    it is owned by example.com/other, and we are example.com/acme/flows
    hint: `kapso-sync sync --take-from example.com/other` takes it over

Deletions, which are final and take the secrets along:

! gone  blocked (delete)  id-gone
    deletions wait while `broken` cannot be used: it may be the same function under a new name
    hint: fix `broken` in git first

1 to create, 2 to update, 1 to deploy, 1 to adopt, 2 blocked, 1 invalid; 1 in sync.
Digest: sha256:d8fcdfa55b6c518957e56800d9b30b631a4260903aba088d1b1cca2d6dc243c4
next: fix `broken` in git; `kapso-sync validate` checks it offline
""")


def test_a_plan_with_nothing_to_do_is_one_line() -> None:
    """It does not list what is in sync."""
    plan = make_plan(desired(want("a")), resolve_intents([remote("a")], memory(), OWNER), POLICY)
    assert shown(plan) == snapshot("""\
Plan for test at c0ffee
Owner example.com/acme/flows

In sync: 1 function, nothing to do.
""")


def test_a_text_report_shows_changes_failures_backups_and_hints() -> None:
    """Each function that changed or failed, with its reason; then one summary line."""
    steps = {step.slug: step for step in mixed_plan().steps}
    outcomes = (
        Outcome(steps["added"], Result.DONE, "id-added", deployed=True),
        Outcome(steps["broken"], Result.INVALID, error="broken.js:3:1: syntax error"),
        Outcome(steps["changed"], Result.DONE, "id-changed", deployed=True, backup="changed/0123456789abcdef.json"),
        Outcome(steps["drifted"], Result.FAILED, "id-drifted", error="PATCH answered 422: too long", hint="make it shorter"),
        Outcome(steps["fine"], Result.UNCHANGED),
        Outcome(steps["stored"], Result.SKIPPED, error="not tried: no connection"),
        Outcome(steps["taken"], Result.BLOCKED, error=steps["taken"].reasons[0], hint=steps["taken"].hint),
    )
    halted = ApiUnavailable("no connection to api.test", call=Call("GET", "/functions"), hint="is it up?")
    assert shown(Report(mixed_plan(), outcomes, api_calls=9, seconds=12.34, halted=halted)) == snapshot("""\
+ added  created, live
~ changed  updated, live
    changed in git: code, name
    previous version: backups/changed/0123456789abcdef.json
x broken  invalid
    broken.js:3:1: syntax error
x drifted  failed
    PATCH answered 422: too long
    hint: make it shorter
x stored  not tried
    no connection
! taken  blocked
    it is owned by example.com/other, and we are example.com/acme/flows
    hint: `kapso-sync sync --take-from example.com/other` takes it over
1 created, 1 updated, 2 deployed, 1 in sync, 1 blocked, 1 failed, 1 invalid, 1 not tried. 9 API calls, 12.3 s.
stopped: no connection to api.test
hint: is it up?
next: `kapso-sync sync` continues where this pass stopped
""")


def test_a_pass_that_a_person_must_mend_does_not_offer_to_continue_at_once() -> None:
    """The key of another project is not mended by a second try; an API that is down may be."""
    halted = StateForeign("this key opens another project", hint="use the other key")
    assert "hint: use the other key\nnext: follow the hint, then `kapso-sync sync` continues" in shown(
        Report(mixed_plan(), (), halted=halted)
    )
    unanswered = ApiUnavailable("no connection", call=Call("GET", "/functions"))
    assert "next: `kapso-sync sync` continues" in shown(Report(mixed_plan(), (), halted=unanswered))


def test_diff_colours_are_used_on_a_terminal_only() -> None:
    """Added lines green, removed ones red; elsewhere there is no escape sequence."""
    assert "\x1b[32m" in shown(mixed_plan(), colour=True)
    assert "\x1b" not in shown(mixed_plan())


def test_terminal_escape_sequences_in_code_are_escaped() -> None:
    """Control characters in code or names are printed as text."""
    hostile = want("a", "// \x1b[2J\x9b31m\n" + CODE_B, name="\x1b]0;title\x07")
    plan = make_plan(desired(hostile), resolve_intents([remote("a")], memory(), OWNER), POLICY)
    text = shown(plan)
    assert "\x1b" not in text
    assert "\\x1b[2J\\x9b31m" in text
    assert visible("a\tb") == "a\\tb"


def test_a_text_plan_lists_deletions_last_with_their_backups() -> None:
    """Deletions of this pass, those that wait, and those that are held."""
    git, kapso = desired(want("a", CODE_B)), [remote("a"), remote("b"), remote("c"), remote("d"), remote("e", protected=True)]
    policy = replace(POLICY, prune=True, delete=frozenset({"b"}))
    known = resolve_intents(kapso, memory(owned(remote("a"))), OWNER)
    plan = defer_deletions(make_plan(git, known, policy), {}, Timestamps(DAWN))
    plan = guard(plan, replace(LIMITS, max_delete=MaxDelete(3), grace=600.0)).plan
    held = guard(make_plan(git, known, policy), LIMITS).plan
    plan = replace(plan, steps=tuple(step if step.slug != "d" else held.steps[3] for step in plan.steps))
    assert shown(plan).split("+async", 1)[1].split("Digest")[0] == snapshot("""\
 function handler() { return new Response('b'); }

Deletions, which are final and take the secrets along:

- b  delete  id-b
    it is ours and left git; a backup is saved first
    1 line of code, saved first as backups/b/ab82451743e93f34.json

- c  delete later  id-c
    it is ours and left git: the first pass after 2026-01-01T00:10:00Z deletes it, unless it comes back
    1 line of code, saved first as backups/c/199ebdddd2838c9f.json

! d  blocked (delete)  id-d
    3 of 5 owned functions would be deleted, and one pass may delete 1
    hint: if that is meant, --max-delete 3 or KAPSO_SYNC_MAX_DELETE=3 allows it (now 25%)

1 to update, 1 to delete, 1 blocked; 0 in sync. 1 function left git and will be deleted. 1 function left git and is kept.
""")
    document: Any = plan_document(plan)
    reasons = {function["slug"]: function["reasons"][-1] for function in document["functions"]}
    assert {slug: reasons[slug] for slug in "bcd"} == snapshot(
        {
            "b": "saved first as backups/b/ab82451743e93f34.json",
            "c": "saved first as backups/c/199ebdddd2838c9f.json",
            "d": "if that is meant, --max-delete 3 or KAPSO_SYNC_MAX_DELETE=3 allows it (now 25%)",
        }
    )
