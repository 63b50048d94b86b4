"""The map of the Kapso CLI is edited in place: entries of functions that we manage, and not one other byte."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.errors import KapsoSyncError
from kapso_sync.manifest.remote_map import edited_remote_map, read_remote_map
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction
from kapso_sync.model.pull import MappedFunction

CODE = b"async function handler() {}\n"
DIGEST = hashlib.sha256(CODE).hexdigest()
DEPLOYED_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
REMOTE = RemoteFunction(
    "id-1", "greet", DeploymentStatus.DEPLOYED, None, last_deployed_at=DEPLOYED_AT, updated_at=DEPLOYED_AT, lock_version=4
)
GREET = MappedFunction(REMOTE, {"greet/index.js": CODE})
ENTRY = {
    "id": "id-1",
    "slug": "greet",
    "status": "deployed",
    "lastDeployedAt": "2026-01-01T12:00:00.000Z",
    "updatedAt": "2026-01-01T12:00:00.000Z",
    "lockVersion": 4,
    "files": {"functions/greet/index.js": DIGEST},
}

OTHERS = """\
{
  "workflows": { "x": [1.0, 1e5] },
  "functions": {
    "theirs": {"id": "id-9",   "slug": "theirs", "files": {}},
    "greet": {
      "id": "id-1",
      "note": 1.50,
      "updatedAt": "2026-01-01T13:00:00+01:00",
      "files": {
        "functions/greet/test.js": "aa"
      }
    }
  }
}
"""


def test_a_new_map_is_what_the_kapso_cli_writes() -> None:
    """It reads back, and a second time there is nothing to write."""
    made = edited_remote_map(None, [GREET], (), "functions")
    assert made is not None
    assert made.decode() == json.dumps({"functions": {"greet": ENTRY}}, indent=2) + "\n"
    assert read_remote_map(made).code_file("greet", DIGEST) == ("greet", "index.js")
    assert edited_remote_map(made, [GREET], (), "functions") is None
    assert edited_remote_map(None, [], (), "") is None


def test_only_what_changed_of_our_entries_is_written() -> None:
    """Others' entries, unknown keys, files of which nothing is known, and the spelling of an equal time stay byte for byte."""
    made = edited_remote_map(OTHERS.encode(), [GREET], (), "functions")
    assert made is not None
    assert made.decode() == OTHERS.replace(
        """\
        "functions/greet/test.js": "aa"
      }
""",
        f"""\
        "functions/greet/test.js": "aa",
        "functions/greet/index.js": "{DIGEST}"
      }},
      "slug": "greet",
      "status": "deployed",
      "lastDeployedAt": "2026-01-01T12:00:00.000Z",
      "lockVersion": 4
""",
    )


def test_entries_of_functions_that_were_renamed_or_deleted_go() -> None:
    """By their ids, which nobody else has."""
    before = edited_remote_map(None, [GREET], (), "functions")
    assert before is not None
    renamed = MappedFunction(RemoteFunction("id-1", "hello", DeploymentStatus.DRAFT, None), {})
    after = edited_remote_map(before, [renamed], (), "functions")
    assert after is not None
    assert json.loads(after) == {"functions": {"hello": {"id": "id-1", "slug": "hello", "status": "draft", "files": {}}}}
    gone = edited_remote_map(OTHERS.encode(), [], ("id-1",), "functions")
    assert gone is not None
    assert json.loads(gone)["functions"] == {"theirs": {"id": "id-9", "slug": "theirs", "files": {}}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"functions": []}',
        b'{"functions": {"a": 1}}',
        b'{"functions": {"a": {"files": 1}}}',
        b'{"functions": {}, "functions": {}}',
        b'{"a": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_a_file_that_the_cli_does_not_write_is_left_alone(content: bytes) -> None:
    """Nobody knows what an edit would do to it."""
    with pytest.raises(KapsoSyncError, match="is left as it is"):
        edited_remote_map(content, [GREET], (), "")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_entries = st.dictionaries(st.text(max_size=4), st.dictionaries(st.text(max_size=4), _json, max_size=3), max_size=3)


@given(
    st.dictionaries(st.text(max_size=4), _json, max_size=3),
    _entries,
    st.dictionaries(st.sampled_from(["id", "note", "status"]), _json, max_size=3),
    st.sampled_from([None, 0, 2, 4]),
    st.sampled_from(["", "\n", " \n"]),
)
def test_any_map_keeps_what_others_wrote(
    other: dict[str, Any], entries: dict[str, Any], ours: dict[str, Any], indent: int | None, ending: str
) -> None:
    """In any layout: what others wrote has the same value, and ours is as it is now."""
    before = {**other, "functions": {**entries, "greet": ours}}
    text = json.dumps(before, indent=indent, ensure_ascii=False) + ending
    made = edited_remote_map(text.encode(), [GREET], (), "functions")
    assert made is not None
    after = json.loads(made)
    assert after["functions"].pop("greet") == {**ours, **ENTRY}
    assert after == {**before, "functions": entries}
    assert edited_remote_map(made, [GREET], (), "functions") is None
    assert made.decode().endswith(f"}}{ending}")
