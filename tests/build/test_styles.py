"""Every way to write a function, built for both target styles, and run to see that it answers right."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from inline_snapshot import snapshot

from kapso_sync.build import Target
from kapso_sync.model.desired import CodeStyle, DesiredFunction
from kapso_sync.model.policies import Contract
from tests.build.plain import MODULES, SCRIPTS
from tests.build.workbench import MODULE, SCRIPT, Texts, Workbench, answers, bad, entry, good, needs_esbuild, needs_node

pytestmark = needs_esbuild

LIB: Mapping[str, str] = {
    "lib/greeting.ts": (
        'import { decorate } from "./deep/decorate.js";\nimport names from "./names.json";\nimport mark from "./mark.txt";\n'
        "export enum Tone { Warm = 1, Cold }\n"
        "export function greeting<T extends { name: string }>(to: T, tone: Tone = Tone.Warm): string {\n"
        "  return decorate(`${names[tone - 1]} ${to.name}`) + mark.trim();\n}\n"
        'export const unused = "never asked for";\n'
    ),
    "lib/deep/decorate.ts": (
        'import { star } from "./er/star";\nexport const decorate = (text: string): string => star + text + star;\n'
    ),
    "lib/deep/er/star.ts": 'import type { decorate } from "../decorate";\nexport const star = "★";\n',
    "lib/names.json": '["Hola", "Hmpf"]',
    "lib/mark.txt": "!\n",
}
SAID = "★Hola Ada★!"
IMPORT = 'import { greeting, Tone } from "./lib/greeting";\n'

STYLES: Mapping[str, tuple[str, str]] = {
    "script with imports": ("a.js", "async function handler(r) { return SAY; }"),
    "script in TypeScript": ("a.ts", "async function handler(r: Request) { return SAY } // end"),
    "constant in TypeScript": ("a.ts", "const handler = async (r: Request): Promise<Response> => SAY;"),
    "export default function": ("a.ts", "export default async function handler(r: Request) { return SAY; }"),
    "export default anonymous": ("a.ts", "export default async function (r: Request) { return SAY; }"),
    "export default arrow": ("a.js", "export default async (r) => SAY"),
    "export default expression": (
        "a.js",
        "const safe = (f) => async (...all) => f(...all);\nexport default safe(async (r) => SAY);",
    ),
    "export default object": (
        "a.ts",
        (
            "interface Env { SECRET: string }\n"
            "export default {\n  async fetch(r: Request, env: Env): Promise<Response> {\n"
            "    return new Response(env.SECRET && greeting(await r.json(), Tone.Warm));\n  },\n} satisfies Handler<Env>;"
        ),
    ),
    "export default named object": (
        "a.js",
        (
            "const worker = { say: greeting, async fetch(r) { return new Response(this.say(await r.json())) } };\n"
            "export default worker;"
        ),
    ),
    "object made by a call": ("a.js", "const make = (f) => ({ fetch: f });\nexport default make(async (r) => SAY);"),
    "export as default": ("a.js", "async function go(r) { return SAY }\nexport { go as default };"),
    "named export": ("a.ts", "export async function handler(r: Request) { return SAY; }"),
    "named export of a list": ("a.js", "const handler = async (r) => SAY;\nexport { handler };"),
    "named export of another name": ("a.js", "const go = async (r) => SAY;\nexport { go as handler };"),
    "default from elsewhere": ("a.js", 'export { default } from "./other";'),
    "decorated, the standard way": (
        "a.ts",
        (
            "function loud(method: Function, _: unknown) {\n"
            "  return function (this: unknown, ...all: unknown[]) { return method.apply(this, all) }\n}\n"
            "class Greeter { @loud say(to: { name: string }) { return greeting(to) } }\n"
            "export default async (r: Request) => new Response(new Greeter().say(await r.json()));"
        ),
    ),
    "JSX": (
        "a.tsx",
        (
            "const h = (tag: string, _: unknown, ...inner: string[]) => inner.join('');\n/** @jsx h */\n"
            "export default async (r: Request) => new Response(<b>{greeting(await r.json())}</b>);"
        ),
    ),
    "cyclic imports": (
        "a.js",
        'import { go } from "./circle/one.js";\nexport default async (r) => new Response(go(3, await r.json()));',
    ),
    "a late import": (
        "a.js",
        'export default async (r) => {\n  const { greeting } = await import("./lib/greeting");\n  return SAY;\n};',
    ),
}
"""A file for each style. Each imports the shared library; SAY stands for the answer that they all give."""

OTHERS: Mapping[str, str] = {
    **LIB,
    "other.ts": f"{IMPORT}export default async (r: Request) => new Response(greeting(await r.json()));",
    "circle/one.js": 'import { back } from "./two.js";\nimport { greeting } from "../lib/greeting";\n'
    "export const go = (n, to) => (n ? back(n - 1, to) : greeting(to));",
    "circle/two.js": 'import { go } from "./one.js";\nexport const back = (n, to) => go(n, to);',
}

COMMONJS = {
    "the function itself": "module.exports = async (r) => HI;",
    "a property": "exports.handler = async (r) => HI;",
    "an object": "async function handler(r) { return HI }\nmodule.exports = { handler, other: 1 };",
    "with fetch": "module.exports = { async fetch(r) { return HI } };",
    "helpers only": "exports.other = 1;\nasync function handler(r) { return HI }",
    "twice": "const handler = async (r) => HI;\nmodule.exports = handler;\nmodule.exports.handler = handler;",
}


def styled(code: str, target: Target) -> str:
    """The code as it would be uploaded in the style of a target."""
    function = DesiredFunction(entry("a.js"), code, style=CodeStyle.SCRIPT)
    return function.in_style(CodeStyle.MODULE if target is MODULE else CodeStyle.SCRIPT).code


def texts_for(name: str, code: str) -> Texts:
    return {**OTHERS, name: IMPORT + code.replace("SAY", "new Response(greeting(await r.json()))")}


@needs_node
@pytest.mark.parametrize("target", [SCRIPT, MODULE])
def test_every_code_style_runs_as_a_script_and_as_a_module(target: Target) -> None:
    """Types, enums, generics, decorators, JSX, JSON, text, unicode, three levels of shared modules, circles."""
    built = [styled(good(texts_for(*given), given[0]), target) for given in STYLES.values()]
    assert dict(zip(STYLES, answers(built, target), strict=True)) == dict.fromkeys(STYLES, (200, SAID))
    for name, code in zip(STYLES, built, strict=True):
        assert code.startswith("// Built by kapso-sync from a.")
        assert ("\nexport default {" in code) is (target is MODULE)
        assert "never asked for" not in code or name == "a late import"
        assert not any(line.startswith("import ") for line in code.splitlines())


@needs_node
@pytest.mark.parametrize("target", [SCRIPT, MODULE])
def test_commonjs_is_built_without_require(target: Target) -> None:
    """However `module.exports` is set; only `require` is refused."""
    codes = [code.replace("HI", "new Response('hi ' + (await r.json()).name)") for code in COMMONJS.values()]
    built = [styled(good(code), target) for code in codes]
    assert dict(zip(COMMONJS, answers(built, target), strict=True)) == dict.fromkeys(COMMONJS, (200, "hi Ada"))


@needs_node
def test_plain_modules_are_compiled_for_a_base_that_takes_scripts() -> None:
    """The plain module of Kapso's manual runs on both bases."""
    built = [good(code) for code in MODULES]
    assert all("\nasync function handler(request, env, ctx) {\n" in code for code in built)
    sound = [code for source, code in zip(MODULES, built, strict=True) if "'x'" in source]
    assert answers(sound, SCRIPT) == [(200, "x")] * len(sound)


