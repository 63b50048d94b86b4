"""Esbuild has the last word on syntax: what our parser does not know is no error, and what it overlooks is one."""

from __future__ import annotations

import pytest

from kapso_sync.build.sourcemap import SourceMap
from kapso_sync.build.syntax import Place
from kapso_sync.tools import ToolPlaces
from tests.build.workbench import SCRIPT, Workbench, answers, bad, build, entry, good, needs_esbuild, needs_node, where

UNKNOWN = {
    "an escape in a tagged template": ("const path = String.raw`C:\\users\\xyz`;", "path", "C:\\users\\xyz"),
    "a line break in a comment that ends a statement": ("let a = 1 /*\n*/ let b = 2;", "String(a + b)", "3"),
    "an HTML comment": ("<!-- once upon a time\nvar a = 'x';\n--> the end", "a", "x"),
}
STYLES = {
    "as it is": "async function handler() { return SAY }",
    "minified": "async function handler() { return SAY }",
    "a module": "export default { async fetch() { return SAY } }",
    "CommonJS": "exports.handler = async () => SAY",
}


@needs_esbuild
@needs_node
@pytest.mark.parametrize(
    ("what", "style"),
    [(what, style) for what in UNKNOWN for style in STYLES if (what, style) != ("an HTML comment", "a module")],
)
def test_syntax_that_only_esbuild_knows_is_accepted(what: str, style: str) -> None:
    """In each style, but that a module has no HTML comments; code that needs no build goes up byte for byte."""
    before, said, answer = UNKNOWN[what]
    code = f"{before}\n{STYLES[style].replace('SAY', f'new Response({said})')}\n"
    made = good({"a.js": code}, entry("a.js", minify=style == "minified"))
    assert answers([made], SCRIPT) == [(200, answer)]
    assert (made == code) == (style == "as it is")


@needs_esbuild
@needs_node
def test_what_such_a_file_imports_is_found() -> None:
    """Files, types, and a second file of the kind."""
    texts = {
        "a.ts": (
            "const p = String.raw`\\u`;\nimport type { Q } from './q';\nimport { b } from './b';\n"
            "export default { fetch: (): Response => new Response(p + b) } satisfies Q;"
        ),
        "b.ts": "export const b: string = String.raw`\\x`;",
        "q.ts": "export type Q = unknown;",
    }
    made = Workbench().build(texts, "a.ts")
    assert answers([made.functions[0].code], SCRIPT) == [(200, "\\u\\x")]
    assert made.used == set(texts)


@needs_esbuild
def test_problems_of_such_a_file_have_their_own_places() -> None:
    """Lines and columns of the file that the author sees, not of the one that was printed."""
    code = (
        "const p = String.raw`\\unicode`; // a comment\n\n\n  const é = 'é', x = require('x');\n"
        "import y from './gone.js';\n/* and\n another */ export default { queue() {} }\n"
    )
    assert [where(problem) for problem in bad({"a.js": code}, "a.js")] == [
        ("require", "a.js", 4, 22),
        ("unresolved-import", "a.js", 5, 15),
        ("no-fetch", "a.js", 7, 28),
    ]


OVERLOOKED = {
    "await in a function that is not async": ("function handler(r) {\n  const b = await r.json();\n}", (2, 13)),
    "a name that is declared twice": ("let a = 1;\nlet a = 2;\nfunction handler() { return a }", (2, 5)),
    "a break outside of a loop": ("function handler() {\n  break;\n}", (2, 3)),
    "a return of a yield": (
        "function handler() {\n  return yield_ + await_;\n}\nclass A extends B { m() { super(); } }",
        (4, 27),
    ),
}


@needs_esbuild
@pytest.mark.parametrize("what", OVERLOOKED)
def test_a_syntax_error_that_our_parser_overlooks_is_refused_with_its_place(what: str) -> None:
    """Code that goes up byte for byte would fail only after the deployment."""
    code, place = OVERLOOKED[what]
    (problem,) = bad({"a.js": code}, "a.js")
    assert where(problem) == ("syntax", "a.js", *place)
    assert problem.frame


@needs_esbuild
@needs_node
@pytest.mark.parametrize(
    "code",
    [
        "function mark(f) { return function () { return 'x' } }\nclass A { @mark m() {} }",
        "class A { accessor y = 'x'; m() { return this.y } }",
    ],
)
def test_syntax_that_workers_do_not_run_is_compiled_in_plain_scripts_too(code: str) -> None:
    """Decorators and accessors would be a syntax error after the deployment."""
    made = build({"a.js": f"{code}\nfunction handler() {{ return new Response(new A().m()) }}"}, "a.js")
    assert (made.compiled, answers([made.code], SCRIPT)) == (True, [(200, "x")])  # type: ignore[union-attr]


def test_without_esbuild_our_own_parser_decides() -> None:
    """What it takes for an error is refused, and nothing else is said of plain code."""
    bench = Workbench(places=ToolPlaces(None, (), []))
    texts = {
        "a.js": "function handler() { return 1 }",
        "b.js": "function handler() { return (; }",
        "c.js": OVERLOOKED["a break outside of a loop"][0],
    }
    made = bench.build(texts, "a.js", "b.js", "c.js")
    assert [function.slug for function in made.functions] == ["a", "c"]
    assert [(p.code, str(p.location)) for f in made.unusable for p in f.problems] == [("syntax", "b.js:1:29")]


def test_a_source_map_leads_back_over_wide_characters_and_lines() -> None:
    """Its columns count UTF-16 units, ours characters."""
    # One line `"🎉";b` printed of ` "🎉" ;\n  b`: segments (0 ← 1:1), (5 ← 2:2), as base64 VLQ.
    found = SourceMap(b'{"mappings": "AAAC,KACC"}', '"\U0001f389";b', ' "\U0001f389" ;\n  b')
    assert found.original(Place(1, 1, "text")) == Place(1, 2, "text")
    assert found.original(Place(1, 5)) == Place(2, 3)
    assert found.original(Place(9, 9)) == Place(1, 1)
