"""A `supabase_function` goes up byte for byte, alone: what Deno cannot run is refused at its place."""

from __future__ import annotations

import pytest

from tests.build.workbench import Workbench, bad, entry, needs_esbuild, where

DENO = entry("greet.ts", function_type="supabase_function")


@needs_esbuild
@pytest.mark.parametrize(
    ("code", "fault", "place"),
    [
        ("Deno.serve(() => {\n  return new Response(;\n})", "syntax", (2, 23)),
        ("Deno.serve((r: Request) => {\n  const b = await r.json();\n  return b\n})", "syntax", (2, 13)),
        ("const a = 1;\nconst a = 2;\nDeno.serve(() => a)", "syntax", (2, 7)),
        ("import { cors } from '../_shared/cors.ts';\nDeno.serve(() => cors)", "import-outside", (1, 22)),
        ("import './setup.ts';\nDeno.serve(() => 1)", "import-outside", (1, 8)),
        ("export * from './other.ts';\nDeno.serve(() => 1)", "import-outside", (1, 15)),
        ("Deno.serve(async () => (await import('./late.ts')).x)", "import-outside", (1, 31)),
        ("import x from '/etc/x.ts';\nDeno.serve(() => x)", "import-outside", (1, 15)),
        ("import { z } from 'zod';\nDeno.serve(() => z)", "import-bare", (1, 19)),
        ("import x from '@/lib/x';\nDeno.serve(() => x)", "import-bare", (1, 15)),
        ("import { env } from 'cloudflare:workers';\nDeno.serve(() => env)", "import-url", (1, 21)),
        ("const x = require('x');\nDeno.serve(() => x)", "require", (1, 11)),
        ("with ({ a: 1 }) { Deno.serve(() => a) }", "strict-mode", (1, 1)),
        ("const a = 010;\nDeno.serve(() => a)", "strict-mode", (1, 11)),
        ("for (i = 0; i < 1; i++) {}\nDeno.serve(() => 1)", "strict-mode", (1, 6)),
        ("Deno.serve(() => 1);\nmodule.exports = () => 1", "commonjs", (2, 1)),
        ("Deno.serve(() => 1)//" + "x" * 2**20, "too-large", (0, 0)),
    ],
)
def test_what_deno_cannot_run_is_refused_with_its_place(code: str, fault: str, place: tuple[int, int]) -> None:
    """One file is all that goes up, so that a path names nothing there."""
    (problem,) = bad({"greet.ts": code, "_shared/cors.ts": ""}, DENO)
    assert where(problem) == (fault, "greet.ts", *place)


@needs_esbuild
@pytest.mark.parametrize(
    "code",
    [
        "import { z } from 'npm:zod@3';\nimport p from 'jsr:@std/path';\nimport s from 'https://deno.land/std/http/server.ts';",
        "import fs from 'node:fs';\nimport data from 'data:application/json,1' with { type: 'json' };",
        "import type { Shape } from './types.ts';\nexport type { Other } from './types.ts';",
        "import { createRequire as make } from 'node:module';\nconst require = make(import.meta.url);\nrequire('node:fs');",
        "const started = await Promise.resolve(1);\nenum Tone { Warm }\nconst raw = String.raw`\\unicode`;",
        "const run = (x: string) => new Function(x)();\nglobal_ = 1 as any;\nvar global_: any;",
    ],
)
def test_what_deno_runs_goes_up_byte_for_byte(code: str) -> None:
    """Deno loads packages and URLs itself, drops types, and has `await` at the top level."""
    code += "\nDeno.serve((r: Request) => new Response('x'))\n"
    made = Workbench().build({"greet.ts": code}, DENO)
    assert ([function.code for function in made.functions], made.notices) == ([code], ())


def test_a_credential_in_a_supabase_function_is_a_warning() -> None:
    """As in other code, with its place; `process.env` is not one, since Deno has it."""
    code = "const key = 'sk_live_0123456789abcdef';\nDeno.serve(() => key + process.env.X)"
    made = Workbench().build({"greet.ts": code}, DENO)
    assert [(n.code, str(n.location)) for n in made.notices] == [("credential", "greet.ts:1:14")]


@needs_esbuild
def test_a_bare_node_module_is_a_warning_for_deno() -> None:
    """Newer versions find it; older ones only with `node:`."""
    made = Workbench().build({"greet.ts": "import fs from 'fs';\nDeno.serve(() => fs)"}, DENO)
    assert [(n.code, str(n.location)) for n in made.notices] == [("bare-built-in", "greet.ts:1:16")]
