"""Records of Kapso that are written into a folder: an archive of the folder, of the ``list`` and of the ``secrets``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from kapso_sync.cli.pull import OutputOptions, _print
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.json_values import Json
from kapso_sync.model.pull import FolderLayout
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.pull import procedure
from kapso_sync.reconcile.pull.planner import PullOptions
from kapso_sync.sources.folder import FolderSource
from kapso_sync.sources.writing import write_file
from tests.builders import OWNER
from tests.clock import VirtualClock
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw, dumps
from tests.fuzz.kapso import lying_kapso
from tests.fuzz.kit import builder_without_tools, check_outside, print_error, printed, workspace
from tests.fuzz.target import Target
from tests.fuzz.targets.api import record
from tests.fuzz.targets.folder import check_snapshot
from tests.fuzz.targets.folder import place as place_file

LAYOUTS = (None, FolderLayout.MANIFEST, FolderLayout.KAPSO)


def run(data: bytes) -> None:
    """Pull into the folder in every layout, and read it back."""
    sections = unpack(data)
    given = dict(sections)
    for layout in LAYOUTS:
        with workspace() as root:
            for name, content in sections:
                if name not in ("list", "secrets"):
                    place_file(root, name, content)
            asyncio.run(_pull(root, given, layout))
            check_outside(root)


async def _pull(root: Path, given: dict[str, bytes], layout: FolderLayout | None) -> None:
    rules = [{"on": "GET /functions", "body": _json(given.get("list", b""))}]
    rules += [{"on": "GET /functions/{id}/secrets", "body": _json(given.get("secrets", b""))}]
    async with lying_kapso(rules) as connected:
        try:
            snapshot = await FolderSource(root, None, top=None, emit=lambda _: None).fetch()
            deps = procedure.PullDeps(snapshot, OWNER, ReconcilerState(), builder_without_tools(), VirtualClock())
            plan = await procedure.pull(deps, connected.api, PullOptions(everything=True, force=layout is None, layout=layout))
            for change in plan.changes:
                write_file(root, change)
        except KapsoSyncError as error:
            print_error(error)
            return
        finally:
            connected.kapso.check()
        printed(lambda console: _print(console, plan, OutputOptions(diff=True)))
        after = await FolderSource(root, None, top=None, emit=lambda _: None).fetch()
    await asyncio.to_thread(check_snapshot, after)


def _json(text: bytes) -> Json:
    try:
        found: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


FOLDERS: tuple[dict[str, bytes], ...] = (
    {},
    {
        "manifest.yaml": b"version: 1\nfunctions:\n  greet: # kept\n    name: 'Hi'\n",
        "greet.js": b"async function handler() {}\n",
    },
    {"manifest.json": b'{"version": 1, "functions": {"greet": null}}\n', "greet.js": b"async function handler() {}\n"},
    {"greet/function.yaml": b"slug: greet\n", "greet/index.js": b"async function handler() {}\n"},
    {"manifest.yaml": b"{version: 1, functions: {greet: {description: x}}}\n", "greet.js": b"-> ../canary.js\n"},
    {"manifest.yaml": b"version: 1\n", "other.js": b"x\n", "Greet.js": b"y\n", "greet": b"a file\n"},
    {"greet": b"-> ..\n", "other": b"-> ../rootx\n"},
)


def make(draw: Draw) -> bytes:
    """A folder, and what Kapso says."""
    records = [record(draw) for _ in range(draw.pick((1, 2, 4)))]
    for number, each in enumerate(records):
        if draw.chance(0.7):
            each |= {"id": f"id-{number}", "slug": draw.pick(("greet", "other", f"n{number}", "con", "-", "a" * 255))}
    secrets = {
        "data": [{"name": draw.pick(("TOKEN", "lower", "A B", draw.text())), "type": draw.pick(("text", "json", "inherited"))}]
    }
    return pack({**draw.pick(FOLDERS), "list": dumps({"data": records}), "secrets": dumps(secrets)})


TOKENS = (
    b'"slug"',
    b'"name"',
    b'"code"',
    b'"description"',
    b"manifest.yaml",
    b"-> ..",
    b"functions:",
    b"{",
    b"#",
    b"export default ",
)
TARGETS = (Target("pull", run, make, TOKENS, cpu=20.0, share=2.0),)
