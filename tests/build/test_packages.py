"""npm packages, and hostile files in a folder: nothing outside of it is read, and no program of it is run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kapso_sync.build import FolderPackages, Target
from kapso_sync.model.desired import DesiredFunction
from kapso_sync.model.events import Event
from kapso_sync.sources.folder import FolderSource
from tests.build.workbench import MODULE, SCRIPT, Workbench, answers, bad, build, entry, good, needs_esbuild, needs_node

SECRET = "TOP-SECRET-OF-THIS-MACHINE"


def package(folder: Path, name: str, code: str, /, **about: object) -> Path:
    """Install a package."""
    home = folder / "node_modules" / name
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", "main": "main.js", **about}))
    (home / "main.js").write_text(code)
    return home


@needs_esbuild
@needs_node
@pytest.mark.parametrize("target", [SCRIPT, MODULE])
def test_npm_packages_of_the_repository_are_bundled(tmp_path: Path, target: object) -> None:
    """ESM and CommonJS, with their own dependencies, from the folder's or a parent's node_modules; paths stay relative."""
    home = tmp_path / "services" / "functions"
    home.mkdir(parents=True)
    package(tmp_path, "@scope/root", "exports.root = () => 'root+' + require('inner').inner;")
    package(tmp_path, "inner", "exports.inner = 'inner';")
    package(home, "near", "export const near = () => 'near'; export const unused = 'not wanted';")
    text = (
        "import { root } from '@scope/root';\nimport { near } from 'near';\n"
        "export default () => new Response([root(), near()].join());"
    )
    code = good({"a.ts": text}, "a.ts", target, FolderPackages(home, tmp_path))  # type: ignore[arg-type]
    assert answers([code], target) == [(200, "root+inner,near")]  # type: ignore[arg-type]
    assert "// node_modules/near/main.js" in code
    assert "../../node_modules/@scope/root/main.js" in code
    assert str(tmp_path) not in code
    assert "not wanted" not in code


@needs_esbuild
def test_a_bundled_package_is_reproducible_on_another_path(tmp_path: Path) -> None:
    """Whatever the path of the repository and of the temporary folder."""
    codes = []
    for name in ("here", "over there/deeper"):
        root = tmp_path / name
        package(root, "thing", "export const thing = { name: 'thing' };")
        codes.append(
            good(
                {"a.ts": "import { thing } from 'thing'; export default () => thing"},
                "a.ts",
                packages=FolderPackages(root, root),
            )
        )
    assert codes[0] == codes[1]


@needs_esbuild
def test_a_changed_npm_package_rebuilds_the_function(tmp_path: Path) -> None:
    """`npm install` changes no file of git: the build compares hashes of all its inputs."""
    package(tmp_path, "thing", "export const thing = 'before';")
    other = package(tmp_path, "thing", "export const thing = 'before';") / "other.js"
    other.write_text("export const thing = 'elsewhere';")
    bench, packages = Workbench(), FolderPackages(tmp_path, tmp_path)
    texts = {"a.ts": "import { thing } from 'thing'; export default () => thing"}
    assert '"before"' in bench.build(texts, "a.ts", packages=packages).functions[0].code
    package(tmp_path, "thing", "export const thing = 'after';")
    assert '"after"' in bench.build(texts, "a.ts", packages=packages).functions[0].code
    package(tmp_path, "thing", "export const thing = 'after';", main="other.js")
    assert '"elsewhere"' in bench.build(texts, "a.ts", packages=packages).functions[0].code


@needs_esbuild
@pytest.mark.parametrize("minify", [False, True])
def test_the_packages_in_the_code_are_listed_with_version_license_and_bytes(tmp_path: Path, *, minify: bool) -> None:
    """Nested and scoped ones, an alias by its real name, one that ships a `node_modules`; not what is left out of the code."""
    package(tmp_path, "@scope/root", "exports.root = () => 'root+' + require('inner').inner;", license="MIT")
    package(tmp_path, "inner", "exports.inner = 'top';", version="1.2.3")
    package(
        tmp_path / "node_modules/@scope/root", "inner", "exports.inner = 'nested';", version="0.9.0", license={"type": "ISC"}
    )
    package(tmp_path, "alias", "export const alias = 'alias';", name="real", licenses=[{"type": "MIT"}, {"type": "GPL-2.0"}])
    shipping = package(tmp_path, "shipping", "export { x } from './dist/node_modules/tslib/x.js';", license="0BSD\nforged")
    (shipping / "dist/node_modules/tslib").mkdir(parents=True)
    (shipping / "dist/node_modules/tslib/x.js").write_text("export const x = 'shipped';")
    package(tmp_path, "unused", "export const unused = 1;")
    text = (
        "import { root } from '@scope/root';\nimport { alias } from 'alias';\nimport { x } from 'shipping';\n"
        "import { unused } from 'unused';\nexport default () => new Response(root() + alias + x);"
    )
    found = build({"a.ts": text}, entry("a.ts", minify=minify), packages=FolderPackages(tmp_path, tmp_path))
    assert isinstance(found, DesiredFunction)
    assert [(one.name, one.version, one.license) for one in found.packages] == [
        ("@scope/root", "1.0.0", "MIT"),
        ("inner", "0.9.0", "ISC"),
        ("real", "1.0.0", "MIT OR GPL-2.0"),
        ("shipping", "1.0.0", "0BSD\\nforged"),
    ]
    assert all(0 < one.size < len(found.code) for one in found.packages)
    assert sum(one.size for one in found.packages) < len(found.code)
    own = build({"a.ts": "export default () => new Response('x')"}, "a.ts", packages=FolderPackages(tmp_path, tmp_path))
    assert isinstance(own, DesiredFunction)
    assert own.packages == ()


@needs_esbuild
@needs_node
def test_pnpm_packages_behind_symlinks_are_found(tmp_path: Path) -> None:
    """They are symlinks into a store inside node_modules."""
    store = tmp_path / "node_modules" / ".pnpm"
    package(store / "outer@1.0.0", "outer", "exports.outer = 'outer+' + require('inner').inner;")
    package(store / "inner@1.0.0", "inner", "exports.inner = 'inner';")
    (store / "node_modules").mkdir()
    (store / "node_modules" / "inner").symlink_to(store / "inner@1.0.0" / "node_modules" / "inner")
    (tmp_path / "node_modules" / "outer").symlink_to(store / "outer@1.0.0" / "node_modules" / "outer")
    text = "import { outer } from 'outer'; export default () => new Response(outer)"
    assert answers([good({"a.ts": text}, "a.ts", packages=FolderPackages(tmp_path, tmp_path))], SCRIPT) == [
        (200, "outer+inner")
    ]


def test_a_missing_npm_package_is_a_build_error(tmp_path: Path) -> None:
    """Not installed, or a git source without a registry, which has no packages: two messages, each with what to do."""
    text = {"a.ts": "import { z } from 'zod/v4';\nexport default () => z"}
    (problem,) = bad(text, "a.ts", packages=FolderPackages(tmp_path, tmp_path))
    assert (problem.code, problem.message) == ("package-missing", "the npm package `zod` is not installed")
    assert "`npm install zod`" in (problem.hint or "")
    package(tmp_path, "zod", "export const z = 1;")
    (problem,) = bad(text, "a.ts", packages=FolderPackages(tmp_path / "src", tmp_path / "src"))
    assert (
        problem.message
        == f"the npm package `zod` is in {tmp_path / 'node_modules'}, and nothing above {tmp_path / 'src'} is read"
    )
    (problem,) = bad(text, "a.ts", blocked=True)
    assert (problem.code, str(problem.location)) == ("package-unavailable", "a.ts:1:19")
    assert "has no node_modules" in problem.message
    assert "set KAPSO_SYNC_NPM_REGISTRY to the registry" in (problem.hint or "")


@needs_esbuild
def test_imports_of_types_need_no_package() -> None:
    """Even without the word `type`: TypeScript drops what is used as a type only, and so do we."""
    text = (
        "import { ExportedHandler as H } from '@cloudflare/workers-types';\nimport type Stripe from 'stripe';\n"
        "import { Order } from './types';\nimport * as S from 'schema';\n"
        "import type { A } from '../lib/a';\nimport { B } from '../lib/b';\nexport type { C } from '../lib/c';\n"
        "export default { fetch: (_: Request, o: Order & A & B, s: S.Any) => new Response('x') } satisfies H<Stripe.Event>;"
    )
    assert "import" not in good({"a.ts": text, "types.d.ts": ""}, "a.ts")
    (problem,) = bad({"a.ts": text.replace("'x'", "String(S)"), "types.d.ts": ""}, "a.ts", blocked=True)
    assert problem.code == "package-unavailable"


@needs_esbuild
def test_runtime_modules_are_external_in_modules_and_refused_in_scripts(tmp_path: Path) -> None:
    """With a warning; an npm package of the same name goes first."""
    text = (
        "import { Buffer } from 'node:buffer';\nimport { EventEmitter as E } from 'events';\nexport default () => [Buffer, E]"
    )
    made = Workbench(MODULE).build({"a.js": text}, "a.js")
    assert 'from "node:buffer"' in made.functions[0].code
    assert [(n.code, n.location and n.location.line) for n in made.notices] == [("built-in", 1), ("built-in", 2)]
    assert [problem.code for problem in bad({"a.js": text}, "a.js")] == ["built-in", "built-in"]
    package(tmp_path, "events", "export class EventEmitter {}")
    code = good({"a.js": text.replace("Buffer", "x")}, "a.js", MODULE, FolderPackages(tmp_path, tmp_path))
    assert 'from "events"' not in code
    package(tmp_path, "needs-node", "import fs from 'node:fs'; export const x = fs;")
    package(tmp_path, "uses-it", "export { x } from 'needs-node'")
    texts = {"a.js": "export { default } from './b.js'", "b.js": "\nimport { x } from 'uses-it';\nexport default () => x"}
    (problem,) = bad(texts, "a.js", packages=FolderPackages(tmp_path, tmp_path))
    assert problem.message == "the package `needs-node` imports `node:fs`, which script style cannot"
    assert str(problem.location) == "b.js:2:19"
    assert "`contract: module`" in (problem.hint or "")
    made = Workbench(MODULE).build(texts, "a.js", packages=FolderPackages(tmp_path, tmp_path))
    (notice,) = made.notices
    assert notice.message.startswith("the package `needs-node` imports `node:fs`, which is there only where")
    assert str(notice.location) == "b.js:2:19"


@needs_esbuild
@pytest.mark.parametrize("target", [SCRIPT, MODULE])
def test_a_package_that_requires_a_module_of_the_runtime_is_a_warning(tmp_path: Path, target: Target) -> None:
    """It may never reach that call, or catch the error: the function is built, and its people are told."""
    package(tmp_path, "caught", "let fs; try { fs = require('node:fs') } catch { fs = null }; module.exports = () => fs;")
    text = "import get from 'caught';\nexport default () => new Response(String(get()))"
    made = Workbench(target).build({"a.js": text}, "a.js", packages=FolderPackages(tmp_path, tmp_path))
    assert [str(notice.location) for notice in made.notices] == ["a.js:1:17"]
    assert made.notices[0].message.startswith('the package `caught` calls `require("node:fs")`, which does not work on Kapso')
    package(tmp_path, "caught", "module.exports = () => null;")
    assert not Workbench(target).build({"a.js": text}, "a.js", packages=FolderPackages(tmp_path, tmp_path)).notices


@pytest.mark.parametrize(
    ("specifier", "code"),
    [
        ("../../../etc/passwd", "import-outside"),
        ("../outside.json", "import-outside"),
        ("./lib/../../outside.json", "import-outside"),
        ("/etc/passwd", "import-outside"),
        ("C:\\\\Windows\\\\x.js", "import-outside"),
        ("file:///etc/passwd", "import-url"),
        ("https://example.com/x.js", "import-url"),
        ("//example.com/x.js", "import-outside"),
        ("data:text/javascript,export default 1", "import-url"),
        ("#internal", "unresolved-import"),
        ("@/lib/x", "unresolved-import"),
        ("pkg/../../../outside", "package-missing"),
        ("..", "import-outside"),
        ("./", "unresolved-import"),
        ("./package.json", "import-package-json"),
        ("./data.yaml", "import-kind"),
        ("./large.json", "import-unreadable"),
    ],
)
def test_an_import_outside_the_folder_is_refused(tmp_path: Path, specifier: str, code: str) -> None:
    """For every form that an import specifier can have."""
    (tmp_path / "outside.json").write_text(json.dumps(SECRET))
    home = tmp_path / "functions"
    home.mkdir()
    (home / "a.js").write_text(f'import x from "{specifier}";\nexport default () => x;\n')
    (home / "package.json").write_text('{"browser": {"./a.js": "../outside.json"}}')
    (home / "data.yaml").write_text("x: 1")
    with (home / "large.json").open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    (problem,) = build_and_fail(home)
    assert problem == (code, 1, 15)


def build_and_fail(home: Path) -> list[tuple[str, int, int]]:
    """Read a folder as the source does, build `a.js` of it, and return what is wrong."""
    events: list[Event] = []
    snapshot = asyncio.run(FolderSource(home, None, top=None, emit=events.append).fetch())
    made = asyncio.run(Workbench(MODULE).builder.build([entry("a.js")], snapshot.files, FolderPackages(home, home)))
    problems = made.unusable[0].problems
    return [(p.code, p.location.line, p.location.column) for p in problems if p.location]


def test_a_symlink_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Neither to a file nor to a folder that looks like a package."""
    home = tmp_path / "functions"
    (home / "node_modules").mkdir(parents=True)
    (tmp_path / "outside.js").write_text(f"export default '{SECRET}'")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "index.js").write_text(f"export default '{SECRET}'")
    (home / "link.js").symlink_to(tmp_path / "outside.js")
    (home / "node_modules" / "pkg").symlink_to(tmp_path / "pkg")
    (home / "a.js").write_text("import x from './link.js';\nimport y from 'pkg';\nexport default () => [x, y];\n")
    assert build_and_fail(home) == [("import-unreadable", 1, 15), ("package-missing", 2, 15)]


