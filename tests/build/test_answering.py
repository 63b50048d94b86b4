"""An exported value that no request can be given to is refused at its place; whatever may have a `fetch` is not."""

from __future__ import annotations

import pytest

from tests.build.workbench import SCRIPT, answers, bad, good, needs_esbuild, needs_node, where

pytestmark = needs_esbuild

SILENT = {
    "an object": ("a.js", "export default { queue() {} }", (1, 16), "an object without `fetch`"),
    "an empty object": ("a.js", "export default {}", (1, 16), "an object without `fetch`"),
    "an object by a variable": (
        "a.js",
        "const worker = {\n  scheduled() {},\n};\nexport default worker",
        (1, 16),
        "an object without `fetch`",
    ),
    "an object by another name": (
        "a.js",
        "const worker = { queue() {} };\nexport { worker as default }",
        (1, 16),
        "an object without `fetch`",
    ),
    "an object that is used": (
        "a.js",
        "const w = { queue() {} };\nw.queue();\nexport default w",
        (1, 11),
        "an object without `fetch`",
    ),
    "an object that uses this": (
        "a.js",
        "export default { n: 1, queue() { this.n = 2 } }",
        (1, 16),
        "an object without `fetch`",
    ),
    "a frozen object": ("a.js", "export default Object.freeze({ queue() {} })", (1, 30), "an object without `fetch`"),
    "satisfies": ("a.ts", "export default { queue() {} } satisfies ExportedHandler<Env>", (1, 16), "an object without `fetch`"),
    "as": (
        "a.ts",
        "const w = { async email(m: any) {} } as ExportedHandler;\nexport default w",
        (1, 11),
        "an object without `fetch`",
    ),
    "a fetch that is text": ("a.js", "export default { fetch: 'https://x.y' }", (1, 16), "an object whose `fetch` is a string"),
    "a class": ("a.js", "export default class { queue() {} }", (1, 16), "a class without `fetch`"),
    "a class by its name": ("a.js", "class Jobs { run() {} }\nexport default Jobs", (1, 1), "a class without `fetch`"),
    "a static fetch": ("a.js", "export default class { static fetch() {} }", (1, 16), "a class without `fetch`"),
    "a number": ("a.js", "export default 42", (1, 16), "a number"),
    "text": ("a.js", "export default `hello`", (1, 16), "a string"),
    "a list": ("a.js", "export default [() => new Response('x')]", (1, 16), "a list"),
    "null": ("a.js", "export default null", (1, 16), "null"),
    "module.exports": ("a.js", "module.exports = 'x'", (1, 18), "a string"),
    "an exported handler": ("a.js", "export const handler = { queue() {} }", (1, 24), "an object without `fetch`"),
    "a handler that is an object": ("a.js", "const handler = { fetch() {} }", (1, 17), "an object"),
    "a type assertion": ("a.ts", "export default <ExportedHandler>{ queue() {} }", (1, 33), "an object without `fetch`"),
    "a second name": (
        "a.js",
        "const v = { queue() {} };\nconst w = v;\nexport default w",
        (1, 11),
        "an object without `fetch`",
    ),
    "an instance": (
        "a.js",
        "class A { queue() {} }\nexport default new A()",
        (2, 16),
        "an instance of a class without `fetch`",
    ),
    "an instance of a class without a name": (
        "a.js",
        "const a = new (class { queue() {} })(); a.queue(); export default a",
        (1, 11),
        "an instance of a class without `fetch`",
    ),
    "an instance of a class that extends another": (
        "a.js",
        "class B { queue() {} }\nclass A extends B {}\nexport default new A()",
        (3, 16),
        "an instance of a class without `fetch`",
    ),
    "a class that extends another without fetch": (
        "a.ts",
        "class B<T> { queue() {} }\nexport default class A extends B<string> {}",
        (2, 16),
        "a class without `fetch`",
    ),
    "an instance of the runtime's": ("a.js", "export default new Map()", (1, 16), "a `Map`"),
    "a variable without a value": ("a.js", "let w;\nexport default w", (1, 5), "undefined"),
    "a handler without a value": ("a.js", "let handler", (1, 5), "undefined"),
    "a name without a meaning": ("a.js", "export default worker", (1, 16), "declared nowhere"),
    "an operator": ("a.js", "export default -1", (1, 16), "a number"),
    "a fetch that is no function": (
        "a.js",
        "const fetch = {};\nexport default { fetch }",
        (2, 16),
        "an object whose `fetch` is an object",
    ),
    "a handler that is text": ("a.js", "var handler = 'x'", (1, 15), "a string"),
}


@pytest.mark.parametrize("what", SILENT)
def test_a_value_that_cannot_answer_a_request_is_refused_with_its_place(what: str) -> None:
    """Instead of a deployment that ends in an error, or answers each request with one."""
    name, code, place, said = SILENT[what]
    (problem,) = bad({name: code}, name)
    assert where(problem) == ("no-fetch", name, *place)
    assert f"is {said}: it cannot answer a request" in problem.message


@pytest.mark.parametrize(
    "code",
    [
        "import worker from './lib/worker.js';\nexport default worker",
        "export { default } from './lib/worker.js'",
        "import { default as w } from './lib/worker';\nexport { w as default }",
        "export { default } from './again.js'",
    ],
)
def test_a_default_export_of_another_file_is_looked_at_there(code: str) -> None:
    """The place is where the object is written; an import that this file completes is not refused."""
    texts = {
        "a.js": code,
        "lib/worker.js": "const w = { queue() {} };\nexport default w",
        "again.js": "export { default } from './lib/worker.js'",
    }
    (problem,) = bad(texts, "a.js")
    assert where(problem) == ("no-fetch", "lib/worker.js", 1, 11)
    assert "fetch" in good({**texts, "a.js": "import w from './lib/worker.js';\nw.fetch = () => 1;\nexport default w"}, "a.js")