@needs_node
def test_a_class_entrypoint_is_instantiated_for_each_request() -> None:
    """As Workers do: `new Entry(ctx, env)`."""
    code = "export default class { constructor(ctx, env) { this.env = env } fetch() { return new Response(this.env.SECRET) } }"
    assert answers([good(code)], SCRIPT) == [(200, "s3cret")]


def test_a_built_script_declares_only_handler_at_top_level() -> None:
    """One banner line and readable code; no other name of it is visible at the top level."""
    assert good(texts_for("a.ts", STYLES["export default object"][1]), "a.ts") == snapshot("""\
// Built by kapso-sync from a.ts: edit that file, not this.
const built = (() => {
"use strict";
// lib/deep/er/star.ts
var star = "★";

// lib/deep/decorate.ts
var decorate = (text) => star + text + star;

// lib/names.json
var names_default = ["Hola", "Hmpf"];

// lib/mark.txt
var mark_default = "!\\n";

// lib/greeting.ts
function greeting(to, tone = 1 /* Warm */) {
  return decorate(`${names_default[tone - 1]} ${to.name}`) + mark_default.trim();
}

// a.ts
var a_default = {
  async fetch(r, env) {
    return new Response(env.SECRET && greeting(await r.json(), 1 /* Warm */));
  }
};
return a_default;
})();
async function handler(request, env, ctx) {
  return built.fetch(request, env);
}
""")


