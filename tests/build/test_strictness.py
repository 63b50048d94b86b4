"""Code that only sloppy mode runs stays sloppy when it is built, and is refused where it would become strict."""

from __future__ import annotations

import pytest

from kapso_sync.build.scopes import Scopes
from kapso_sync.build.syntax import Grammar, parse
from kapso_sync.model.desired import CodeStyle
from tests.build.workbench import SCRIPT, Workbench, answers, bad, build, entry, good, needs_esbuild, needs_node, where

pytestmark = needs_esbuild

SLOPPY = {
    "undeclared loop variables": (
        "for (n = 0; n < 3; n++) {} for (k in { a: 1 }) {} for (v of ['z']) {}",
        "String(n) + k + v",
        "3az",
    ),
    "an undeclared destructuring": ("[p, { q = 'q' }] = ['p', {}];", "p + q", "pq"),
    "with": ("var shop = { open: 'yes' }; var said; with (shop) { said = open }", "said", "yes"),
    "octal literals": ("var mode = 0644, letter = '\\101';", "mode + letter", "420A"),
    "arguments.callee": ("var f = function (n) { return n < 2 ? 1 : n * arguments.callee(n - 1) };", "String(f(4))", "24"),
    "parameters of one name": ("function last(a, a) { return a }", "last('x', 'y')", "y"),
    "a deleted variable": ("var gone = 1; var was = String(delete gone);", "was", "false"),
    "reserved words as names": ("var let = 'l', static = 's', package = 'p';", "let + static + package", "lsp"),
    "a function used outside of its block": ("if (true) { function inner() { return 'in' } }", "inner()", "in"),
    "a function with a label": ("tag: function tagged() { return 'tag' }", "tagged()", "tag"),
    "a function behind an if": ("if (true) function quick() { return 'q' }", "quick()", "q"),
    "this at the top level": (
        "this.first = 1; (function (root) { root.second = 2 })(this); var third = () => typeof this.first;",
        "String(first + second) + third()",
        "3number",
    ),
    "this for the global object": ("var root = (function () { return this })();", "typeof root", "object"),
}
HOW = {
    "minified": ("a.js", "async function handler() { return SAY }", True),
    "assigned to module.exports": ("a.js", "module.exports = async () => SAY", False),
    "assigned to exports.handler": ("a.js", "exports.handler = async () => SAY", False),
    "with exports as a variable": ("a.js", "var exports = module.exports = {}; exports.handler = async () => SAY", False),
    "in a .cjs file": ("a.cjs", "module.exports = { fetch: async () => SAY }", False),
    "in TypeScript": ("a.ts", "async function handler(): Promise<Response> { return SAY }", False),
}


AS_IN_NODE = frozenset(
    {("this at the top level", how) for how in HOW if how.startswith(("assigned", "with exports", "in a .cjs"))}
)
"""In a file that sets `module.exports`, `this` is its `exports` and not the global object, as Node has it."""


@needs_node
@pytest.mark.parametrize(("what", "how"), [(what, how) for what in SLOPPY for how in HOW if (what, how) not in AS_IN_NODE])
def test_a_sloppy_script_still_works_after_a_build(what: str, how: str) -> None:
    """It answers as it would if it went up byte for byte, and has no second try as a module, which is strict."""
    before, said, answer = SLOPPY[what]
    name, code, minify = HOW[how]
    made = build({name: f"{before}\n{code.replace('SAY', f'new Response({said})')}\n"}, entry(name, minify=minify))
    assert (made.compiled, answers([made.code], SCRIPT)) == (True, [(200, answer)])  # type: ignore[union-attr]
    rewritten = what in ("octal literals", "this at the top level")  # esbuild writes decimal numbers, and `globalThis`
    assert made.style is (CodeStyle.SCRIPT if rewritten else None)  # type: ignore[union-attr]


@needs_node
def test_a_plain_sloppy_script_is_never_tried_as_a_module() -> None:
    """Byte for byte it runs; behind an `export` it would be strict. A script that needs no sloppiness keeps its second try."""
    code = "count = 0; function handler() { return new Response(String(++count)) }"
    made = Workbench().build({"a.js": code, "b.js": f"var {code}"}, "a.js", "b.js").functions
    assert [function.code for function in made] == [code, f"var {code}"]
    assert [function.style for function in made] == [None, CodeStyle.SCRIPT]


@needs_node
def test_a_script_with_use_strict_stays_strict() -> None:
    """The directive is the author's word."""
    code = "'use strict';\nexports.handler = () => new Response(typeof (function () { return this })())"
    assert answers([good(code)], SCRIPT) == [(200, "undefined")]


