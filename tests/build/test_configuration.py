"""The `tsconfig.json` nearest to each file counts, with what it extends inside of the folder, and JSX is compiled by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from kapso_sync.build import FolderPackages
from kapso_sync.build.syntax import MAX_NESTING
from kapso_sync.build.tsconfig import MAX_ALIASES, MAX_BYTES, MAX_EXTENDED, Configs
from kapso_sync.model.desired import DesiredFunction, UnusableFunction
from kapso_sync.model.source import Above
from tests.build.test_packages import package
from tests.build.workbench import (
    SCRIPT,
    Texts,
    Workbench,
    answers,
    bad,
    entry,
    good,
    needs_esbuild,
    needs_node,
    source_files,
    where,
)

pytestmark = needs_esbuild

RUNTIME = (
    "export const jsx = (tag: any, props: any): string => `<${tag}>${props.children}</${tag}>`;\n"
    "export const jsxs = jsx;\nexport const Fragment = 'all';\n"
)
PAGE = "export default () => new Response(String(<b>hi</b>));\n"


def factory(said: str) -> str:
    """A function for JSX that returns this and the text inside."""
    return f"(tag: string, _: unknown, ...inner: string[]): string => '{said}' + inner.join('')"


def config(**options: object) -> str:
    return json.dumps({"compilerOptions": options})


def extending(base: object, **options: object) -> str:
    return json.dumps({"extends": base, "compilerOptions": options})


RUNTIME_BY = {
    "react-jsx": {"tsconfig.json": config(jsx="react-jsx", jsxImportSource="@/rt", paths={"@/*": ["./*"]})},
    "react-jsxdev": {"tsconfig.json": config(jsx="react-jsxdev", jsxImportSource="@/rt", paths={"@/*": ["./*"]})},
    "the import source alone": {"tsconfig.json": config(jsxImportSource="@/rt", paths={"@/*": ["./*"]})},
    "preserve": {"tsconfig.json": config(jsx="preserve", jsxImportSource="rt", baseUrl=".")},
    "a base": {
        "tsconfig.json": extending("./base.json", baseUrl="."),
        "base.json": config(jsx="react-jsx", jsxImportSource="rt"),
    },
    "a base without its ending": {"tsconfig.json": extending("./base", baseUrl="."), "base.json": config(jsxImportSource="rt")},
    "two bases, of which the later counts": {
        "tsconfig.json": extending(["./one.json", "./two.json"], baseUrl="./"),
        "one.json": config(jsx="react", jsxImportSource="gone"),
        "two.json": config(jsx="react-jsx", jsxImportSource="rt"),
    },
    "a base in another folder, whose paths are relative to it": {
        "tsconfig.json": extending("./configs/base.json"),
        "configs/base.json": config(jsxImportSource="~rt", paths={"~*": ["../*"]}),
    },
    "a base that is relative to the file which extends it": {
        "tsconfig.json": extending("./configs/base.json"),
        "configs/base.json": config(jsxImportSource="~rt", paths={"~*": ["${configDir}/*"]}),
    },
    "jsconfig.json": {"jsconfig.json": config(jsx="react-jsx", jsxImportSource="rt", baseUrl=".")},
    "comments and trailing commas": {
        "tsconfig.json": '\ufeff{\n  // ours\n  "compilerOptions": {"jsxImportSource": "rt", /* and */ "baseUrl": ".",},\n}\n'
    },
}


@needs_node
@pytest.mark.parametrize("how", RUNTIME_BY)
def test_jsx_is_compiled_with_the_runtime_that_the_configuration_names(how: str) -> None:
    """The module that JSX imports is found like any import that the author wrote."""
    texts = {**RUNTIME_BY[how], "rt/jsx-runtime.ts": RUNTIME, "a.jsx" if "jsconfig" in how else "a.tsx": PAGE}
    name = "a.jsx" if "jsconfig" in how else "a.tsx"
    assert answers([good(texts, name)], SCRIPT) == [(200, "<b>hi</b>")]


@needs_node
@pytest.mark.parametrize("comment", ["/** @jsxImportSource ./rt */", "/** @jsxRuntime automatic @jsxImportSource ./rt */"])
def test_a_comment_of_the_file_goes_before_the_configuration(comment: str) -> None:
    """As in TypeScript, the import source alone asks for the runtime."""
    texts = {"rt/jsx-runtime.ts": RUNTIME, "a.tsx": f"{comment}\n{PAGE}", "tsconfig.json": config(jsx="react")}
    assert answers([good(texts, "a.tsx")], SCRIPT) == [(200, "<b>hi</b>")]


@needs_node
def test_the_nearest_configuration_counts_for_each_file() -> None:
    """Two folders of one function with a factory each, below one of the root that nobody gets."""
    texts = {
        "one/a.tsx": f"import b from '../two/b';\nconst h = {factory('h')};\nexport default () => new Response(<b>x</b> + b);",
        "one/tsconfig.json": config(jsxFactory="h"),
        "two/b.tsx": f"const k = {factory('k')};\nexport default <b>y</b>;",
        "two/tsconfig.json": config(jsxFactory="k"),
        "tsconfig.json": config(jsxFactory="nobody"),
    }
    assert answers([good(texts, "one/a.tsx")], SCRIPT) == [(200, "hxky")]


@needs_node
def test_decorators_follow_the_configuration_of_their_folder() -> None:
    """The legacy ones get a name as their second argument, the standard ones an object."""
    code = "function mark(_: any, second: any) {{ said = typeof second }}\nlet said = '';\nclass A {{ @mark m() {{}} }}\n{}"
    texts = {
        "old/a.ts": code.format("import { other } from '../new/b';\nexport default () => new Response(said + ' ' + other);"),
        "old/tsconfig.json": config(experimentalDecorators=True),
        "new/b.ts": code.format("export const other = said;"),
    }
    assert answers([good(texts, "old/a.ts")], SCRIPT) == [(200, "string object")]


@pytest.mark.parametrize(
    ("name", "code", "files", "place", "said"),
    [
        ("a.jsx", PAGE, {}, ("a.jsx", 1, 42), "`React.createElement`, and `React` is not in scope"),
        ("a.js", PAGE, {}, ("a.js", 1, 42), "`React` is not in scope"),
        ("a.tsx", f"// first\n{PAGE}", {"tsconfig.json": config(jsxFactory="h.el")}, ("a.tsx", 2, 42), "`h.el`, and `h`"),
        ("a.jsx", f"/** @jsx h */\n{PAGE}", {}, ("a.jsx", 2, 42), "`h`, and `h` is not in scope"),
        (
            "a.jsx",
            "const one = (h) => <i/>;\n/** @jsx h */ export default () => <b/>",
            {},
            ("a.jsx", 2, 36),
            "`h` is not in scope",
        ),
        (
            "a.jsx",
            "const React = { createElement() {} };\nconst page = <b/>;\n/** @jsxFrag F */ export default () => <>x</>",
            {},
            ("a.jsx", 3, 40),
            "`F`, and `F` is not in scope",
        ),
        ("a.tsx", PAGE, {"tsconfig.json": config(jsx="preserve")}, ("a.tsx", 1, 42), "`React` is not in scope"),
        (
            "a.jsx",
            "import './part.jsx';\nexport default () => 1",
            {"part.jsx": "export const p = <p/>"},
            ("part.jsx", 1, 18),
            "`React`",
        ),
        (
            "a.tsx",
            PAGE,
            {"tsconfig.json": config(jsxImportSource="#ui", paths={"#ui/*": ["./ui/*"]})},
            ("a.tsx", 1, 42),
            "JSX imports `#ui/jsx-runtime`: `#ui/jsx-runtime` matches `#ui/*` of `paths` in tsconfig.json",
        ),
    ],
)
def test_jsx_without_its_factory_or_runtime_is_refused_with_its_place(
    name: str, code: str, files: Mapping[str, str], place: tuple[str, int, int], said: str
) -> None:
    """Never "React is not defined" in production."""
    (problem,) = bad({**files, name: code}, name)
    assert where(problem)[1:] == place
    assert said in problem.message


@pytest.mark.parametrize(
    ("code", "options", "column", "said"),
    [
        (PAGE, config(jsx="react-jsx"), 42, "JSX imports `react/jsx-runtime`: `react/jsx-runtime` is an npm package"),
        (f"import React from 'react';\n{PAGE}", "{}", 19, "`react` is an npm package"),
    ],
)
def test_jsx_whose_package_is_not_there_is_blocked(code: str, options: str, column: int, said: str) -> None:
    """The code may be right: what it needs is not to be had without a registry."""
    (problem,) = bad({"a.tsx": code, "tsconfig.json": options}, "a.tsx", blocked=True)
    assert where(problem)[1:] == ("a.tsx", 1, column)
    assert said in problem.message


@needs_node
@pytest.mark.parametrize("break_", [" ", "\n * ", "\r\n * ", " */\n/** "])
@needs_node
def test_all_jsx_comments_of_a_file_count(break_: str) -> None:
    """Also those of one comment with several lines, of which esbuild leaves some out."""
    code = f"/** @jsx h{break_}@jsxFrag Part */\nconst h = (tag, _, ...inner) => `${{tag}}:${{inner}}`, Part = 'part';\n"
    code += "export default () => new Response(<>in</>)"
    assert answers([good({"a.jsx": code}, "a.jsx")], SCRIPT) == [(200, "part:in")]


@pytest.mark.parametrize(
    "line",
    [
        "import type React from './r';",
        "import { type React } from './r';",
        "import type * as React from './r';",
        "declare const React: any;",
        "declare global { const React: any }",
    ],
)
def test_a_jsx_factory_that_only_the_type_checker_sees_is_not_in_scope(line: str) -> None:
    """A build removes the line. A property of the global object is in scope."""
    texts = {"a.tsx": f"{line}\nexport default () => new Response(<b/> as any)", "r.ts": "export default 1"}
    (problem, *_) = bad(texts, "a.tsx")
    assert (where(problem), "`React` is not in scope" in problem.message) == (("jsx-factory", "a.tsx", 2, 35), True)
    good({"a.tsx": "globalThis.React = { createElement: () => '' };\nexport default () => new Response(<b/> as any)"}, "a.tsx")


def test_an_import_in_a_type_needs_no_file() -> None:
    """A build removes it."""
    code = "let a: import('./none').A; type B = typeof import('./none');\nfunction f(x: Promise<import('./none').C>) {}\n"
    good(f"{code}export default () => new Response('x')", "a.ts")
    bad("export default async () => new Response((await import('./none')).x as string)", "a.ts")


def test_null_takes_back_what_an_extended_configuration_sets() -> None:
    """As TypeScript reads it."""
    texts = {
        "a.ts": "import a from '@x/a';\nexport default () => new Response(a)",
        "x/a.ts": "export default 'a'",
        "tsconfig.json": '{"extends": "./base.json", "compilerOptions": {}}',
        "base.json": '{"compilerOptions": {"paths": {"@x/*": ["./x/*"]}}}',
    }
    good(texts, "a.ts")
    bad(texts | {"tsconfig.json": '{"extends": "./base.json", "compilerOptions": {"paths": null}}'}, "a.ts", blocked=True)


def test_jsx_with_a_factory_in_scope_is_built() -> None:
    """Imported, declared, or a parameter of the function around it."""
    codes: list[Texts] = [
        {"a.tsx": f"import {{ h }} from './h';\n/** @jsx h */\n{PAGE}", "h.ts": f"export const h = {factory('')};"},
        {"a.tsx": f"const React = {{ createElement: {factory('')} }};\n{PAGE}"},
        {
            "a.tsx": f"import * as ui from './h';\n{PAGE}",
            "h.ts": f"export const h = {factory('')};",
            "tsconfig.json": config(jsxFactory="ui.h"),
        },
        {"a.jsx": "/** @jsx el */\nconst page = (el) => <b>hi</b>;\nexport default () => new Response(page((t, p, c) => c))"},
    ]
    for texts in codes:
        name = "a.jsx" if "a.jsx" in texts else "a.tsx"
        assert answers([good(texts, name)], SCRIPT) == [(200, "hi")]


@needs_node
def test_the_jsx_runtime_of_an_npm_package_is_bundled(tmp_path: Path) -> None:
    """And an import that is not installed is reported at the first element."""
    ui = package(tmp_path, "ui", "export const x = 1;", exports={"./jsx-runtime": "./main.js"})
    (ui / "main.js").write_text("export const jsx = (tag, props) => `<${tag}>${props.children}</${tag}>`;")
    texts = {"a.tsx": PAGE, "tsconfig.json": config(jsx="react-jsx", jsxImportSource="ui")}
    packages = FolderPackages(tmp_path, tmp_path)
    assert answers([good(texts, "a.tsx", SCRIPT, packages)], SCRIPT) == [(200, "<b>hi</b>")]
    (problem,) = bad({**texts, "tsconfig.json": config(jsx="react-jsx", jsxImportSource="gone")}, "a.tsx", SCRIPT, packages)
    assert (problem.code, str(problem.location)) == ("package-missing", "a.tsx:1:42")


def test_what_a_configuration_extends_outside_of_the_folder_is_named() -> None:
    """Packages, paths that lead out and files that are not there are a warning at their place, once."""
    texts = {
        "a.ts": "export default () => new Response('x' as string)",
        "b.ts": "export default () => new Response('y' as string)",
        "c.js": "function handler() { return new Response('z') }",
        "tsconfig.json": '{\n  "extends": ["@tsconfig/node22/tsconfig.json", "../base.json", "./gone"]\n}',
    }
    made = Workbench().build(texts, "a.ts", "b.ts", "c.js")
    assert [(n.code, str(n.location)) for n in made.notices] == [
        ("tsconfig", f"tsconfig.json:2:{column}") for column in (15, 49, 65)
    ]
    assert ["an npm package" in n.message for n in made.notices] == [True, False, False]
    assert Workbench().build(texts, "c.js").notices == ()


@pytest.mark.parametrize("content", ["", " \n", "{}", "[]", '{"files": [], "references": [{"path": "./tsconfig.app.json"}]}'])
def test_a_configuration_without_options_changes_nothing(content: str) -> None:
    """As TypeScript reads an empty file."""
    code = "export default () => new Response('x' as string)"
    assert good({"a.ts": code, "tsconfig.json": content}, "a.ts") == good({"a.ts": code}, "a.ts")


def test_a_circular_configuration_is_an_error_with_its_place() -> None:
    """And one that cannot be read as text."""
    texts = {
        "f/a.ts": "export default () => 1 as number",
        "f/tsconfig.json": '{"extends": "../b.json"}',
        "b.json": '{\n"extends": "./f/tsconfig"}',
    }
    (problem,) = bad(texts, "f/a.ts")
    assert where(problem) == ("tsconfig", "b.json", 2, 12)
    (problem,) = bad({"a.ts": texts["f/a.ts"], "tsconfig.json": b'{"a": "\xe9"}'}, "a.ts")
    assert where(problem) == ("not-utf8", "tsconfig.json", 1, 8)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{{}}{' ' * MAX_BYTES}", "too large, or nested too deeply"),
        ('{"x": ' * (MAX_NESTING + 1) + "1" + "}" * (MAX_NESTING + 1), "too large, or nested too deeply"),
        (extending([f"./{number}" for number in range(MAX_EXTENDED + 1)]), f"it extends more than {MAX_EXTENDED} files"),
        (config(paths={f"{number}": [] for number in range(MAX_ALIASES + 1)}), f"`paths` has more than {MAX_ALIASES} aliases"),
    ],
)
def test_a_configuration_that_would_cost_much_is_refused(content: str, said: str) -> None:
    """By its size, by its nesting, and by how many files it extends; each also as a base of another."""
    for texts in ({"tsconfig.json": content}, {"tsconfig.json": extending("./base"), "base.json": content}):
        (problem,) = bad({**texts, "a.ts": "export default () => 1"}, "a.ts")
        assert (problem.code, problem.message) == ("tsconfig", said)


def test_a_configuration_up_to_the_limits_is_read() -> None:
    """The control of the refusals."""
    bases = {f"b{number}.json": config(jsxFactory=f"h{number}") for number in range(MAX_EXTENDED)}
    filler = " " * (MAX_BYTES - 2000)
    texts = {"tsconfig.json": extending([f"./{name}" for name in bases]) + filler, **bases}
    found = Configs(source_files(texts)).of("a.ts")
    assert (found.option("jsxFactory"), found.faults) == (f"h{MAX_EXTENDED - 1}", ())


def test_what_is_wrong_with_bases_is_said_up_to_a_limit() -> None:
    """Many files that extend the same ones do not multiply what is said."""
    levels = {
        f"l{level}n{n}.json": extending([f"./l{level + 1}n{m}.json" for m in range(MAX_EXTENDED)])
        for level in range(5)
        for n in range(MAX_EXTENDED)
    }
    last = {f"l5n{n}.json": extending([f"package{n}-{m}" for m in range(MAX_EXTENDED)]) for n in range(MAX_EXTENDED)}
    found = Configs(source_files({**levels, **last, "tsconfig.json": extending("./l0n0.json")})).of("a.ts")
    assert len(found.notices) == MAX_EXTENDED


def test_a_changed_configuration_rebuilds_the_functions_of_its_folder() -> None:
    """The options are a part of what a cached build is known by."""
    bench = Workbench()
    code = "class A { x = 1 }\nexport default () => new Response(String(new A().x))"
    texts = {"one/a.ts": code, "two/b.ts": code}
    before = [function.code for function in bench.build(texts, "one/a.ts", "two/b.ts").functions]
    texts["two/tsconfig.json"] = config(useDefineForClassFields=False)
    after = [function.code for function in bench.build(texts, "one/a.ts", "two/b.ts").functions]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_the_metadata_of_decorators_is_said_to_be_left_out() -> None:
    """Libraries that need it would fail only at run time."""
    texts = {"a.ts": "export default () => 1 as number", "tsconfig.json": config(emitDecoratorMetadata=True)}
    (notice,) = Workbench().build(texts, "a.ts").notices
    assert "emitDecoratorMetadata" in notice.message


def test_a_build_reads_no_configuration_by_itself(tmp_path: Path) -> None:
    """A build depends on the revision's files alone, whatever lies in or above the temporary folder."""
    assert Configs(source_files({"a.ts": ""})).of("a.ts").file is None
    made = asyncio.run(
        Workbench().builder.build([entry("a.js")], source_files({"a.js": PAGE}), FolderPackages(tmp_path, tmp_path))
    )
    assert made.unusable[0].problems[0].code == "jsx-factory"


