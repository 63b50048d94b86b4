"""A stack trace is led back with the map of the code that ran, and with no other one; what is not certain is said."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kapso_sync.invocations.places import InvocationPlacer, LocalBuilds, PlacedInvocation, Places, names_places
from kapso_sync.model.builds import Built
from kapso_sync.model.functions import CODE, SLUG, ConsoleLine, DeploymentStatus, InvocationRecord, RemoteFunction, code_hash
from kapso_sync.model.state import InventoryRecord, LiveContent, Quarantine, QuarantineReason
from kapso_sync.store.builds import BuildFolder
from kapso_sync.store.database import StateStore

DEPLOYED = datetime(2026, 1, 1, 12, tzinfo=UTC)
EDGE = 60.0
LATER = DEPLOYED + timedelta(seconds=EDGE + 1)

HEAD = "// Built by kapso-sync from greet.ts: edit that file, not this.\n"
NEW = f"{HEAD}function greet(r) {{\n  return r.new.name;\n}}\n"
OLD = f"{HEAD}const old = 1;\nfunction greet(r) {{\n  return r.name;\n}}\n"
TWIN = f"{HEAD}function greet(r) {{\n  return r.old.name;\n}}\n"
"""Code in which the trace below fits as well."""

TRACE = "TypeError: no\n    at greet (greet.js:3:12)"
OLD_TRACE = "TypeError: no\n    at greet (greet.js:4:12)"
FUNCTION = RemoteFunction(
    "f1", "greet", DeploymentStatus.DEPLOYED, NEW, {"function_type": "cloudflare_worker"}, DEPLOYED, DEPLOYED
)


def map_to(file: str, line: int) -> str:
    """A map that leads the third line of code to a line of a file, and the fourth to the one below."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"
    return json.dumps({"version": 3, "sources": [file], "mappings": f";;AA{digits[(line - 1) * 2]}A;AACA"})


def record(trace: str = TRACE, at: datetime | None = LATER) -> InvocationRecord:
    return InvocationRecord("i1", 500, 1.0, "TypeError: no", at, (ConsoleLine("error", trace, at, trace),))


@dataclass(frozen=True)
class Machine:
    """A state folder, and what is placed with it."""

    folder: Path

    def builds(self, *built: Built) -> None:
        folder = BuildFolder(self.folder, DEPLOYED, writes=True)
        for number, each in enumerate(built):
            folder.put(f"k{number}-{len(each.code)}", each)

    def knows(self, live: str | None = None, former: str | None = None, bad: str | None = None) -> None:
        """Remember a confirmed deployment, the code before it, and code that was rolled back."""
        content = {CODE: code_hash(live or NEW), "function_type": "cloudflare_worker", SLUG: "greet"}
        with StateStore(self.folder, lambda: DEPLOYED) as store:
            confirmed = LiveContent(content, DEPLOYED) if live else None
            failed = Quarantine("a", QuarantineReason.CHECK, "no", code_hash(bad), code_hash(NEW), "") if bad else None
            store.remember(replace(InventoryRecord.new("greet", "f1"), live=confirmed, quarantine=failed))
            if former is not None:
                store.keep_version(replace(FUNCTION, code=former))

    def place(self, given: InvocationRecord, function: RemoteFunction = FUNCTION) -> PlacedInvocation:
        return InvocationPlacer(function, LocalBuilds([self.folder]), edge=EDGE).place(given)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state")


def stack(placed: PlacedInvocation) -> str | None:
    return placed.record.console[0].stack


def test_a_trace_is_led_back_with_the_map_of_its_code(machine: Machine) -> None:
    """Message, stack and error name the source's line; so they do where the server changed line ends."""
    machine.builds(Built(OLD, source_map=map_to("old.ts", 1)), Built(NEW, source_map=map_to("greet.ts", 9)))
    for function in (FUNCTION, replace(FUNCTION, code=NEW.replace("\n", "\r\n").rstrip())):
        placed = machine.place(record(), function)
        assert (placed.places, placed.reason) == (Places.SOURCE, None)
        assert stack(placed) == placed.record.console[0].message == "TypeError: no\n    at greet (greet.ts:9:1)"


def test_an_invocation_without_a_trace_has_no_places(machine: Machine) -> None:
    """There is nothing to say about them, and nothing was looked up."""
    assert machine.place(record("said greet.js:3:12")) == PlacedInvocation(record("said greet.js:3:12"))
    assert not names_places(record("no"), "greet")
    assert names_places(record(), "greet")


