"""What a process makes of a source that it has read before is what another one makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kapso_sync.build import Builder
from kapso_sync.build.builder import Target
from kapso_sync.build.bundler import Bundler, Esbuild
from kapso_sync.model.desired import Desired
from kapso_sync.model.source import Revision, Snapshot, SourceFile
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.desired import DesiredBuilder
from kapso_sync.tools import ToolPlaces

CODE = b"async function handler() { return new Response('a'); }\n"
MANIFEST = b"version: 1\nfunctions:\n  a: {runtime_config: {limit: 1}}\n  b:\n    file: b.js\n"
START: Mapping[str, bytes | None] = {
    "manifest.yaml": MANIFEST,
    "a.js": CODE,
    "b.js": CODE,
    "c/function.yaml": b"name: C\n",
    "c/index.js": CODE,
}
CHANGES: Mapping[str, Mapping[str, bytes | None]] = {
    "nothing": {},
    "code": {"a.js": CODE.replace(b"'a'", b"'b'")},
    "code that is broken": {"a.js": b"async function handler( {"},
    "code that is not UTF-8": {"a.js": b"\xff"},
    "code that imports": {"a.js": b"import './lib.js';\n" + CODE, "lib.js": b"\n"},
    "code that may not be read": {"a.js": None},
    "one for true": {"manifest.yaml": MANIFEST.replace(b"limit: 1", b"limit: true")},
    "the manifest": {"manifest.yaml": MANIFEST.replace(b"  b:", b"  d:")},
    "a function.yaml": {"c/function.yaml": b"name: D\n"},
    "another folder": {"d/function.yaml": b"name: D\n", "d/index.js": CODE},
    "an unlisted file": {"e.js": CODE},
    "a misnamed file": {"e/function.yml": b"name: E\n", "e/index.js": CODE},
}


def snapshot(files: Mapping[str, bytes | None]) -> Snapshot:
    read = {path: SourceFile(path, content, None if content is not None else "is a link") for path, content in files.items()}
    return Snapshot("test", Revision("c0ffee"), "", read)


def builder(folder: Path) -> DesiredBuilder:
    return DesiredBuilder(Builder(Target(), Bundler(Esbuild(ToolPlaces(None, [folder], [])), 10.0)))


def told(desired: Desired) -> tuple[str, list[str]]:
    """Everything, spelled out: equality would take `1` for `true`."""
    return repr(desired), [function.code for function in desired.functions]


@pytest.mark.parametrize("what", CHANGES)
async def test_what_changed_since_the_last_pass_is_found(what: str, tmp_path: Path) -> None:
    """Files, what they declare, and what is wrong with them; and back again."""
    known, state = builder(tmp_path), ReconcilerState()
    start, changed = snapshot(START), snapshot({**START, **CHANGES[what]})
    first = told(await known(start, state))
    assert told(await known(start, state)) == first
    after = told(await known(changed, state))
    assert after == told(await builder(tmp_path)(changed, state))
    assert (after == first) == (what == "nothing")
    assert told(await known(start, state)) == first
