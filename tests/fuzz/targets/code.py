"""Code of a functions folder with its ``tsconfig.json``, as an archive; files at its top are entries.

``code`` checks it without esbuild, and ``bundle`` builds it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kapso_sync
from kapso_sync.build import Builder, BuildResult, Bundler, Esbuild, FolderPackages
from kapso_sync.build import Target as BuildTarget
from kapso_sync.errors import Location
from kapso_sync.model.desired import Desired, Entry
from kapso_sync.model.json_values import Json
from kapso_sync.model.policies import Contract
from kapso_sync.model.source import CODE_LIMIT, CODE_SUFFIXES, Revision, SourceFile
from kapso_sync.sources.file_rules import is_read
from kapso_sync.tools import ToolPlaces, own_copies
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw
from tests.fuzz.kit import NO_TOOLS, print_desired, workspace
from tests.fuzz.promises import BrokenPromise, check_no_canary
from tests.fuzz.target import Target

MAX_ENTRIES = 4
TOOLS = ToolPlaces(None, own_copies(Path(kapso_sync.__file__).parent, Path(sys.prefix)), [])


def run_parsed(data: bytes) -> None:
    """Check the code without esbuild, in every contract."""
    _build(data, NO_TOOLS, None)


def run_bundled(data: bytes) -> None:
    """Build the code with the real esbuild; packages come from a real folder with links out of it."""
    with workspace() as root:
        _write_packages(root, dict(unpack(data)))
        real = Path(os.path.realpath(root))
        _build(data, TOOLS, FolderPackages(real, real))


def _build(data: bytes, tools: ToolPlaces, packages: FolderPackages | None) -> None:
    files = {
        path: SourceFile(path, content)
        for path, content in unpack(data)
        if is_read(path.rpartition("/")[2]) and len(content) <= CODE_LIMIT and ".." not in path.split("/") and path[:1] != "/"
    }
    entries = _entries(files)
    for contract in (Contract.AUTO, Contract.MODULE):
        builder = Builder(BuildTarget(contract), Bundler(Esbuild(tools), 20.0))
        result = asyncio.run(builder.build(entries, files, packages))
        _check(result, entries)


def _entries(files: Mapping[str, SourceFile]) -> list[Entry]:
    paths = [path for path in sorted(files) if "/" not in path and path.endswith(CODE_SUFFIXES)][:MAX_ENTRIES]
    kinds: tuple[dict[str, Json], ...] = ({}, {"function_type": "supabase_function"})
    return [
        Entry(f"f{number}", path, Location("manifest.yaml", 1, 1), kinds["deno" in path], Contract.AUTO, minify="min" in path)
        for number, path in enumerate(paths)
    ]


def _check(result: BuildResult, entries: list[Entry]) -> None:
    if len(result.functions) + len(result.unusable) != len(entries):
        raise BrokenPromise("an entry has no result")
    for function in result.functions:
        check_no_canary(function.code)
    desired = Desired("test", Revision("c0ffee"), result.functions, result.unusable, result.notices)
    print_desired(desired)


def _write_packages(root: Path, files: Mapping[str, bytes]) -> None:
    modules = root / "node_modules"
    for name, content in files.items():
        if not name.startswith("node_modules/") or "\0" in name:
            continue
        path = root / name
        if ".." in path.parts or len(name) > 200:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content.startswith(b"-> "):
                path.symlink_to(content[3:].strip().decode("utf-8", "replace").replace("\0", ""))
            else:
                path.write_bytes(content)
        except OSError:
            continue
    if modules.is_dir():
        (modules / "leads-out").symlink_to(root.parent)


SNIPPETS = (
    "async function handler(request, env) { return new Response('x'); }",
    "export default { async fetch(request, env) { return new Response(env.A) } }",
    "export default async (request) => new Response()",
    "export async function handler() {}",
    "export { handler as default } from './lib.js';",
    "module.exports = { handler };",
    "exports.handler = async () => {};",
    "const handler = eval('x');",
    "const handler = new Function('request', 'return 1');",
    "import a from './lib.js';",
    "import type { A } from './types';",
    "import * as b from '../canary.js';",
    "import c from 'pkg';",
    "import d from 'pkg/../../canary.js';",
    "import e from './data.json';",
    "import f from './text.txt';",
    "import g = require('./lib');",
    "import 'https://esm.sh/x';",
    "import 'node:fs';",
    "import '/etc/passwd';",
    "import './sub/';",
    "import '.';",
    'import "./\\u006cib.js";',
    "import x from './lib.js?raw#y';",
    "import 'leads-out/canary.js';",
    "import 'file:///etc/passwd';",
    "import 'data:text/javascript,1';",
    "const l = await import('./lib.js');",
    "const m = import(`./${x}.js`);",
    "const n = require('./lib');",
    "process.env.A;",
    "function* handler() {}",
    "class handler {}",
    "var handler, handler;",
    "let x: number = 1 as any;",
    "enum E { A = 'a' }",
    "namespace N { export const a = 1 }",
    "@decorated class D { @x y }",
    "const el = <div>{1}</div>;",
    "const el = <></>;",
    "type A<T> = T extends [infer U, ...infer R] ? A<R> : never;",
    "label: for (const x of []) { break label }",
    "with (a) { b }",
    "var yield = 1, let = 2, async = 3;",
    "String.raw`\\u`;",
    "/* \n */ a = 1",
    "<!-- html comment",
    "#!/usr/bin/env node",
    "'use strict';",
    "a\u2028b",
    "/[/]\\/(?<n>x)\\k<n>/v.test(s)",
    "sk_live_0123456789abcdefghijklmnop",
    "Deno.serve(() => new Response())",
    "(" * 300 + ")" * 300,
    "[" * 3000 + "]" * 3000,
    "<A>" * 500,
    "{" * 2000,
    "`${" * 300,
    "a?b:" * 500 + "c",
    "//# sourceMappingURL=../canary.js",
    "/// <reference path='../canary.js' />",
    "return 1",
    "await 1",
    "import.meta.url",
    "0b12",
    "\\u{110000}",
)
OTHERS = (
    "lib.js",
    "lib.ts",
    "types.d.ts",
    "sub/index.js",
    "sub/index.tsx",
    "data.json",
    "text.txt",
    "package.json",
    "style.css",
)
OPTIONS = (
    b'{"compilerOptions": {"jsx": "react", "jsxFactory": "h", "target": "es5", "useDefineForClassFields": false}}',
    b'{// comment\n"compilerOptions": {"jsx": "react-jsx", "jsxImportSource": "pkg",},}',
    b'{"extends": "../canary.js", "compilerOptions": {"paths": {"*": ["../*"]}, "baseUrl": ".."}}',
    b'{"compilerOptions": {"jsxFactory": "a\\nb", "jsxFragmentFactory": "\\u0000", "target": "x"}}',
    b'{"compilerOptions": ' + b"[" * 500,
    b"",
)
PACKAGES = (
    b'{"name": "pkg", "main": "index.js"}',
    b'{"main": "../../../canary.js"}',
    b'{"exports": {".": "./index.js", "./*": "./*"}}',
    b'{"browser": {"./index.js": "../../canary.js"}, "sideEffects": false}',
    b'{"imports": {"#x": "../canary.js"}, "type": "module"}',
    b"{",
)


def make(draw: Draw) -> bytes:
    """Entries of a few statements, what they import, options, and packages."""
    statements: Callable[[], Any] = lambda: "\n".join(draw.pick(SNIPPETS) for _ in range(draw.random.randint(1, 5))).encode()  # noqa: E731
    files = {draw.pick(("greet.js", "a.ts", "b.tsx", "c.jsx", "d.mjs", "min.js", "deno.ts", "e.cjs")): statements()}
    if draw.chance(0.4):
        files["second.js"] = statements()
    files |= {name: statements() for name in draw.several(OTHERS, 4)}
    if draw.chance(0.3):
        files["tsconfig.json"] = draw.pick(OPTIONS)
    if draw.chance(0.4):
        files["node_modules/pkg/package.json"] = draw.pick(PACKAGES)
        files["node_modules/pkg/index.js"] = draw.pick((b"export default 1", b"-> ../../../canary.js", statements()))
    return pack(files)


TOKENS = tuple(snippet.encode() for snippet in SNIPPETS if len(snippet) < 100)
TARGETS = (
    Target("code", run_parsed, make, TOKENS, share=2.0),
    Target("bundle", run_bundled, make, TOKENS, cpu=20.0, share=2.0),
)