def test_code_that_is_the_source_needs_no_map(machine: Machine) -> None:
    """A script is uploaded byte for byte: its lines are the file's own."""
    script = NEW.removeprefix(HEAD)
    trace = "TypeError: no\n    at greet (greet.js:2:12)"
    placed = machine.place(record(trace), replace(FUNCTION, code=script))
    assert (placed.places, stack(placed)) == (Places.AS_WRITTEN, trace)
    shifted = machine.place(record("TypeError: no\n    at greet (greet.js:5:16)"), replace(FUNCTION, code=script))
    assert shifted.places is Places.UPLOADED
    assert "the places do not fit the code that is deployed" in (shifted.reason or "")


@pytest.mark.parametrize(
    ("given", "function", "reason"),
    [
        (record(at=DEPLOYED - timedelta(seconds=1)), FUNCTION, "it ran before the deployment of 2026-01-01 12:00:00 UTC"),
        (record(at=None), FUNCTION, "Kapso does not say when it ran"),
        (record(), replace(FUNCTION, last_deployed_at=None), "which code runs is not known: Kapso knows no deployment of it"),
        (
            record(),
            replace(FUNCTION, updated_at=DEPLOYED + timedelta(minutes=5)),
            "which code runs is not known: saved after the last deployment",
        ),
        (
            record(),
            replace(FUNCTION, status=DeploymentStatus.ERROR),
            "which code runs is not known: the last deployment failed",
        ),
        (record(), replace(FUNCTION, code=TWIN), "no state folder of this machine has the source map"),
        (record(TRACE.replace("3:12", "2:12")), FUNCTION, "the places do not fit the code that is deployed"),
        (record(TRACE.replace("greet (", "absent (")), FUNCTION, "the places do not fit the code that is deployed"),
    ],
)
def test_no_map_is_used_for_code_that_may_be_another(
    machine: Machine, given: InvocationRecord, function: RemoteFunction, reason: str
) -> None:
    """The invocation stays as it is, and the reason is said."""
    machine.builds(Built(NEW, source_map=map_to("greet.ts", 9)))
    placed = machine.place(given, function)
    assert (placed.places, placed.record) == (Places.UPLOADED, given)
    assert reason in (placed.reason or "")


def test_code_of_an_older_commit_is_led_back_with_its_own_map(machine: Machine) -> None:
    """What runs is what was confirmed, while newer code is saved and not deployed yet."""
    machine.builds(Built(OLD, source_map=map_to("old.ts", 4)), Built(NEW, source_map=map_to("greet.ts", 9)))
    machine.knows(live=OLD)
    placed = machine.place(record(OLD_TRACE), replace(FUNCTION, updated_at=LATER))
    assert (placed.places, stack(placed)) == (Places.SOURCE, "TypeError: no\n    at greet (old.ts:5:1)")


@pytest.mark.parametrize(
    ("former", "trace", "place"),
    [
        (None, TRACE, "greet.ts:9:1"),
        (OLD, TRACE, "greet.ts:9:1"),
        (OLD, OLD_TRACE, "old.ts:5:1"),
        (TWIN, TRACE, None),
    ],
)
def test_soon_after_a_deployment_either_code_may_have_run(
    machine: Machine, former: str | None, trace: str, place: str | None
) -> None:
    """The edge answers with the former code for a while: the code that the trace fits ran, if it fits only one."""
    machine.builds(Built(OLD, source_map=map_to("old.ts", 4)), Built(NEW, source_map=map_to("greet.ts", 9)))
    machine.knows(live=NEW, former=former)
    placed = machine.place(record(trace, DEPLOYED + timedelta(seconds=EDGE)))
    if place is None:
        assert placed.places is Places.UPLOADED
        assert placed.reason == "it ran within 60 s of a deployment, so maybe with the code before it"
    else:
        assert (placed.places, stack(placed)) == (Places.SOURCE, f"TypeError: no\n    at greet ({place})")


def test_soon_after_a_rollback_the_code_that_failed_may_have_run(machine: Machine) -> None:
    """Its own map leads its trace back; where it was not built here, nothing is certain in that minute."""
    machine.builds(Built(OLD, source_map=map_to("bad.ts", 4)), Built(NEW, source_map=map_to("greet.ts", 9)))
    machine.knows(live=NEW, former=NEW, bad=OLD)
    assert stack(machine.place(record(OLD_TRACE, DEPLOYED))) == "TypeError: no\n    at greet (bad.ts:5:1)"
    machine.knows(live=NEW, former=NEW, bad=TWIN)
    assert machine.place(record(at=DEPLOYED)).reason == "the code that may have run was not built on this machine"
    assert machine.place(record()).places is Places.SOURCE


def test_a_machine_that_built_nothing_shows_the_places_of_the_uploaded_code(machine: Machine) -> None:
    """No state folder is needed, and none is made."""
    placed = machine.place(record())
    assert (placed.places, stack(placed)) == (Places.UPLOADED, TRACE)
    assert not machine.folder.exists()
    machine.builds(Built(NEW, source_map="{"))
    assert machine.place(record()).reason == "the source map of the code that runs is damaged"
