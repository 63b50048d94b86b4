"""Each place in built code leads back to its place in the source, whatever the code's style, and costs a daemon no memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kapso_sync.build.sourcemap import BundleMap
from kapso_sync.errors import Location
from kapso_sync.model.builds import Built, NoBuilds
from kapso_sync.model.desired import DesiredFunction, Entry
from kapso_sync.model.policies import Contract
from tests.build.workbench import Workbench, entry, needs_esbuild

pytestmark = needs_esbuild

MARK = "mark_of_the_test"

STYLES: dict[str, Entry] = {
    "default function": entry("a.ts"),
    "module": entry("a.ts", Contract.MODULE),
    "minified": entry("a.ts", minify=True),
    "object": entry("b.ts"),
    "class": entry("c.tsx"),
    "sloppy CommonJS": entry("d.js"),
    "sloppy script": entry("e.js", minify=True),
}
FILES = {
    "lib/said.ts": """// a line that no build keeps
export type Text = string;
export const said: Text =
  globalThis.lib_mark_of_the_test();
""",
    "a.ts": """import { said } from './lib/said';
export default async (r: Request) =>
  new Response(said + globalThis.mark_of_the_test());
""",
    "b.ts": """import { said } from './lib/said';

export default { async fetch(r: Request) {
  return new Response(said + 'é😀' + globalThis.mark_of_the_test()); } };
""",
    "c.tsx": """export default class { async fetch(r: Request, env: any) {

  const f = () => globalThis.mark_of_the_test();
  return new Response(f()); } }
""",
    "d.js": """var n = 010;
module.exports = function (r) {
  return new Response(n + globalThis.mark_of_the_test());
};
""",
    "e.js": """var n = 010;
// gone
function handler(r) {
  return new Response(n + globalThis.mark_of_the_test());
}
""",
}


class Kept(NoBuilds):
    """A store that shows what it was given, and gives nothing back."""

    def __init__(self) -> None:
        self.builds: dict[str, Built] = {}

    def put(self, key: str, built: Built) -> None:
        self.builds[key] = built


def places(text: str, mark: str) -> list[tuple[int, int]]:
    """Where a text has a mark: lines and columns from 1, in UTF-16 units."""
    return [
        (number, len(line[: line.index(mark)].encode("utf-16-le")) // 2 + 1)
        for number, line in enumerate(text.split("\n"), 1)
        if mark in line
    ]


def test_each_style_of_code_has_a_map_to_its_source() -> None:
    """The marks are found in the built code, and lead to the lines and columns that they have in their files."""
    store = Kept()
    for name, wanted in STYLES.items():
        store.builds.clear()
        made = Workbench(store=store).build(FILES, wanted)
        assert not made.unusable, (name, made.unusable)
        (built,) = store.builds.values()
        assert built.source_map is not None, name
        source_map = BundleMap(built.source_map)
        marks = {wanted.file: f"globalThis.{MARK}"}
        marks |= {"lib/said.ts": f"globalThis.lib_{MARK}"} if wanted.file < "c" else {}
        for file, mark in marks.items():
            (there,) = places(built.code, mark)
            (here,) = places(FILES[file], mark)
            assert source_map.original(*there) == Location(file, *here), (name, built.code)
        last = built.code.rstrip("\n").count("\n") + 1
        assert source_map.original(last, 1) is None or wanted.contract is Contract.MODULE, "nobody wrote what we add"
        assert source_map.original(1, 1) is None


@pytest.mark.parametrize("comment", ["//# {}={}", "//@ {}={}", "/*# {}={} */", "var s = `//# {}={}`; // {}"])
def test_no_file_that_code_names_as_its_map_is_read(tmp_path: Path, comment: str) -> None:
    """Esbuild reads a map that its input names, wherever it lies: a pipe would hold the build, and a wrong one would end it."""
    (tmp_path / "wrong").write_text("root:x:0:0")
    os.mkfifo(tmp_path / "pipe")
    for name in ("wrong", "pipe"):
        named = comment.format("sourceMappingURL", tmp_path / name, "")
        store = Kept()
        files = {"a.ts": f"{named}\n{FILES['a.ts']}", "lib/said.ts": f"{FILES['lib/said.ts']}{named}"}
        made = Workbench(store=store, deadline=10.0).build(files, "a.ts")
        assert not made.unusable, made.unusable
        (built,) = store.builds.values()
        assert built.source_map is not None
        (there,) = places(built.code, f"+ globalThis.{MARK}")
        (here,) = places(files["a.ts"], f"+ globalThis.{MARK}")
        found = BundleMap(built.source_map).original(there[0], there[1] + 2)
        assert found == Location("a.ts", here[0], here[1] + 2)


def test_a_source_map_is_handed_to_the_store_and_then_forgotten() -> None:
    """A daemon holds every build in memory, and no map."""
    store = Kept()
    bench = Workbench(store=store)
    (function,) = bench.build(FILES, "a.ts").functions
    assert isinstance(function, DesiredFunction)
    assert [built.source_map is not None for built in store.builds.values()] == [True]
    assert [known.source_map for known in bench.builder._known.values() if isinstance(known, Built)] == [None]


def test_code_whose_lines_a_map_cannot_count_has_none() -> None:
    """V8 ends a line at U+2028, which esbuild leaves where it is part of a value, and counts as part of its line."""
    store = Kept()
    Workbench(store=store).build({"a.ts": "export default () => new Response(String.raw`one\u2028two`);\n"}, "a.ts")
    assert [("\u2028" in built.code, built.source_map) for built in store.builds.values()] == [(True, None)]


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "{", '{"sources": [], "mappings": 3}', '{"sources": ["a"], "mappings": "é"}']
)
def test_what_is_no_source_map_is_refused(text: str) -> None:
    """A damaged file is an error that its reader knows."""
    with pytest.raises(ValueError, match=r"."):
        BundleMap(text)
