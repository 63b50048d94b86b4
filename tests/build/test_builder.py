"""Code that is uploaded unchanged, and code that is refused with every problem and its place."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.build.contract import Style, inspect
from kapso_sync.build.rules import size_diagnostic
from kapso_sync.build.syntax import Grammar
from kapso_sync.manifest import read_manifest
from kapso_sync.model.desired import CodeStyle, DesiredFunction, UnusableFunction
from kapso_sync.model.functions import code_hash
from kapso_sync.model.policies import Contract
from kapso_sync.model.source import Revision, Snapshot, SourceFile
from tests.build.plain import MODULES, SCRIPTS, WRITTEN_BY_PEOPLE
from tests.build.workbench import MODULE, Workbench, bad, build, entry, good, needs_esbuild, source_files, where
from tests.heartbeat import beating

EXAMPLES = Path(__file__).parents[2] / "functions.example"


COMMENTED = (
    "// an accessor x, @decorated, with import.meta and require('x')\nfunction handler() { return new Response('accessor y') }"
)


@pytest.mark.parametrize("code", [*SCRIPTS, *WRITTEN_BY_PEOPLE.values(), COMMENTED])
def test_a_script_is_uploaded_unchanged_to_either_base(code: str) -> None:
    """A top-level ``handler``, however it is declared, and whatever strings and comments hold."""
    assert good(code) == code


@given(
    st.lists(
        st.sampled_from([*SCRIPTS[:4], "const a = 1;", "// é\n", "\r\n", "\t", ";", "function other() { return `\u2028` }"])
    )
    .map("\n".join)
    .filter(lambda code: sum(code.count(script) for script in SCRIPTS[:4]) == 1 and code.count("const a") < 2)
)
def test_any_plain_script_is_uploaded_byte_for_byte(code: str) -> None:
    """Whatever surrounds the one handler, the bytes are the author's."""
    assert good(code) == code


@pytest.mark.parametrize("code", MODULES)
def test_a_module_is_uploaded_unchanged_where_the_base_accepts_modules(code: str) -> None:
    """Byte for byte to the base that documents modules."""
    assert good(code, target=MODULE) == code