@pytest.mark.parametrize("what", sorted(SLOPPY.keys() - {"octal literals", "this at the top level"}))
def test_a_sloppy_file_that_becomes_a_part_of_strict_code_is_refused_with_its_place(what: str) -> None:
    """An entry with imports is a module; what it imports would be strict as well."""
    before, said, _ = SLOPPY[what]
    texts = {
        "a.js": "import lib from './lib.cjs';\nexport default () => lib",
        "lib.cjs": f"\n{before} module.exports = {said};",
    }
    (problem, *_) = bad(texts, "a.js")
    assert (where(problem)[:3], "strict mode" in problem.message) == (("strict-mode", "lib.cjs", 2), True)


@needs_node
def test_an_imported_commonjs_file_without_sloppy_code_is_built() -> None:
    """Also one with octal literals, which esbuild rewrites."""
    texts = {
        "a.js": "import { mode } from './lib.cjs';\nexport default () => new Response(mode)",
        "lib.cjs": "var i; for (i = 0; i < 2; i++) {} exports.mode = String(0644 + i);",
    }
    assert answers([good(texts, "a.js")], SCRIPT) == [(200, "422")]


def test_an_undeclared_variable_of_a_module_is_a_warning_with_its_place() -> None:
    """It throws an error only if that line runs; what the code makes a global itself is declared."""
    texts = {
        "a.js": "export default () => {\n  total = 1;\n  return new Response('x')\n}",
        "b.js": "globalThis.n = 0;\nexport default () => { n++ }",
    }
    made = Workbench().build(texts, "a.js", "b.js")
    told = [(n.code, str(n.location)) for n in made.notices if n.code == "undeclared"]
    assert told == [("undeclared", "a.js:2:3")]


@needs_node
def test_a_name_module_of_the_author_hides_nothing() -> None:
    """A script that calls a variable `module` is built without CommonJS."""
    code = "const module = 'mine'; function handler() { return new Response(module) }"
    assert answers([good(code, entry("a.js", minify=True))], SCRIPT) == [(200, "mine")]


@needs_node
def test_a_plain_script_may_have_names_of_commonjs_and_be_sloppy() -> None:
    """Its handler does not come through its `module`."""
    code = "var module = { exports: 1 }, exports = 2; sum = module.exports + exports;\n"
    code += "function handler() { return new Response(String(sum)) }"
    assert answers([good(code, entry("a.js", minify=True))], SCRIPT) == [(200, "3")]


@pytest.mark.parametrize("minify", [False, True])
def test_a_return_at_the_top_level_of_a_script_is_a_syntax_error(minify: bool) -> None:
    """Kapso refuses the script; a build would leave out what stands behind it. Inside of functions and methods it is none."""
    code = "function handler() { return new Response('a') }\nclass A { m() { return 1 } }\nif (handler.x) {\n  return\n}\n"
    problems = bad(code, entry("greet.js", minify=minify))
    assert where(problems[0]) == ("syntax", "greet.js", 4, 3)
    assert "`return` outside of a function" in problems[0].message
    good(code.replace("  return\n", ""), entry("greet.js", minify=minify))


def test_a_require_that_is_only_declared_is_none() -> None:
    """`declare` says that something else makes it, and nothing does."""
    code = "declare const require: any;\nconst a = require('a');\nexport default () => new Response(a)"
    assert "`require` does not work on Kapso" in bad(code, "greet.ts")[0].message


@pytest.mark.parametrize(
    "code",
    [
        "var a; a = 1; let b; b += 1; for (let i = 0; i < 1; i++); for (const [x, y] of z) { y }",
        "function f(a, { b, c: [d] = [] }, ...e) { a = b = d = e = 1; arguments[0] = 2 }",
        "try {} catch ({ message }) { message = 1 }\nclass A { m(x) { x = 1; this.y = 2 } }\nA = 1;",
        "f = 1; var f; g(); function g() { g = 2 } (h => { h = 1 })(); label: for (;;) break label;",
        "(function named() { named = 1 })(); new (function () { this.x = 1 })();\nconst o = { m() { return this } }; o.p = 2",
        "console = null; fetch = () => 1; self.counter = 0; counter++",
        "if (x) { function local() {} local() }",
        "enum E { A }\nnamespace N { let v = 1; v = 2 }\ndeclare let D: number;\nD = 1;\nfunction t(this: X, q?: 1) { q = 1 }",
    ],
)
def test_declared_names_are_not_taken_for_sloppy_code(code: str) -> None:
    """Parameters, patterns, hoisted variables, classes, globals of the runtime and those that the code makes."""
    grammar = Grammar.TYPESCRIPT if "enum" in code else Grammar.JAVASCRIPT
    assert Scopes(parse(code.encode(), grammar), code.encode()).sloppy() == []
