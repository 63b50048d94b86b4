"""What goes up as it is, what is refused with a place, and what waits for a build."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.build import Builder, imported_files, target_for
from kapso_sync.build.contract import Style, inspect
from kapso_sync.errors import Location
from kapso_sync.manifest import read_manifest
from kapso_sync.model.desired import Contract, DesiredFunction, Entry, UnusableFunction
from kapso_sync.model.functions import Json
from kapso_sync.model.source import Revision, Snapshot, SourceFile

FUNCTIONS_BASE = "https://app.kapso.ai/api/v1"
PLATFORM_BASE = "https://api.kapso.ai/platform/v1"
EXAMPLES = Path(__file__).parents[2] / "functions.example"

SCRIPTS = [
    "async function handler(request, env) { return new Response('x'); }",
    "const handler = async (request, env) => new Response('x');",
    "let handler = function (request) { return new Response('x') }",
    "var handler = async request => new Response('x')",
    "// export default nothing\nfunction handler(r) { return new Response(`export default ${r.url}`) }",
    "/* module.exports = 1 */ function handler() { return new Response('require(1)'); }",
    "const re = /export default [/]/; const half = 4 / 2 / 1;\nfunction handler() { return new Response(re.source) }",
    "class A { static #n = 1; static { A.m = 2 } #p() {} has(o) { return #p in o } }\nfunction handler() { return new A() }",
    "const n = 1_000n ** 2n; let a = null; a ??= n?.x?.[0]?.(1) ?? 2;\nfunction handler() { return a }",
    "#!/usr/bin/env node\n'use strict'\nfunction handler() {}",
    "const exports_ = {}; exports_.a = 1; function handler() {}",
    "async function handler(r) { for await (const c of r.body) { if (c) continue } return tag`a${1}` }",
    "const { a: { b = [1, 2] } = {}, ...rest } = {}; function handler(x, y,) { return { ...rest, async *[b]() {} } }",
]
MODULES = [
    "export default { async fetch(request, env, ctx) { return new Response('x') } }",
    "export default async function (request, env) { return new Response('x') }",
    "export default (request) => new Response('x')",
    "const worker = { fetch() {} }; export default worker",
    "function handler() {}\nexport { handler as default }",
    "function handler() {}\nexport default handler",
    "export const helper = 1; export default class { fetch() {} }",
]


def build(
    code: str | bytes, *, name: str = "greet.js", base: str = FUNCTIONS_BASE, contract: Contract = Contract.AUTO, **fields: Json
) -> DesiredFunction | UnusableFunction:
    content = code if isinstance(code, bytes) else code.encode()
    entry = Entry("greet", name, Location("manifest.yaml", 3, 3), fields, contract)
    good, bad = Builder(target_for(base)).build([entry], {name: SourceFile(name, content)})
    return good[0] if good else bad[0]


@pytest.mark.parametrize("code", SCRIPTS)
def test_script_style_goes_anywhere_byte_for_byte(code: str) -> None:
    """A top-level ``handler``, however it is declared, and whatever is said in strings and comments."""
    for base in (FUNCTIONS_BASE, PLATFORM_BASE):
        built = build(code, base=base)
        assert isinstance(built, DesiredFunction), built
        assert built.code == code


@pytest.mark.parametrize("code", MODULES)
def test_module_style_goes_where_it_is_taken_and_waits_elsewhere(code: str) -> None:
    """Raw source is never sent to a base that would not run it."""
    built = build(code)
    assert isinstance(built, DesiredFunction), built
    assert built.code == code
    for held in (build(code, base=PLATFORM_BASE), build(code, contract=Contract.SCRIPT)):
        assert isinstance(held, UnusableFunction)
        assert held.blocked
        assert "needs a build that is not available" in held.problems[0].message


@pytest.mark.parametrize("code", [*SCRIPTS, *MODULES])
def test_what_is_taken_is_javascript(code: str, tmp_path: Path) -> None:
    """Node agrees that all of the above is sound code: these are no strawmen."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    path = tmp_path / ("x.mjs" if code in MODULES else "x.cjs")
    path.write_text(code, encoding="utf-8")
    subprocess.run(["node", "--check", str(path)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("code", "fault", "place"),
    [
        ("async function handler() {\n  return (;\n}\n", "syntax", (2, 10)),
        ("function handler() {", "syntax", (1, 21)),
        ("const x = 1;\n", "no-handler", (1, 1)),
        ("", "no-handler", (1, 1)),
        ("function handlers() {}", "no-handler", (1, 1)),
        ("{ function handler() {} }", "no-handler", (1, 1)),
        ("export function handler() {}", "named-export", (1, 17)),
        ("const handler = 1;\nexport { handler };", "named-export", (2, 10)),
        ("module.exports = { handler() {} }", "commonjs", (1, 1)),
        ("exports.handler = () => {}", "commonjs", (1, 1)),
        ("const fs = require('fs');\nfunction handler() {}", "require", (1, 12)),
        ("function* handler() {}", "generator", (1, 1)),
        ("export default async function* () {}", "generator", (1, 16)),
        ("function handler() {}\nvar handler = 1;", "two-handlers", (2, 5)),
        ("export default 1;\nexport default 2;", "two-handlers", (2, 1)),
    ],
)
def test_what_cannot_run_is_told_with_its_place(code: str, fault: str, place: tuple[int, int]) -> None:
    """Line and column in the file, the line itself, and what to do."""
    built = build(code)
    assert isinstance(built, UnusableFunction)
    assert not built.blocked
    (problem,) = built.problems
    assert problem.location is not None
    assert (problem.code, problem.location.line, problem.location.column) == (fault, *place)
    assert problem.hint


@pytest.mark.parametrize(
    ("code", "name", "said"),
    [
        ("export async function handler() {}", "greet.ts", "greet.ts:1:1"),
        ("import { x } from './x.js';\nasync function handler() {}", "greet.js", "it imports `./x.js`"),
        ("export { x } from 'pkg';\nexport default 1", "greet.js", "it imports `pkg`"),
        ("async function handler() { await import('./late.js') }", "greet.js", "it imports `./late.js`"),
        ("const handler = () => <div>hello</div>;", "greet.js", "it is JSX"),
        ("const handler = () => <br/>;", "greet.js", "it is JSX"),
    ],
)
def test_what_needs_a_build_is_blocked(code: str, name: str, said: str) -> None:
    """It waits, what runs stays, and it is no error of the author's."""
    if name.endswith(".ts"):
        code = "async function handler(request: Request): Promise<Response> { return new Response('x') }"
    built = build(code, name=name)
    assert isinstance(built, UnusableFunction)
    assert built.blocked
    assert said in str(built.problems[0])


def test_a_module_contract_needs_a_module() -> None:
    """The manifest says one thing and the file another."""
    built = build(SCRIPTS[0], contract=Contract.MODULE)
    assert isinstance(built, UnusableFunction)
    assert not built.blocked
    assert "`contract: module`" in built.problems[0].message


@pytest.mark.parametrize(("content", "code"), [(b"caf\xe9\n", "not-utf8"), (b"line\nwith \0", "binary")])
def test_what_is_no_text_is_refused(content: bytes, code: str) -> None:
    """Binary or Latin-1: with the line."""
    built = build(content)
    assert isinstance(built, UnusableFunction)
    assert built.problems[0].code == code


def test_supabase_functions_go_up_as_they_are() -> None:
    """TypeScript too: Deno runs it, and there is no handler contract."""
    code = "Deno.serve((r: Request) => new Response('x'))"
    built = build(code, name="greet.ts", function_type="supabase_function")
    assert isinstance(built, DesiredFunction)
    assert built.code == code


def test_windows_lines_and_a_byte_order_mark_go_up_untouched() -> None:
    """Byte for byte means just that."""
    code = "\ufeffasync function handler() {\r\n  return new Response('x');\r\n}\r\n"
    built = build(code)
    assert isinstance(built, DesiredFunction)
    assert built.code == code


def test_unchanged_files_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass over the same bytes costs nothing: it is remembered by content, so it also forgets what is gone."""
    builder = Builder(target_for(FUNCTIONS_BASE))
    entry = Entry("greet", "greet.js", Location("m", 1, 1))
    files = {"greet.js": SourceFile("greet.js", SCRIPTS[0].encode())}
    builder.build([entry], files)
    first = dict(builder._shapes)
    builder.build([entry], files)
    assert all(builder._shapes[key] is shape for key, shape in first.items())
    builder.build([], {})
    assert not builder._shapes


def test_the_examples_are_sound_in_both_styles() -> None:
    """All six build for the base that takes modules; on the other one the two modules wait."""
    files = {path.name: SourceFile(path.name, path.read_bytes()) for path in EXAMPLES.iterdir()}
    entries = read_manifest(Snapshot("example", Revision("c0ffee"), files=files)).entries
    good, bad = Builder(target_for(FUNCTIONS_BASE)).build(entries, files)
    assert (len(good), bad) == (6, ())
    good, bad = Builder(target_for(PLATFORM_BASE)).build(entries, files)
    assert (len(good), {function.blocked for function in bad}) == (4, {True})


def test_imports_are_followed_to_know_what_is_used() -> None:
    """Helpers of an entry are no strays; packages, missing files and ways out of the folder lead nowhere."""
    texts = {
        "a.js": "import './lib/b.js'; import 'pkg'; export * from './c'; export default 1",
        "lib/b.js": "import '../d/index.js'; import '../../../etc/passwd'; import './gone.js'",
        "c.ts": "import type { X } from './a.js'",
        "d/index.js": "import '../a.js'",
        "other.js": "",
    }
    files = {path: SourceFile(path, text.encode()) for path, text in texts.items()}
    entry = Entry("a", "a.js", Location("m", 1, 1))
    assert imported_files([entry], files) == {"a.js", "lib/b.js", "c.ts", "d/index.js"}


@given(
    st.text(max_size=60)
    | st.sampled_from([*SCRIPTS, *MODULES]).flatmap(lambda code: st.integers(0, len(code)).map(lambda cut: code[:cut]))
)
def test_no_code_makes_the_inspection_raise(code: str) -> None:
    """Whatever is committed, it is either sound or has a place where it is not."""
    for typescript in (False, True):
        shape = inspect(code.encode("utf-8", "surrogatepass"), typescript=typescript)
        assert (shape.error is None) or shape.style is Style.NONE
    assert isinstance(build(code.encode("utf-8", "surrogatepass")), DesiredFunction | UnusableFunction)
