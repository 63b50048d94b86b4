"""State files of released versions are read by today's code, and lose nothing when they are written again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kapso_sync.model.desired import WatchPolicy
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.state import IntentKind, QuarantineReason, Tally
from kapso_sync.notifications.issues import decode, encode
from kapso_sync.store.database import StateStore, read_state
from kapso_sync.store.history import read_history
from kapso_sync.store.json_file import PrivateJsonFile

GOLDEN = Path(__file__).parents[1] / "golden" / "v0.1.0"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder of version 0.1.0: a quarantine, secrets, a rename, a deletion that waits, an open create."""
    shutil.copytree(GOLDEN, tmp_path / "state")
    return tmp_path / "state"


def rows(folder: Path) -> dict[str, Any]:
    """Every JSON document of the database."""
    with closing(sqlite3.connect(folder / "state.db")) as db:
        functions = {
            f"function {key}": json.loads(text) for key, text in db.execute("SELECT function_id, record FROM functions")
        }
        intents = {f"intent {key}": json.loads(text) for key, text in db.execute("SELECT id, record FROM intents")}
        meta = {f"meta {key}": _parsed(value) for key, value in db.execute("SELECT key, value FROM meta")}
    return functions | intents | meta


def _parsed(text: str) -> Any:
    """Return a JSON list of records; anything else is compared as the text that it is."""
    return json.loads(text) if text.startswith("[{") else text


def contains(new: Any, old: Any) -> bool:
    """Tell whether everything in ``old`` stands in ``new`` as well; new keys may have come."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and contains(new[key], value) for key, value in old.items())
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(contains, new, old))
    return bool(new == old)


def test_state_of_version_0_1_0_is_read(folder: Path) -> None:
    """Each kind of record, with the meaning it had."""
    memory = read_state(folder)
    by_slug = {owned.slug: owned for owned in memory.owned.values()}
    assert set(by_slug) == {"checked", "leaving", "new-name", "over-quota", "with-secrets"}
    quarantine = by_slug["checked"].quarantine
    assert quarantine is not None
    assert (quarantine.fault, quarantine.error[:14]) == (QuarantineReason.CHECK, "check 1 failed")
    assert dict(by_slug["with-secrets"].secrets.digests) == {"OTHER": "0123abcd:other-digest", "TOKEN": "0123abcd:token-digest"}
    assert by_slug["new-name"].stored["runtime_config"] == {"timeout": 30}
    assert by_slug["over-quota"].live is None
    live = by_slug["leaving"].live
    assert live is not None
    assert live.deployed_at == datetime(2026, 1, 1, 0, 0, 12, tzinfo=UTC)
    (intent,) = memory.intents
    assert (intent.kind, intent.slug, intent.id) == (IntentKind.CREATE, "half-done", 17)
    assert memory.quota is not None
    assert memory.quota.fits == 4
    assert memory.project_id == "id-0001"
    assert memory.manifest_present
    assert set(memory.versions) == {"id-0003"}
    assert memory.renames is not None
    assert memory.renames["new-name"].sources == ("old-name",)
    assert memory.missing["id-0005"].suspects == ("half-done", "over-quota")


def test_state_of_version_0_1_0_loses_nothing_when_written_again(folder: Path) -> None:
    """Old keys keep their names and values; a control shows that a lost key is noticed."""
    before = rows(folder)
    with StateStore(folder, lambda: NOON) as store:
        assert store.set_aside is None
        memory = store.load_state()
        store.remember(*memory.owned.values())
        for intent in memory.intents:
            store.close(intent.id)
            before[f"intent {store.begin(intent)}"] = before.pop(f"intent {intent.id}")
        store.remember_quota(memory.quota)
        store.remember_renames(memory.renames or {})
        store.remember_missing(memory.missing.values())
    after = rows(folder)
    assert contains(after, before)
    del after["function id-0005"]["secrets"]["exact"]
    assert not contains(after, before)


def test_history_of_version_0_1_0_is_read(folder: Path) -> None:
    """With the commit of each entry, under the slug that the function had then."""
    entries = read_history(folder, "checked")
    assert [entry["event"] for entry in entries][:3] == ["function.created", "deploy.succeeded", "function.backed_up"]
    assert {entry["author"] for entry in entries} == {"Ada Lovelace"}
    assert "rollback.succeeded" in {entry["event"] for entry in entries}


def test_notification_records_of_version_0_1_0_are_read(folder: Path) -> None:
    """After an upgrade nobody is notified again of the same issue."""
    kept = PrivateJsonFile(folder / "told.json").read()
    issues = decode(kept["standing"])
    assert [(key, str(issue.kind), issue.text) for key, issue in issues.items()] == [
        ("function/checked", "stalled", "check 1 failed"),
        ("suspended", "suspended", "moving house"),
    ]
    assert encode(issues) == kept["standing"]


def test_state_of_version_0_2_0_is_read(tmp_path: Path) -> None:
    """What came after 0.1.0: the evidence of a quarantine, a watch with its verdict, a function that a WhatsApp Flow has."""
    shutil.copy(GOLDEN.with_name("v0.2.0") / "state.db", tmp_path)
    memory = read_state(tmp_path)
    by_slug = {owned.slug: owned for owned in memory.owned.values()}
    quarantine = by_slug["checked"].quarantine
    assert quarantine is not None
    assert quarantine.evidence == Evidence(
        ("error TypeError: no price", "      at total (lib/total.ts:4:16)"), "lib/total.ts:4:16"
    )
    assert by_slug["with-secrets"].whatsapp_flow == "1203"
    watch = memory.watches["id-0005"]
    assert (watch.policy, watch.before, watch.after) == (WatchPolicy(600.0, 3, 50), Tally(20, 1), Tally(6, 5))
    assert watch.until == datetime(2026, 11, 29, 12, 10, tzinfo=UTC)
    assert watch.finding is not None
    assert watch.finding.evidence == Evidence(("error TypeError: no price",), "lib/total.ts:4:16")
    before = rows(tmp_path)
    with StateStore(tmp_path, lambda: NOON) as store:
        store.remember(*store.load_state().owned.values())
        store.remember_watch(watch)
    assert contains(rows(tmp_path), before)