def test_a_node_modules_symlink_out_of_the_repository_is_ignored(tmp_path: Path) -> None:
    """A symlink to another folder of the disk does not provide packages."""
    home = tmp_path / "functions"
    home.mkdir()
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "index.js").write_text(f"export default '{SECRET}'")
    (home / "node_modules").symlink_to(tmp_path)
    (home / "a.js").write_text("import y from 'pkg';\nexport default () => y;\n")
    assert build_and_fail(home) == [("package-missing", 1, 15)]


@needs_esbuild
@pytest.mark.parametrize(
    "road",
    ["import './link.js'", "import '../../../outside.js'", "import 'beyond'"],
)
def test_a_package_that_imports_files_outside_the_repository_is_refused(tmp_path: Path, road: str) -> None:
    """The real paths of all inputs are checked after the build."""
    root = tmp_path / "repository"
    (tmp_path / "outside.js").write_text(f"console.log('{SECRET}')")
    (tmp_path / "node_modules" / "beyond").mkdir(parents=True)
    (tmp_path / "node_modules" / "beyond" / "index.js").write_text(f"console.log('{SECRET}')")
    home = package(root, "evil", f"{road}; export const x = 1;")
    (home / "link.js").symlink_to(tmp_path / "outside.js")
    (problem,) = bad({"a.js": "import { x } from 'evil'; export default () => x"}, "a.js", MODULE, FolderPackages(root, root))
    assert problem.code in ("import-outside", "import-unreadable", "build")
    assert SECRET not in str(problem)
    assert SECRET not in (problem.frame or "")


