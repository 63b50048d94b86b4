"""What an import means: aliases, endings that are left out or of another kind, and a true reason for all that means nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kapso_sync.build import FolderPackages
from tests.build.test_configuration import config
from tests.build.test_packages import package
from tests.build.workbench import MODULE, SCRIPT, Workbench, answers, bad, entry, good, needs_esbuild, needs_node, where

pytestmark = needs_esbuild

LIB = {
    "lib/x.ts": "export const x: string = 'x';",
    "lib/deep/index.ts": "export { x } from '../x';",
    "lib/y.js": "export const x = 'x';",
}
ALIASES = {
    "a star": ("~/lib/x", {"tsconfig.json": config(paths={"~/*": ["./*"]})}),
    "a star and baseUrl": ("@lib/x", {"tsconfig.json": config(baseUrl="./lib", paths={"@lib/*": ["*"]})}),
    "an exact name": ("data", {"tsconfig.json": config(paths={"data": ["./lib/x.ts"]})}),
    "the second target": ("~/x", {"tsconfig.json": config(paths={"~/*": ["./gone/*", "./lib/*"]})}),
    "the longest pattern": ("@/lib/x", {"tsconfig.json": config(paths={"@/*": ["./gone/*"], "@/lib/*": ["./lib/*"]})}),
    "baseUrl alone": ("lib/x", {"tsconfig.json": config(baseUrl=".")}),
    "the name of the output": ("~/x.js", {"tsconfig.json": config(paths={"~/*": ["./lib/*"]})}),
    "a folder": ("~/deep", {"tsconfig.json": config(paths={"~/*": ["./lib/*"]})}),
    "an extended file": (
        "~x",
        {"tsconfig.json": '{"extends": "./c/b.json"}', "c/b.json": config(paths={"~x": ["../lib/x.ts"]})},
    ),
    "jsconfig.json": ("~/y", {"jsconfig.json": config(paths={"~/*": ["./lib/*"]})}),
    "imports of package.json": ("#lib/x", {"package.json": json.dumps({"imports": {"#lib/*": "./lib/*.ts"}})}),
    "a condition": (
        "#x",
        {
            "package.json": json.dumps(
                {"imports": {"#x": {"node": "./gone.js", "workerd": "./lib/x.ts", "default": "./gone.js"}}}
            )
        },
    ),
    "nested conditions": (
        "#x",
        {"package.json": json.dumps({"imports": {"#x": {"import": {"types": "./x.d.ts", "default": "./lib/y.js"}}}})},
    ),
}


@needs_node
@pytest.mark.parametrize("target", [SCRIPT, MODULE])
@pytest.mark.parametrize("what", ALIASES)
def test_an_alias_of_the_folder_is_followed(what: str, target: object) -> None:
    """From an entry, and from a file of another folder that the entry imports."""
    specifier, files = ALIASES[what]
    texts = {
        **LIB,
        **files,
        "a.ts": f"import {{ x }} from '{specifier}';\nimport {{ y }} from './part/b';\n"
        "export default () => new Response(x + y);",
        "part/b.ts": f"export {{ x as y }} from '{specifier}';",
    }
    assert answers([good(texts, "a.ts", target)], target) == [(200, "xx")]  # type: ignore[arg-type]


@needs_node
def test_one_alias_may_mean_two_files_in_two_folders() -> None:
    """Each file has the configuration that is nearest to it."""
    texts = {
        "a.ts": "import { y } from './two/b';\nimport { x } from '#x';\nexport default () => new Response(x + y);",
        "package.json": json.dumps({"imports": {"#x": "./one.ts"}}),
        "one.ts": "export const x = 1;",
        "two/b.ts": "export { x as y } from '#x';",
        "two/package.json": json.dumps({"imports": {"#x": "./two.ts"}}),
        "two/two.ts": "export const x = 2;",
    }
    assert answers([good(texts, "a.ts")], SCRIPT) == [(200, "3")]


def test_a_changed_file_behind_an_alias_rebuilds_the_function() -> None:
    """It is a part of the function like any other, and no unlisted file."""
    texts = {
        **LIB,
        "a.ts": "import { x } from '~/x';\nexport default () => x;",
        "tsconfig.json": config(paths={"~/*": ["./lib/*"]}),
    }
    bench = Workbench()
    made = bench.build(texts, "a.ts")
    assert "lib/x.ts" in made.used
    assert "'changed'" not in made.functions[0].code
    assert '"changed"' in bench.build({**texts, "lib/x.ts": "export const x = 'changed';"}, "a.ts").functions[0].code


ENDINGS = [
    ("./l", "l.mjs"),
    ("./l", "l.mts"),
    ("./l", "l.cjs"),
    ("./l", "l.cts"),
    ("./l", "l.jsx"),
    ("./l", "l/index.ts"),
    ("./l.js", "l.ts"),
    ("./l.js", "l.tsx"),
    ("./l.jsx", "l.tsx"),
    ("./l.jsx", "l.ts"),
    ("./l.mjs", "l.mts"),
    ("./l.cjs", "l.cts"),
    ("./l.ts", "l.ts"),
]


@needs_node
@pytest.mark.parametrize(("specifier", "file"), ENDINGS)
@pytest.mark.parametrize("importer", ["a.ts", "a.js"])
def test_an_ending_that_is_left_out_or_of_the_output_is_found(specifier: str, file: str, importer: str) -> None:
    """As esbuild and TypeScript do."""
    code = "exports.x = 'x'" if file.endswith((".cjs", ".cts")) else "export const x = 'x'"
    texts = {file: code, importer: f"import {{ x }} from '{specifier}';\nexport default () => new Response(x)"}
    assert answers([good(texts, importer)], SCRIPT) == [(200, "x")]


@needs_node
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a.mjs", "export default () => new Response('x')"),
        ("a.mjs", "export default { fetch: () => new Response('x') }"),
        ("a.mts", "export default (r: Request): Response => new Response('x')"),
        ("a.cjs", "exports.handler = () => new Response('x')"),
        ("a.cjs", "async function handler() { return new Response('x') }"),
        ("a.cts", "export = (r: Request) => new Response('x')"),
        ("a.jsx", "const React = { createElement: () => 'x' };\nexport default () => new Response(<b/>)"),
        ("a.tsx", "const h = (..._: any) => 'x';\n/** @jsx h */\nexport default () => new Response(<b/> as any)"),
    ],
)
def test_entries_of_every_kind_of_code_answer(name: str, code: str) -> None:
    """By the name of their file."""
    assert answers([good({name: code}, name)], SCRIPT) == [(200, "x")]


def test_commonjs_in_a_file_that_is_a_module_by_its_name_is_refused() -> None:
    """Where `module` does not exist, in Node and on Workers."""
    (problem,) = bad({"a.mjs": "\nmodule.exports = () => 1"}, "a.mjs")
    assert where(problem) == ("commonjs", "a.mjs", 2, 1)


REFUSED = [
    ("./page.html?raw", "import-query", "drop `?raw`"),
    ("./lib.js?url", "import-query", "`?url` is a feature of bundlers"),
    ("./style.css?inline&x=1", "import-query", "drop `?inline&x=1`"),
    ("./worker.js?worker", "import-query", "bundlers"),
    ("raw-loader!./page.html", "import-query", "webpack"),
    ("./add.wasm", "import-kind", "WebAssembly"),
    ("./add.wasm?module", "import-kind", "WebAssembly"),
    ("./logo.png", "import-kind", "kind of file"),
    ("./rows.csv", "import-kind", "kind of file"),
    ("./node_modules/left/index.js", "import-kind", "by its name"),
    ("./.env", "import-kind", "hidden"),
    ("./.cache/x.js", "import-kind", "hidden"),
    ("./gone.js", "unresolved-import", "does not exist"),
    ("./tsconfig.json", "import-package-json", "how the code is built"),
    ("npm:zod", "import-url", "import `zod`"),
    ("jsr:@std/path", "import-url", "Deno"),
    ("https://esm.sh/zod", "import-url", "loads nothing"),
    ("~/x", "unresolved-import", "alias"),
    ("@/x", "unresolved-import", "alias"),
    ("$lib/x", "unresolved-import", "alias"),
    ("#x", "unresolved-import", "package.json"),
    ("~~/x", "unresolved-import", "alias"),
    ("zod", "package-unavailable", "npm package"),
    ("@scope/zod/mini", "package-unavailable", "npm package"),
]


@pytest.mark.parametrize(("specifier", "code", "said"), REFUSED)
@pytest.mark.parametrize("form", ["import x from '{}'", "export * from '{}'", "const x = await import('{}')"])
def test_an_import_that_means_nothing_is_refused_with_its_place_and_reason(
    specifier: str, code: str, said: str, form: str
) -> None:
    """For every form of an import; the line is shown, and the reason is the right one."""
    texts = {"a.js": f"// first\n{form.format(specifier)};\nexport default () => 1", "tsconfig.json": "{}", "page.html": ""}
    problem = bad(texts, entry("a.js"), MODULE, blocked=code == "package-unavailable")[0]
    assert (problem.code, problem.location and problem.location.line) == (code, 2)
    assert problem.location is not None
    assert problem.location.column in (form.index("'") + 1, form.find("import(") + 1)
    assert said in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("specifier", "files", "code", "said"),
    [
        ("~/x", {"tsconfig.json": config(paths={"~/*": ["../src/*"]})}, "import-outside", "`../src/x` is outside"),
        ("~/x", {"tsconfig.json": config(paths={"~/*": ["./src/*"]})}, "unresolved-import", "`src/x` does not exist"),
        ("#x", {"package.json": '{"imports": {"#x": "./gone.js"}}'}, "unresolved-import", "`gone.js`, which does not exist"),
        ("#x", {"package.json": '{"imports": {"#x": "lodash"}}'}, "unresolved-import", "only files beside it"),
        ("#x", {"package.json": '{"imports": {"#x": "./../../x.js"}}'}, "unresolved-import", "only files beside it"),
        ("#x", {"package.json": '{"imports": {"#y": "./a.js"}}'}, "unresolved-import", "does not define `#x`"),
        ("#x", {"package.json": "{ not json"}, "unresolved-import", "does not define `#x`"),
    ],
)
def test_an_alias_without_a_file_says_where_it_leads(specifier: str, files: dict[str, str], code: str, said: str) -> None:
    """The pattern, its file, and the path."""
    (problem,) = bad({**files, "a.js": f"import x from '{specifier}';\nexport default () => x"}, "a.js")
    assert where(problem) == (code, "a.js", 1, 15)
    assert said in problem.message


@needs_node
def test_a_workspace_package_that_is_linked_inside_the_repository_is_bundled(tmp_path: Path) -> None:
    """As npm and pnpm link it: TypeScript of the repository itself, with packages of its own."""
    shared = tmp_path / "packages" / "shared"
    (shared / "src").mkdir(parents=True)
    (shared / "package.json").write_text(json.dumps({"name": "@us/shared", "exports": "./src/index.ts"}))
    (shared / "src" / "index.ts").write_text(
        "import { inner } from 'inner';\nexport const shared = (x: string): string => x + inner;"
    )
    package(shared, "inner", "export const inner = '!';")
    home = tmp_path / "apps" / "functions"
    (home / "node_modules" / "@us").mkdir(parents=True)
    (home / "node_modules" / "@us" / "shared").symlink_to(shared)
    texts = {"a.ts": "import { shared } from '@us/shared';\nexport default () => new Response(shared('x'));"}
    code = good(texts, "a.ts", SCRIPT, FolderPackages(home, tmp_path))
    assert answers([code], SCRIPT) == [(200, "x!")]


@needs_node
@pytest.mark.parametrize("inside", ["", "functions"])
def test_an_alias_for_an_npm_package_is_followed(tmp_path: Path, inside: str) -> None:
    """As `react` for `preact/compat`, by the path that the package has below the functions folder or above it."""
    package(tmp_path, "small", "exports.x = 'x';")
    up = "../" if inside else "./"
    texts = {
        "a.ts": "import { x } from 'large';\nexport default () => new Response(x);",
        "tsconfig.json": config(paths={"large": [f"{up}node_modules/small"]}),
    }
    (tmp_path / inside).mkdir(exist_ok=True)
    assert answers([good(texts, "a.ts", SCRIPT, FolderPackages(tmp_path / inside, tmp_path))], SCRIPT) == [(200, "x")]


@needs_node
def test_import_meta_is_empty_and_said_to_be() -> None:
    """As on Workers; in a script, which it would break, it is replaced."""
    for code in (
        "export default () => new Response(String(import.meta.url))",
        "function handler() { return new Response(String(import.meta.url)) }",
    ):
        made = Workbench().build({"a.js": code}, "a.js")
        assert answers([made.functions[0].code], SCRIPT) == [(200, "undefined")]
        assert [(n.code, n.location and n.location.column) for n in made.notices] == [("import-meta", code.index("import") + 1)]