def build_below(
    bench: Workbench, home: str, above: Mapping[str, str], texts: Mapping[str, str], name: str = "a.ts"
) -> DesiredFunction | UnusableFunction:
    """Build one entry of a functions folder that has configuration files above it."""
    around = Above(home, source_files(above))
    made = asyncio.run(bench.builder.build([entry(name)], source_files(texts), above=around))
    return made.functions[0] if made.functions else made.unusable[0]


ALIASES = {
    "paths, relative to the root": ("@/lib/x", {"../../tsconfig.json": config(paths={"@/*": ["./apps/fns/*"]})}),
    "paths, relative to baseUrl": ("@/x", {"../../tsconfig.json": config(baseUrl="apps", paths={"@/*": ["fns/lib/*"]})}),
    "baseUrl": ("apps/fns/lib/x", {"../../tsconfig.json": config(baseUrl=".")}),
    "the nearest of two": (
        "@/x",
        {"../../tsconfig.json": config(), "../tsconfig.json": config(paths={"@/*": ["./fns/lib/*"]})},
    ),
    "a jsconfig.json": ("@/x", {"../jsconfig.json": config(paths={"@/*": ["./fns/lib/*"]})}),
    "a base beside it": (
        "@/x",
        {
            "../../tsconfig.json": extending("./tsconfig.base.json"),
            "../../tsconfig.base.json": config(paths={"@/*": ["./apps/fns/lib/*"]}),
        },
    ),
    "imports of package.json": ("#lib/x.js", {"../../package.json": '{"imports": {"#lib/*.js": "./apps/fns/lib/*.ts"}}'}),
}