@needs_node
def test_names_in_the_code_do_not_collide_with_names_of_the_build() -> None:
    """The author may use `built` and `handler` as names."""
    code = (
        "export const built = 'b'; const handler = 'h'; const request = 'r';\n"
        "export default () => new Response(built + handler + request + typeof built_)"
    )
    built = good(code)
    assert "const built__ = (() => {" in built
    assert answers([built], SCRIPT) == [(200, "bhrundefined")]


def test_a_style_setting_decides_script_or_module_output() -> None:
    """Per function or for all; a plain file that has the style already is uploaded unchanged."""
    code = MODULES[1]
    assert "async function handler(request, env, ctx)" in good(code, entry("greet.js", Contract.SCRIPT), MODULE)
    assert good(code, entry("greet.js", Contract.MODULE), SCRIPT) == code
    typescript = {"greet.ts": "export default (r: Request) => new Response('x')"}
    assert "export {" in good(typescript, entry("greet.ts", Contract.MODULE), SCRIPT)
    everywhere = Workbench(Target(Contract.SCRIPT)).build(typescript, "greet.ts")
    assert "async function handler(request, env, ctx)" in everywhere.functions[0].code
    script = Workbench(Target(Contract.SCRIPT)).build({"greet.js": SCRIPTS[0]}, "greet.js")
    assert script.functions[0].code == SCRIPTS[0]


@needs_node
def test_code_is_minified_only_when_the_setting_asks_for_it() -> None:
    """The code is smaller and still runs; script style is built for it too."""
    for name, code in (("a.js", SCRIPTS[0]), ("a.ts", "export default (r: Request) => new Response('x')")):
        small = good({name: code}, entry(name, minify=True))
        assert small.startswith("// Built by kapso-sync from ")
        assert "\n  return new Response" not in small
        assert answers([small], SCRIPT) == [(200, "x")]


@needs_node
def test_standard_and_typescript_decorators_are_compiled() -> None:
    """The standard ones, and TypeScript's own where tsconfig.json asks for them."""
    code = (
        "function mark(target: any, name: string) { target.marks = [...(target.marks ?? []), typeof name] }\n"
        "class A { @mark a = 1; @mark b() {} }\n"
        "export default () => new Response(String((A.prototype as any).marks));"
    )
    config = '{\n  // ours\n  "compilerOptions": { "experimentalDecorators": true, /* and */ "strict": true, },\n}\n'
    built = good({"a.ts": code, "tsconfig.json": config}, "a.ts")
    assert answers([built], SCRIPT) == [(200, "string,string")]
    assert "__decorateElement" in good({"a.ts": code}, "a.ts")


def test_an_unreadable_tsconfig_fails_only_typescript_functions() -> None:
    """The error has its place; plain JavaScript does not need the file."""
    texts = {"a.ts": "export default () => 1 as number", "tsconfig.json": '{ "compilerOptions": { oops oops } }'}
    (problem,) = bad(texts, "a.ts")
    assert (problem.code, problem.location and problem.location.file) == ("tsconfig", "tsconfig.json")
    assert good({**texts, "b.js": SCRIPTS[0]}, "b.js") == SCRIPTS[0]


@pytest.mark.parametrize(
    ("name", "code", "place"),
    [
        ("a.ts", "export default async (r: Request) => {\n  const x = 1\n  return new Response(x.;\n}\n", (3, 25)),
        ("a.js", "import './b.js';\nexport default () => {\n  return [1, 2;\n}\n", (3, 15)),
    ],
)
def test_a_syntax_error_in_built_code_shows_the_place_that_esbuild_names(name: str, code: str, place: tuple[int, int]) -> None:
    """Not the place where our parser stopped: esbuild is exact, and the line is shown."""
    (problem,) = bad({name: code, "b.js": ""}, name)
    assert problem.location is not None
    assert (problem.location.line, problem.location.column) == place
    assert problem.frame is not None


@needs_node
def test_syntax_that_our_parser_does_not_know_is_left_to_esbuild() -> None:
    """`const` type parameters and variance are TypeScript that the grammar does not know yet."""
    code = (
        "function one<const T extends readonly unknown[]>(list: T): T[0] { return list[0] }\n"
        "interface Box<in out T> { value: T }\n"
        "export default () => new Response(one(['x'] as const));"
    )
    assert answers([good({"a.ts": code}, "a.ts")], SCRIPT) == [(200, "x")]