@pytest.mark.parametrize(
    "code",
    [
        "export { worker as default } from './lib.js'",
        "import { worker } from './lib.js';\nexport default worker",
        "import { worker as w } from './lib.js';\nexport { w as default }",
        "export { default } from './again.js'",
        "import * as w from './named.js';\nexport default w",
    ],
)
@needs_node
def test_an_export_of_another_file_by_its_name_is_looked_at_there(code: str) -> None:
    """Of a whole file, `fetch` would be called."""
    answer = "fetch() { return new Response('x') }"
    texts = {
        "a.js": code,
        "lib.js": "export const worker = { queue() {} }",
        "again.js": "export { worker as default } from './lib.js'",
        "named.js": "export function queue() {}",
    }
    (problem,) = bad(texts, "a.js")
    whole = "named.js" in code
    assert where(problem) == ("no-fetch", *(("named.js", 1, 1) if whole else ("lib.js", 1, 23)))
    sound = texts | {"lib.js": f"export const worker = {{ {answer} }}", "named.js": f"export function {answer}"}
    more = texts | {"lib.js": "export * from './worker.js'", "named.js": "export * from './worker.js'"}
    more["worker.js"] = f"export const worker = {{ {answer} }};\nexport function {answer}"
    assert answers([good(files, "a.js") for files in (sound, more)], SCRIPT) == [(200, "x")] * 2


ANSWERING = {
    "an instance": "class A { fetch() { return new Response('x') } }\nexport default new A()",
    "an instance of a class that extends another": (
        "class B { fetch() { return new Response('x') } }\nclass A extends B {}\nexport default new A()"
    ),
    "an instance whose class is completed": (
        "class A {}\nObject.assign(A.prototype, { fetch: () => new Response('x') });\nexport default new A()"
    ),
    "an instance that a mixin completes": (
        "const mix = (B) => class extends B { fetch() { return new Response('x') } };\n"
        "class A extends mix(Object) {}\nexport default new A()"
    ),
    "an instance that a function completes": (
        "class A {}\nconst a = new A(), add = (o) => { o.fetch = () => new Response('x') };\nadd(a);\nexport default a"
    ),
    "a proxy": "export default new Proxy({}, { get: () => () => new Response('x') })",
    "an instance of a function": "function A() { this.fetch = () => new Response('x') }\nexport default new A()",
    "a global that the file makes": "globalThis.w = { fetch: () => new Response('x') };\nexport default w",
    "a property that is set later": "const w = {};\nw.fetch = () => new Response('x');\nexport default w",
    "a property in brackets": "const w = {}; w['fetch'] = () => new Response('x'); export default w",
    "an assigned object": "const w = {}; Object.assign(w, { fetch: () => new Response('x') }); export default w",
    "a function that adds": "const add = (o) => { o.fetch = () => new Response('x') };\nconst w = {}; add(w); export default w",
    "a second name": "const w = {}; const v = w; v.fetch = () => new Response('x'); export default w",
    "a spread object": "const base = { fetch: () => new Response('x') }; export default { ...base }",
    "a computed name": "const name = 'fetch'; export default { [name]: () => new Response('x') }",
    "a quoted name": "export default { 'fetch': () => new Response('x') }",
    "a getter": "export default { get fetch() { return () => new Response('x') } }",
    "a frozen object": "export default Object.freeze({ fetch: () => new Response('x') })",
    "an object frozen later": "const w = { fetch: () => new Response('x') }; Object.freeze(w); export default w",
    "an app with methods": (
        "class App { routes = []; get(f) { this.routes.push(f); return this } fetch = () => this.routes[0]() }\n"
        "const app = new App();\napp.get(() => new Response('x'));\nexport default app"
    ),
    "a class that extends another": "class A { fetch() { return new Response('x') } }\nexport default class extends A {}",
    "an object that sets it": "const w = { on() { this.fetch = () => new Response('x') } };\nw.on();\nexport default w",
    "a field": "export default class { fetch = () => new Response('x') }",
    "a prototype": "class W {}\nW.prototype.fetch = () => new Response('x');\nexport default W",
    "a constructor": "export default class { constructor() { this.fetch = () => new Response('x') } }",
    "a variable that is set later": "let w;\nw = { fetch: () => new Response('x') };\nexport default w",
    "an exported handler with fetch": "export const handler = { fetch() { return new Response('x') } }",
    "a handler that is set later": "var handler = null;\nhandler = () => new Response('x')",
}


@needs_node
@pytest.mark.parametrize("what", ANSWERING)
def test_a_value_that_may_answer_is_built_and_answers(what: str) -> None:
    """Whatever cannot be known from the file gets the benefit of the doubt."""
    assert answers([good({"a.js": ANSWERING[what]}, "a.js")], SCRIPT) == [(200, "x")]


def test_the_format_of_service_workers_is_named() -> None:
    """Kapso never dispatches events."""
    (problem,) = bad("const reply = () => new Response('x');\naddEventListener('fetch', (event) => event.respondWith(reply()))")
    assert where(problem) == ("no-handler", "greet.js", 2, 1)
    assert "addEventListener" in problem.message