@needs_node
@pytest.mark.parametrize("how", ALIASES)
def test_an_alias_is_followed_by_a_configuration_above_the_functions_folder(how: str) -> None:
    """As TypeScript and Node do; without the file above, the alias is unknown."""
    specifier, above = ALIASES[how]
    texts = {
        "f/a.ts": f"import {{ said }} from '{specifier}';\nexport default () => new Response(said as string);",
        "lib/x.ts": "export const said = 'found';",
    }
    made = build_below(Workbench(), "apps/fns", above, texts, "f/a.ts")
    assert isinstance(made, DesiredFunction), made
    assert answers([made.code], SCRIPT) == [(200, "found")]
    lacking = build_below(Workbench(), "apps/fns", {}, texts, "f/a.ts")
    assert isinstance(lacking, UnusableFunction)


def test_a_configuration_inside_goes_before_those_above() -> None:
    """And may extend one of them."""
    above = Above("fns", source_files({"../tsconfig.json": config(jsxFactory="h", target="es2020")}))
    inside = Configs(source_files({"tsconfig.json": config(jsxFactory="mine")}), above).of("f/a.ts")
    assert (inside.option("jsxFactory"), inside.option("target")) == ("mine", None)
    extended = Configs(source_files({"tsconfig.json": extending("../tsconfig", jsxFactory="mine")}), above).of("f/a.ts")
    assert (extended.option("jsxFactory"), extended.option("target"), extended.notices) == ("mine", "es2020", ())


