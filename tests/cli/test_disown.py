"""``disown``: our marks go, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

from tests.program import answering, kapso_sync, write_functions
from tests.served import Served

Environment = dict[str, str]


def described(kapso: Served) -> dict[str, str | None]:
    return {function.slug: function.description for function in kapso.world.functions.values()}


def test_disown_only_lists_without_yes(kapso: Served, folder: Path, environment: Environment) -> None:
    """Nothing is written, and the last line says how to do it."""
    kapso_sync("sync", str(folder), environment=environment)
    before = described(kapso)
    assert all("[kapso-sync:" in str(text) for text in before.values())
    ran = kapso_sync("disown", str(folder), environment=environment)
    assert ran.code == 0
    assert ran.out.startswith("- greet, part\n2 functions of folder/")
    assert f"`kapso-sync disown --yes {folder}` does it" in ran.out
    assert described(kapso) == before


def test_disown_takes_the_marks_and_changes_nothing_else(kapso: Served, folder: Path, environment: Environment) -> None:
    """Code, text, deployments and other owners' functions stay; a later sync adopts the functions again."""
    write_functions(folder, {"greet": answering("hi"), "part": answering("bye")}, extra="    description: Says hi\n")
    kapso_sync("sync", str(folder), environment=environment)
    kapso.control("POST", "/functions", {"function": {"name": "x", "code": "x", "description": "x [kapso-sync:o#123456]"}})
    live, deployments = kapso.world.live_code(), {f.id: f.last_deployed_at for f in kapso.world.functions.values()}
    ran = kapso_sync("disown", str(folder), "--yes", "--json", environment=environment)
    assert ran.code == 0
    assert [(f["slug"], f["disowned"], f["error"]) for f in ran.document["functions"]] == [
        ("greet", True, None),
        ("part", True, None),
    ]
    assert described(kapso) == {"greet": "Says hi", "part": "Says hi", "x": "x [kapso-sync:o#123456]"}
    assert kapso.world.live_code() == live
    assert {f.id: f.last_deployed_at for f in kapso.world.functions.values()} == deployments
    assert "disowned" in kapso_sync("history", "greet", str(folder), environment=environment).out
    assert kapso_sync("disown", str(folder), "--json", environment=environment).document["functions"] == []
    again = kapso_sync("plan", str(folder), "--json", environment=environment).document
    assert [step["action"] for step in again["functions"]] == ["adopt", "adopt"]


def test_a_disown_that_failed_is_finished_by_the_next_one(kapso: Served, folder: Path, environment: Environment) -> None:
    """The failing function is named, the others are done."""
    kapso_sync("sync", str(folder), environment=environment)
    kapso.faults({"what": "status", "status": 422, "method": "PATCH", "times": 1, "body": {"error": "not now"}})
    ran = kapso_sync("disown", str(folder), "--yes", environment=environment)
    assert ran.code == 1
    assert "! greet  PATCH /functions/{id}" in ran.out
    assert "1 disowned, 1 failed." in ran.out
    assert kapso_sync("disown", str(folder), "--yes", environment=environment).code == 0
    assert all("[kapso-sync:" not in str(text) for text in described(kapso).values())


def test_disown_only_takes_functions_of_ours(kapso: Served, folder: Path, environment: Environment) -> None:
    """One by name; a slug that is not ours is a usage error before anything is written."""
    kapso_sync("sync", str(folder), environment=environment)
    wrong = kapso_sync("disown", str(folder), "--yes", "--only", "nobody", environment=environment)
    assert (wrong.code, "not ours: nobody" in wrong.err) == (64, True)
    assert kapso_sync("disown", str(folder), "--yes", "--only", "part", environment=environment).code == 0
    assert {slug: "[kapso-sync:" in str(text) for slug, text in described(kapso).items()} == {"greet": True, "part": False}