@pytest.mark.parametrize("code", [*SCRIPTS, *MODULES])
def test_node_accepts_the_accepted_sample_code(code: str, tmp_path: Path) -> None:
    """Node parses every sample above without an error."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    path = tmp_path / ("x.mjs" if code in MODULES else "x.cjs")
    path.write_text(code, encoding="utf-8")
    subprocess.run(["node", "--check", str(path)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("code", "fault", "place"),
    [
        ("async function handler() {\n  return (;\n}\n", "syntax", (2, 11)),
        ("function handler() {", "syntax", (1, 21)),
        ("const x = 1;\n", "no-handler", (1, 1)),
        ("", "no-handler", (1, 1)),
        ("function handlers() {}", "no-handler", (1, 1)),
        ("{ function handler() {} }", "no-handler", (1, 1)),
        ("exports.helper = () => {}", "no-handler", (1, 1)),
        ("module.exports = { helper() {} }", "no-handler", (1, 1)),
        ("const fs = require('fs');\nfunction handler() {}", "require", (1, 12)),
        ("const é = 'é', fs = require('fs');\nfunction handler() {}", "require", (1, 21)),
        ("function* handler() {}", "generator", (1, 1)),
        ("async function* go() {}\nexport default go", "generator", (1, 1)),
        ("export default async function* () {}", "generator", (1, 16)),
        ("function handler() {}\nvar handler = 1;", "two-handlers", (2, 5)),
        ("export default 1;\nexport default 2;", "two-handlers", (2, 1)),
        ("export default 1;\nexport function handler() {}", "two-handlers", (1, 1)),
        ("const x = await fetch('https://x.y');\nfunction handler() {}", "top-level-await", (1, 11)),
        ("for await (const x of y) {}\nfunction handler() {}", "top-level-await", (1, 1)),
        ("eval('function handler() {}')", "eval", (1, 1)),
        ("const handler = new Function('request', 'return 1');", "eval", (1, 17)),
        ("export default eval('(r) => r')", "eval", (1, 16)),
        ("const name = 'x'; export default () => import(name)", "dynamic-import", (1, 40)),
    ],
)
def test_code_that_cannot_run_is_refused_with_line_and_column(code: str, fault: str, place: tuple[int, int]) -> None:
    """Line and column in characters, the line itself, and what to do."""
    (problem,) = bad(code)
    assert where(problem) == (fault, "greet.js", *place)
    assert problem.hint or problem.code == "syntax", "the line says it all"
    assert problem.frame


def test_all_code_problems_are_reported_at_once() -> None:
    """In the order of the file, so that nobody has to correct a file five times."""
    code = (
        "import { a } from '../../etc/passwd';\nimport b from '/etc/passwd';\nimport c from 'https://example.com/c.js';\n"
        "import d from './gone.js';\nconst fs = require('fs');\nawait fs;\nfunction* handler() {}\nvar handler;\n"
    )
    problems = bad({"greet.js": code})
    assert [where(problem)[0] for problem in problems] == [
        *("import-outside", "import-outside", "import-url", "unresolved-import", "require", "top-level-await"),
        *("generator", "two-handlers"),
    ]
    assert [problem.location.line for problem in problems if problem.location] == list(range(1, 9))


def test_the_code_frame_shows_the_line_with_a_caret() -> None:
    """Two lines before it; tabs and wide characters count as a terminal shows them."""
    (problem,) = bad("// one\n// two\n\tconst 字 = '日本'; require('x'); function handler() {}\n")
    assert problem.frame == (
        "   1 | // one\n"
        "   2 | // two\n"
        "   3 |  const 字 = '日本'; require('x'); function handler() {}\n"
        "       " + " " * len(" const zz = 'zzzz'; ") + "^"
    )
    (problem,) = bad(f"const x = '{'y' * 5000}'; require('x'); function handler() {{}}")
    assert problem.frame is not None
    line, caret = problem.frame.splitlines()
    assert line[caret.index("^") :].startswith("require('x')")
    assert len(line) < 200


@pytest.mark.parametrize(
    ("code", "name", "warned"),
    [
        ("const KEY = 'sk_live_0123456789abcdef';\nfunction handler() { return 1 }", "greet.js", ("credential", 1, 14)),
        ("function handler() {\n  return process.env.KEY;\n}", "greet.js", ("process-env", 2, 10)),
        ("async function handler(request) {\n  await request.text();\n}", "greet.js", ("no-answer", 1, 16)),
        ("function handler() { return [1].map(() => { return 1 }) && undefined }", "greet.js", None),
        ("function handler() { function other() { return 1 } }", "greet.js", ("no-answer", 1, 10)),
        ("const handler = async () => {};", "greet.js", ("no-answer", 1, 7)),
        ("const handler = async () => new Response('x');", "greet.js", None),
        ("function handler(a, b, c, d) { return 1 }", "greet.js", ("parameters", 1, 10)),
        ("function handler(a, b) { return 1 }", "greet.js", None),
        ("function handler(a, b, ctx) { return 1 }", "greet.js", ("parameters", 1, 10)),
        ("export default { fetch(request, env, ctx) { return 1 } }", "greet.js", ("parameters", 1, 1)),
        ("// process.env.KEY is no more\nfunction handler() { return 'process.env' }", "greet.js", None),
    ],
)
def test_suspicious_code_is_a_warning_with_line_and_column(code: str, name: str, warned: tuple[str, int, int] | None) -> None:
    """It is uploaded all the same, byte for byte."""
    made = Workbench().build({name: code}, name)
    assert made.functions[0].code == code or code.startswith("export")
    told = [(n.code, n.location.line, n.location.column) for n in made.notices if n.location]
    assert told == ([] if warned is None else [warned])
    assert "sk_live" not in "".join(notice.message for notice in made.notices)


def test_a_module_contract_with_script_code_is_refused() -> None:
    """The manifest, or a setting that the error names, says module, and the file is not one."""
    (problem,) = bad(SCRIPTS[0], entry("greet.js", Contract.MODULE))
    assert problem.message == "the manifest asks for module style, and there is no `export default`"
    made = Workbench(MODULE).build({"greet.js": SCRIPTS[0]}, "greet.js")
    assert made.unusable[0].problems[0].message.startswith("KAPSO_SYNC_CONTRACT asks for module style")


@pytest.mark.parametrize(("content", "code"), [(b"caf\xe9\n", "not-utf8"), (b"line\nwith \0", "binary")])
def test_code_that_is_not_utf8_text_is_refused(content: bytes, code: str) -> None:
    """Binary or Latin-1: the error names the line."""
    (problem,) = bad({"greet.js": content})
    assert problem.code == code


@pytest.mark.parametrize("kind", ["cloudflare_worker", "supabase_function"])
@pytest.mark.parametrize("name", ["greet.txt", "greet.json", "greet.yaml"])
def test_an_entry_that_is_no_code_by_its_name_is_refused(name: str, kind: str) -> None:
    """Only that function, with its file; the content does not matter."""
    listed = entry(name, function_type=kind)
    made = Workbench().build({name: SCRIPTS[0], "other.js": SCRIPTS[0]}, listed, "other.js")
    assert [where(problem) for problem in made.unusable[0].problems] == [("entry-kind", name, 1, 1)]
    assert [function.slug for function in made.functions] == ["other"]


def test_supabase_functions_are_uploaded_unchanged() -> None:
    """TypeScript too: Deno runs it, without a handler contract. One that serves nothing is a warning."""
    listed = entry("greet.ts", function_type="supabase_function")
    for code in ("Deno.serve((r: Request) => new Response('x'))", "import { serve } from 'https://x.y'; serve(() => 1)"):
        made = Workbench().build({"greet.ts": code}, listed)
        assert (made.functions[0].code, made.notices) == (code, ())
    made = Workbench().build({"greet.ts": "const x: number = 1"}, listed)
    assert made.functions[0].code == "const x: number = 1"
    assert [notice.code for notice in made.notices] == ["no-server"]


def test_code_above_the_size_limit_is_refused_before_any_request() -> None:
    """The size of the upload counts; between 10^6 and 2^20 bytes it is a warning."""
    head = SCRIPTS[0] + "// "
    for size, refused, warned in (
        (10**6, False, False),
        (10**6 + 1, False, True),
        (2**20, False, True),
        (2**20 + 1, True, False),
    ):
        made = Workbench().build({"greet.js": head + "x" * (size - len(head))}, "greet.js")
        assert [problem.code for function in made.unusable for problem in function.problems] == (
            ["too-large"] if refused else []
        )
        assert [notice.code for notice in made.notices] == (["large"] if warned else [])
    supabase = entry("greet.ts", function_type="supabase_function")
    made = Workbench().build({"greet.ts": "Deno.serve(() => x)//" + "x" * 2**20}, supabase)
    assert made.unusable[0].problems[0].code == "too-large"
    assert "minify" not in (made.unusable[0].problems[0].hint or "")
    made = Workbench().build({"greet.js": head + "x" * 2**20}, "greet.js")
    assert "`minify: true`" in (made.unusable[0].problems[0].hint or "")
    assert size_diagnostic("é" * 2**19, "a.js") is None
    assert size_diagnostic("é" * 2**19 + "x", "a.js") is not None


@needs_esbuild
def test_the_example_functions_are_valid() -> None:
    """All of them, for either base."""
    files = {
        path.relative_to(EXAMPLES).as_posix(): SourceFile(path.relative_to(EXAMPLES).as_posix(), path.read_bytes())
        for path in EXAMPLES.rglob("*")
        if path.is_file()
    }
    entries = read_manifest(Snapshot("example", Revision("c0ffee"), files=files)).entries
    made = asyncio.run(Workbench().builder.build(entries, files))
    assert (len(made.functions), made.unusable, made.notices) == (len(entries), (), ())
    assert {function.style for function in made.functions if function.style is not None} == {CodeStyle.SCRIPT}


def test_imports_are_followed_to_find_unlisted_files() -> None:
    """Imported helpers and types are not unlisted files; packages, missing files and paths outside are not followed."""
    texts = {
        "a.js": "import './lib/b.js'; import 'pkg'; export * from './c'; export default 1",
        "lib/b.js": "import '../d/index.js'; import '../../../etc/passwd'; import './gone.js'",
        "c.ts": "import type { X } from './a.js'; import { Env } from './types'; export const c: Env = 1",
        "types.d.ts": "export type Env = number",
        "d/index.js": "import '../a.js'",
        "other.js": "",
    }
    made = Workbench().build(texts, "a.js")
    assert made.used == {"a.js", "lib/b.js", "c.ts", "d/index.js", "types.d.ts"}


def test_unchanged_files_are_parsed_once() -> None:
    """The second pass over the same bytes parses nothing: results are cached by content, and dropped with it."""
    bench = Workbench()
    shapes = bench.builder._shapes
    bench.build({"greet.js": SCRIPTS[0]}, "greet.js")
    first = dict(shapes._recalled().shapes)
    bench.build({"greet.js": SCRIPTS[0]}, "greet.js")
    assert first
    assert all(shapes._recalled().shapes[key] is shape for key, shape in first.items())
    bench.build({"broken.js": "function handler( {"}, "broken.js")
    assert (dict(shapes._recalled().shapes), len(shapes._known)) == ({}, 1)
    bench.build({})
    assert not shapes._known


async def test_checking_a_thousand_files_does_not_block_the_event_loop() -> None:
    """A health check is answered while code is checked."""
    texts = {f"f{number}.js": f"// {number}\n" + SCRIPTS[0] * 1 + "\n//" + "x" * 2000 for number in range(1000)}
    texts["large.js"] = SCRIPTS[0] + "\nconst x = [" + "1, " * 300_000 + "];"
    async with beating() as heart:
        made = await Workbench().builder.build([entry(path) for path in texts], source_files(texts))
    assert len(made.functions) == 1001
    assert 0 < heart.longest < heart.total / 3  # a tenth, of which most is the large file


@given(
    st.text(max_size=60)
    | st.sampled_from([*SCRIPTS, *MODULES]).flatmap(lambda code: st.integers(0, len(code)).map(lambda cut: code[:cut]))
)
def test_code_inspection_never_raises_an_exception(code: str) -> None:
    """Any code is either valid or has a problem with a place."""
    for grammar in Grammar:
        shape = inspect(code.encode("utf-8", "surrogatepass"), grammar)
        assert isinstance(shape.style, Style)
    assert isinstance(build({"greet.js": code.encode("utf-8", "surrogatepass")}), DesiredFunction | UnusableFunction)


@pytest.mark.parametrize(
    ("specifier", "said"),
    [
        ("./vendor/words.js", "`./vendor/words.js`: vendor is a submodule, which is not followed"),
        ("./shared/a/b.js", "`./shared/a/b.js`: shared is a symbolic link, which is not followed in a repository"),
        ("./rates.csv", "`./rates.csv` is a kind of file that cannot be imported"),
        ("./words.js", "`./words.js` does not exist"),
    ],
)
def test_an_import_of_what_is_not_read_says_what_it_is(specifier: str, said: str) -> None:
    """A person who sees the file in a checkout must not be told that it does not exist."""
    code = f"import words from '{specifier}';\nasync function handler() {{ return new Response(words); }}\n"
    files = {
        **source_files({"greet.js": code}),
        "vendor": SourceFile("vendor", None, "is a submodule, which is not followed"),
        "shared": SourceFile("shared", None, "is a symbolic link, which is not followed in a repository"),
    }
    made = asyncio.run(Workbench().builder.build([entry("greet.js")], files))
    (problem,) = made.unusable[0].problems
    assert problem.message == said
    assert str(problem.location).startswith("greet.js:1:")


def test_a_file_that_is_the_same_in_the_next_pass_makes_the_same_function() -> None:
    """Its hash is not computed again, and is still that of its code, line ends and byte order mark included."""
    files = source_files({"a.js": "\ufeff" + SCRIPTS[0].replace("\n", "\r\n"), "b.js": SCRIPTS[0]})
    entries = [entry("a.js", name="Greet"), entry("b.js", public_endpoint=True)]
    builder = Workbench().builder
    first, second = (asyncio.run(builder.build(entries, files)) for _ in range(2))
    assert first == second
    for function in (*first.functions, *second.functions):
        assert function.content == {**function.entry.fields, "code": code_hash(function.code)}