def test_what_leads_out_of_the_root_is_never_read() -> None:
    """Nor what is above the functions folder and no configuration: the reason is said at its place."""
    files = {"../tsconfig.json": extending(["../base.json", "./other/tsconfig.json"], paths={"@/*": ["./src/*", "../../x/*"]})}
    around = Above("fns", source_files(files))
    config_above = Configs(source_files({}), around).of("a.ts")
    assert [(n.location and n.location.file, "repository's root" in n.message) for n in config_above.notices] == [
        ("../tsconfig.json", True)
    ] * 2
    made = build_below(Workbench(), "fns", files, {"a.ts": "import '@/y';\nexport default () => 1"})
    assert isinstance(made, UnusableFunction)
    assert (made.problems[0].code, "`../src/y` is outside of the functions folder" in made.problems[0].message) == (
        "import-outside",
        True,
    )


def test_a_broken_configuration_above_is_shown_with_its_line() -> None:
    """It decides how TypeScript is compiled; plain JavaScript is not concerned."""
    above = {"../tsconfig.json": '{\n  "compilerOptions": [1\n}'}
    made = build_below(Workbench(), "fns", above, {"a.ts": "export default () => 1"})
    assert isinstance(made, UnusableFunction)
    (problem,) = made.problems
    assert where(problem)[:3] == ("tsconfig", "../tsconfig.json", 2)
    assert '"compilerOptions": [1' in (problem.frame or "")
    plain = build_below(Workbench(), "fns", above, {"a.js": "export default () => 1"}, "a.js")
    assert isinstance(plain, DesiredFunction)


def test_a_changed_configuration_above_rebuilds_what_it_concerns() -> None:
    """By the build's key: what the options do not touch keeps its code."""
    bench = Workbench()
    code = "export default () => { class A { x = 1 } return new Response(String(new A().x)) }"
    old, new = ({"../tsconfig.json": config(useDefineForClassFields=defined)} for defined in (True, False))
    first = build_below(bench, "fns", old, {"a.ts": code})
    second = build_below(bench, "fns", new, {"a.ts": code})
    assert isinstance(first, DesiredFunction)
    assert isinstance(second, DesiredFunction)
    assert "this.x = 1" in second.code
    assert "this.x = 1" not in first.code
