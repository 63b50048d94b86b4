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


ANSWERING = {
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
