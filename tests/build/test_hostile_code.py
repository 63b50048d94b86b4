"""Code that was pushed to cost much: it costs the process little, the event loop nothing, and is refused with a reason."""

from __future__ import annotations

import asyncio
import pickle
import resource
import time

import pytest

from kapso_sync.build.contract import MAX_IMPORTS, MAX_PLACES, Shape, Style, inspect
from kapso_sync.build.graph import MAX_FAULTS
from kapso_sync.build.inspection import CPU_SECONDS, inspect_apart, read_shape
from kapso_sync.build.syntax import MAX_NESTING, Grammar, is_nested_too_deeply
from kapso_sync.model.desired import UnusableFunction
from tests.build.workbench import Workbench, entry, source_files
from tests.heartbeat import beating

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
HANDLER = "\nasync function handler(request, env) { return new Response('a'); }\n"


def filled(piece: str, before: str = "", after: str = "") -> str:
    """1 MiB of a piece, between two texts."""
    return before + piece * ((MIB - len(before) - len(after)) // len(piece)) + after


HOSTILE = {
    "brackets": ("a.js", filled("["), "too-intricate"),
    "parentheses": ("a.ts", filled("("), "too-intricate"),
    "template literals": ("a.js", filled("`${"), "too-intricate"),
    "type assertions": ("a.ts", filled("<A>"), "too-intricate"),
    "arrow functions": ("a.js", filled("a=>"), "syntax"),
    "statements on one line": ("a.js", filled("a;", after=HANDLER), "too-intricate"),
    "comment openings": ("a.js", filled("/*"), "syntax"),
    "imports of nothing": ("a.js", filled("import './nope.js';\n", after=HANDLER), "too-intricate"),
    "dynamic imports on one line": ("a.js", filled("import(x);", after=HANDLER), "too-intricate"),
    "requires on one line": ("a.js", filled("require('x');", after=HANDLER), "require"),
    "exports": ("a.js", filled("export {a};", after=HANDLER), "too-intricate"),
}


async def measured(texts: dict[str, str]) -> tuple[UnusableFunction | None, float, int]:
    """Build the file, and return what is wrong with it, the longest stop of the event loop in s, and the memory in KiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with beating() as heart:
        result = await Workbench().builder.build([entry(next(iter(texts)))], source_files(texts))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return next(iter(result.unusable), None), heart.longest, memory


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_mebibyte_of_hostile_code_costs_little(name: str) -> None:
    """No 30 MB here, no second of the loop, and at most what the process that inspects it may have.

    A slow machine reaches that limit, and says so instead of what it would have found.
    """
    file, code, said = HOSTILE[name]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    refused, longest, memory = await measured({file: code})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    assert refused is not None
    assert refused.problems[0].code in {said, "too-intricate"}
    assert len(refused.problems) <= MAX_FAULTS
    assert memory < 30 * 1024
    assert longest < 1.0
    assert spent < 2 * CPU_SECONDS  # esbuild looks as well


async def test_a_mebibyte_of_bundled_code_is_taken() -> None:
    """The control: what a bundler writes has half as many parts as are allowed."""
    code = filled("function f(a,b){if(a.length>2){return b.call(a,'text',[1,2])}}", after=HANDLER)
    refused, longest, _ = await measured({"a.js": code})
    assert refused is None
    assert longest < 1.0


async def test_many_bad_imports_are_reported_in_part_and_at_once() -> None:
    """Each used to parse the file again; at most so many are listed of one file, with their places."""
    names = [f"import {{ n{number} }} from './nope{number}.js';" for number in range(MAX_IMPORTS - 1)]
    code = "\n".join([*names, "export default { fetch() { return n1; } };"])
    started = time.monotonic()
    refused, _, _ = await measured({"a.ts": code.replace("import { n1 }", "import { n1, n2 }")})
    assert refused is not None
    assert [problem.code for problem in refused.problems] == ["unresolved-import"]
    used = code.replace("return n1", "return [" + ",".join(f"n{number}" for number in range(MAX_IMPORTS - 1)) + "]")
    refused, _, _ = await measured({"a.ts": used})
    assert refused is not None
    assert len(refused.problems) == MAX_FAULTS
    assert refused.problems[3].location is not None
    assert refused.problems[3].location.line == 4
    assert time.monotonic() - started < 20


SMALL = {
    "undeclared names": "".join(f"a{number}=1;" for number in range(7500)),
    "components in one scope": "var " + ",".join(f"a{n}" for n in range(5000)) + ";" + "(()=><a/>);" * 3000,
    "functions without brackets": "a=>" * 10_000 + "(" + ",".join(f"b{n}=1" for n in range(5000)) + ")",
    "loops without brackets": "for(;;)" * 4000 + "x=" + "y=" * 15_000 + "1",
    "members of the handler": "const h = 1; export default h; h" + ".a" * 30_000,
    "types of the handler": "export default x; let x = 1; x" + " as a" * 12_000,
}


@pytest.mark.parametrize("name", SMALL)
def test_code_that_is_inspected_here_takes_seconds_at_most(name: str) -> None:
    """Up to 64 KiB, which no other process inspects: no step is repeated for each of many names, and none recurses."""
    code = SMALL[name].encode()
    assert len(code) <= 70 * 1024
    started = time.process_time()
    inspect(code, Grammar.TSX)
    assert time.process_time() - started < 5.0


def test_nested_functions_without_brackets_are_counted_up_to_the_limit() -> None:
    """What people write is taken, as the control."""
    assert inspect(b"a=>" * MAX_NESTING + b"1").limit is None
    assert inspect(b"a=>" * (MAX_NESTING + 1) + b"1").limit == f"is nested deeper than {MAX_NESTING} functions and blocks"


def test_a_property_of_the_global_object_may_be_assigned() -> None:
    """However it is written; another name may not, as the control."""
    for write in ("globalThis.é1$ = 0;", "self['é1$'] = 0;", "globalThis?.é1$;", "Object.assign(globalThis, {});"):
        assert inspect(f"'use strict'; {write} é1$ = 1;".encode()).undeclared is None
    assert inspect("'use strict'; globalThis.é1$ = 0; é1 = 1;".encode()).undeclared is not None


def test_nesting_is_counted_up_to_its_limit() -> None:
    """A closed bracket is not open; what is open in a text counts as well."""
    assert not is_nested_too_deeply(b"[" * MAX_NESTING + b"]" * MAX_NESTING)
    assert is_nested_too_deeply(b"[" * (MAX_NESTING + 1))
    assert is_nested_too_deeply(b"`${" * (MAX_NESTING + 1))
    assert not is_nested_too_deeply(b"(){}[];" * 100_000)
    assert not is_nested_too_deeply(b"]" * 5000 + b"[" * MAX_NESTING)


def test_places_of_one_kind_are_found_up_to_a_limit() -> None:
    """And one fewer is one fewer, as a control."""
    key = "'sk_live_abcdefghijklmnopqrstuvwx';\n"
    for number in (MAX_PLACES - 1, MAX_PLACES + 5):
        shape = inspect((f"require('x');\n{key}" * number).encode(), Grammar.JAVASCRIPT)
        assert len(shape.requires) == len(shape.credentials) == min(number, MAX_PLACES)


ODD = {
    "an import": ("a.js", "import x, { y as z } from './x.js';\nexport default { fetch: (request) => x(z) };"),
    "types that are not used": ("a.ts", "import { A, B } from './x';\nexport default (a: A): B => new Response(String(a));"),
    "JSX": ("a.tsx", "/** @jsxImportSource preact */\nexport default () => <><b /></>;"),
    "a syntax error": ("a.js", "export default () => {"),
    "characters of all kinds": ("a.js", "import '\u2028\u0007\U0001f600';\nfunction handler() { return '\\ud800'; }"),
    "what takes too much": ("a.js", "(" * 2000),
}


@pytest.mark.parametrize("name", ODD)
def test_a_file_inspected_apart_has_the_same_shape(name: str) -> None:
    """All that is known of it survives the way from one process to the other."""
    path, code = ODD[name]
    grammar = Grammar.of(path)
    assert asyncio.run(inspect_apart(code.encode(), grammar)) == inspect(code.encode(), grammar)


ANSWERS = {
    "nothing": b"",
    "a pickle that runs a program": pickle.dumps(Shape(Style.SCRIPT)),
    "no shape": b"[1, 2]",
    "an unknown style": b'{"style": "perl"}',
    "another type": b'{"style": "script", "exports": "yes"}',
    "places that are none": b'{"style": "script", "handlers": [{"line": "x", "column": 1}]}',
    "JSON nested without end": b'{"style": "script", "handlers": ' + b"[" * 100_000,
    "a shape that is cut off": b'{"style": "script", "handlers": [',
    "text that is no UTF-8": b'{"style": "script", "limit": "\xff"}',
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_no_shape_is_a_file_that_cannot_be_read(name: str) -> None:
    """The process reads hostile code, so its answer is believed no more than the code is, and is never unpickled."""
    assert (read_shape(ANSWERS[name]).limit or "").startswith("cannot be read")