@needs_esbuild
def test_no_config_plugin_or_script_of_the_folder_is_run(tmp_path: Path) -> None:
    """Configuration files, plugins, scripts of package.json and programs have no effect on the build."""
    trap = tmp_path / "trap"
    bite = f"require('fs').writeFileSync({str(trap)!r}, 'bitten');"
    home = tmp_path / "functions"
    home.mkdir()
    package(
        home, "thing", "export const thing = 'thing';", scripts={"install": f"touch {trap}", "postinstall": f"touch {trap}"}
    )
    for name in ("esbuild.config.js", "esbuild.config.mjs", "plugin.js", "babel.config.js", "postcss.config.js", ".pnp.cjs"):
        (home / name).write_text(bite)
    (home / "package.json").write_text(
        json.dumps({"scripts": {"build": f"touch {trap}"}, "browser": {"./a.ts": "./plugin.js"}, "sideEffects": False})
    )
    (tmp_path / "tsconfig.json").write_text('{"compilerOptions": {"paths": {"thing": ["./functions/plugin.js"]}}}')
    (home / "tsconfig.json").write_text(
        '{"extends": "../../etc/passwd", "compilerOptions": {"plugins": [{"name": "x", "transform": "./plugin.js"}]}}'
    )
    (home / "a.ts").write_text("import { thing } from 'thing';\nexport default () => new Response(thing);\n")
    snapshot = asyncio.run(FolderSource(home, None, top=None, emit=lambda _: None).fetch())
    made = asyncio.run(Workbench().builder.build([entry("a.ts")], snapshot.files, FolderPackages(home, home)))
    assert 'var thing = "thing";' in made.functions[0].code
    assert "writeFileSync" not in made.functions[0].code
    assert not trap.exists()


@needs_esbuild
def test_file_names_that_look_like_flags_are_not_flags() -> None:
    """`--outfile=x.js`, an equals sign, a star: files may have such names."""
    for name in ("--outfile=x.ts", "a=b.ts", "sp ace.ts", "ünï.ts", 'quo"te.ts'):
        assert "new Response" in good({name: "export default () => new Response('x' as string)"}, name)
