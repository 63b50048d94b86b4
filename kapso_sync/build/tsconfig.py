"""Read what decides the meaning of code from the ``tsconfig.json`` or ``jsconfig.json`` that is nearest to a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING

from kapso_sync.build.contract import Jsx
from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.encoding import encoding_diagnostic
from kapso_sync.build.nearest import Surroundings
from kapso_sync.build.syntax import Grammar, Place, first_error, is_nested_too_deeply, member, nodes, parse, place
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, Notice
from kapso_sync.model.source import Above, SourceFile

if TYPE_CHECKING:
    from tree_sitter import Node

NAME = "tsconfig.json"
NAMES = (NAME, "jsconfig.json")
"""Names of configuration files, in the order in which a folder is searched for one; esbuild's order."""

MAX_BYTES = 64 * 1024
"""Maximum size of a configuration file, in bytes."""

OPTIONS = (
    "experimentalDecorators",
    "jsx",
    "jsxFactory",
    "jsxFragmentFactory",
    "jsxImportSource",
    "target",
    "useDefineForClassFields",
    "verbatimModuleSyntax",
)
"""Options that reach esbuild; ``target`` only decides whether class fields are defined or assigned."""

MAX_DEPTH = 20
"""Maximum number of configuration files that extend each other."""

MAX_EXTENDED = 20
"""Maximum number of files that one configuration file extends itself, and of its faults and its notices that are kept."""

MAX_ALIASES = 1000
"""Maximum number of `paths`, since each import is compared with all of them."""

_HERE = "${configDir}"
_ABSENT = "there is no such file in the functions folder"
_UNREAD_ABOVE = "above the functions folder, only tsconfig*.json in the folders up to the repository's root is read"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a configuration file, and its place there."""

    value: object
    file: str
    place: Place

    @property
    def folder(self) -> str:
        """The folder of the file."""
        return self.file.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class JsxTransform:
    """How JSX is compiled: with functions that a runtime module exports, or with a factory that must be in scope."""

    automatic: bool
    runtime: str
    factory: str
    fragment: str


@dataclass(frozen=True, slots=True)
class Config:
    """The options that hold for the files of a folder, those of extended files included.

    ``file`` is the nearest configuration file, None without one. ``faults`` are errors in any of the files, and ``notices``
    name what is not followed.
    """

    file: str | None = None
    options: Mapping[str, Value] = field(default_factory=dict)
    faults: tuple[Diagnostic, ...] = ()
    notices: tuple[Notice, ...] = ()
    around: Surroundings = field(default_factory=lambda: Surroundings({}), repr=False, compare=False)

    def option(self, name: str) -> object:
        """Return the value of an option, or None."""
        found = self.options.get(name)
        return found.value if found is not None else None

    @property
    def for_esbuild(self) -> dict[str, object]:
        """The options that esbuild gets."""
        found = {name: self.option(name) for name in OPTIONS if isinstance(self.option(name), str | bool)}
        found.pop("jsx", None)
        if self._automatic:
            found["jsx"] = "react-jsx"
        return found

    @property
    def _automatic(self) -> bool:
        """Whether a runtime module compiles JSX; as in TypeScript, an import source alone says so as well."""
        mode = self.option("jsx")
        return mode in ("react-jsx", "react-jsxdev") or (mode != "react" and isinstance(self.option("jsxImportSource"), str))

    def jsx(self, jsx: Jsx) -> JsxTransform:
        """Return how the JSX of a file is compiled; its ``@jsx…`` comments go before the options."""
        given = jsx.comments
        asked = given.get("jsxRuntime")
        by_comment = asked == "automatic" or (asked is None and "jsxImportSource" in given and "jsx" not in given)
        return JsxTransform(
            automatic=asked != "classic" and (by_comment or self._automatic),
            runtime=f"{given.get('jsxImportSource') or self.option('jsxImportSource') or 'react'}/jsx-runtime",
            factory=given.get("jsx") or str(self.option("jsxFactory") or "React.createElement"),
            fragment=given.get("jsxFrag") or str(self.option("jsxFragmentFactory") or "React.Fragment"),
        )

    def jsx_comment(self, jsx: Jsx) -> str:
        """Return comments to add to a file, so that esbuild compiles its JSX like TypeScript; empty if it does already.

        Of ``@jsx h``, a line break and ``@jsxFrag Fragment`` in one comment, esbuild leaves out the first.
        """
        wanted = dict(jsx.comments)
        if self.jsx(jsx).automatic and not self._automatic:
            wanted.setdefault("jsxRuntime", "automatic")
        return "".join(f"\n/** @{name} {value} */" for name, value in wanted.items()) + ("\n" if wanted else "")

    def targets(self, specifier: str) -> Iterator[str]:
        """Yield the paths that a specifier may mean by ``paths`` and ``baseUrl``, relative to the functions folder.

        A path that leads out of the folder begins with ``../``.
        """
        base = self.options.get("baseUrl")
        found = self.options.get("paths")
        if found is not None and isinstance(found.value, dict):
            matched = _match(specifier, found.value)
            for target in matched or ():
                yield self._path(target, base if base is not None else found)
        if base is not None:
            yield self._path(specifier, base)

    def matched(self, specifier: str) -> str | None:
        """Return the pattern of ``paths`` that a specifier matches, and the file that has it, in words, or None."""
        found = self.options.get("paths")
        if found is None or not isinstance(found.value, dict):
            return None
        pattern = _best(specifier, found.value)
        return f"`{pattern}` of `paths` in {found.file}" if pattern is not None else None

    def _path(self, target: str, base: Value) -> str:
        own = (self.file or "").rpartition("/")[0]
        if target.startswith(_HERE):
            return self.around.normal(f"{own}/{target.removeprefix(_HERE)}")
        given = base.value if isinstance(base.value, str) else ""
        if given.startswith(_HERE):
            return self.around.normal(f"{own}/{given.removeprefix(_HERE)}/{target}")
        return self.around.normal(f"{base.folder}/{given}/{target}")


class Configs:
    """Finds the configuration of each folder of a snapshot, also ``above`` it; each file is read once."""

    def __init__(self, files: Mapping[str, SourceFile], above: Above | None = None) -> None:
        self._around = Surroundings(files, above or Above())
        self._folders: dict[str, Config] = {}
        self._read: dict[str, Config] = {}

    def of(self, path: str) -> Config:
        """Return the configuration that holds for a file."""
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            self._folders[folder] = self._find(folder)
        return self._folders[folder]

    def _find(self, folder: str) -> Config:
        path = self._around.nearest(folder, NAMES)
        return self._load(path, ()) if path is not None else Config()

    def _load(self, path: str, above: tuple[str, ...]) -> Config:
        """Return a file's configuration; ``above`` are the files that extend it."""
        if path in self._read:
            return self._read[path]
        file = self._around.get(path)
        content = file.content if file is not None else None
        if content is None:
            text = f"{path} {file.problem if file is not None else 'does not exist'}"
            return Config(path, faults=(Diagnostic("tsconfig", text, path, Place(1, 1), "it decides how the code is built"),))
        document = _Document(path, content)
        faults = dict.fromkeys([document.fault] if document.fault is not None else [])
        notices: dict[Notice, None] = {}
        options: dict[str, Value] = {}
        for extended in document.extends():
            found = self._extended(extended, (*above, path))
            if isinstance(found, str):
                notices[_notice(extended, found)] = None
            else:
                options |= found.options
                faults |= dict.fromkeys(found.faults)
                notices |= dict.fromkeys(found.notices)
        options |= document.options()
        options = {name: value for name, value in options.items() if value.value is not None}  # null: as if nobody had set it
        metadata = options.get("emitDecoratorMetadata")
        if metadata is not None and metadata.value is True:
            notices[_notice(metadata, "is not done by a build: decorators get no types")] = None
        kept = tuple(faults)[:MAX_EXTENDED], tuple(notices)[:MAX_EXTENDED]
        self._read[path] = found = Config(path, options, *kept, self._around)
        return found

    def _extended(self, value: Value, above: tuple[str, ...]) -> Config | str:
        """Return the configuration that ``extends`` names, or why it is not followed, as the end of a sentence."""
        text = str(value.value)
        if not text.startswith(("./", "../")) and text not in (".", ".."):
            what = "a path of this machine" if text.startswith("/") else "an npm package"
            return f"is not followed: it is {what}"
        base = self._around.normal(f"{value.folder}/{text}")
        names = (base, f"{base}.json", f"{base}/{NAME}")
        path = next((name for name in names if self._around.get(name) is not None), None)
        if path is None:
            return f"is not followed: {_UNREAD_ABOVE if base.startswith('..') else _ABSENT}"
        if path in above or len(above) > MAX_DEPTH:
            place = value.place
            fault = Diagnostic("tsconfig", f"`extends` of `{text}` is circular", value.file, place, "take one of them away")
            return Config(path, faults=(fault,))
        return self._load(path, above)


class _Document:
    """One configuration file, parsed with the JavaScript grammar.

    Comments and trailing commas are allowed: every tsconfig is a valid JavaScript expression.
    """

    def __init__(self, path: str, content: bytes) -> None:
        self._path = path
        self.fault = encoding_diagnostic(path, content)
        if self.fault is None and (len(content) > MAX_BYTES or is_nested_too_deeply(content)):
            text = "too large, or nested too deeply"
            self.fault = Diagnostic("tsconfig", text, path, Place(1, 1), "keep what TypeScript needs")
        body = content.removeprefix(b"\xef\xbb\xbf") if self.fault is None else b"{}"
        self._code = b"(" + (body.rstrip() or b"{}") + b"\n)"
        root = parse(self._code, Grammar.JAVASCRIPT)
        if root.has_error:
            where = self._moved(first_error(root, self._code))
            self.fault = Diagnostic("tsconfig", "syntax error", path, where, "TypeScript would not read it either")
        self._whole = next(nodes(root, ("object",)), None) if self.fault is None else None
        if len(self.extends()) > MAX_EXTENDED:
            text, where = f"it extends more than {MAX_EXTENDED} files", self.extends()[MAX_EXTENDED].place
            self.fault = Diagnostic("tsconfig", text, path, where, "extend one file that has what they share")
            self._whole = None
        paths = self._option("paths")
        if paths is not None and paths.named_child_count > MAX_ALIASES:
            text = f"`paths` has more than {MAX_ALIASES} aliases"
            self.fault = Diagnostic("tsconfig", text, path, self._value(paths, None).place, "use patterns such as `@/*`")
            self._whole = None

    def extends(self) -> list[Value]:
        """Return the files that this one extends, in the order in which they count."""
        node = member(self._whole, b"extends") if self._whole is not None else None
        listed = node.named_children if node is not None and node.type == "array" else [node] if node is not None else []
        return [self._value(each, _text(each)) for each in listed if each.type == "string"]

    def options(self) -> dict[str, Value]:
        """Return the compiler options that matter here."""
        found: dict[str, Value] = {}
        for name in (*OPTIONS, "baseUrl", "paths", "emitDecoratorMetadata"):
            node = self._option(name)
            if node is None:
                continue
            if node.type in ("true", "false"):
                found[name] = self._value(node, node.type == "true")
            elif node.type == "string":
                found[name] = self._value(node, _text(node))
            elif node.type == "object" and name == "paths":
                found[name] = self._value(node, dict(_patterns(node)))
            elif node.type == "null":
                found[name] = self._value(node, None)
        return found

    def _option(self, name: str) -> Node | None:
        options = member(self._whole, b"compilerOptions") if self._whole is not None else None
        return member(options, name.encode()) if options is not None and options.type == "object" else None

    def _value(self, node: Node, value: object) -> Value:
        return Value(value, self._path, self._moved(place(node, self._code)))

    @staticmethod
    def _moved(where: Place) -> Place:
        return replace(where, column=where.column - (where.line == 1))


def _patterns(node: Node) -> Iterator[tuple[str, tuple[str, ...]]]:
    for pair in node.named_children:
        key, value = pair.child_by_field_name("key"), pair.child_by_field_name("value")
        if key is not None and key.type == "string" and value is not None and value.type == "array":
            yield _text(key), tuple(_text(each) for each in value.named_children if each.type == "string")


def _text(node: Node) -> str:
    raw = (node.text or b"").decode("utf-8", "replace")
    try:
        return str(json.loads(raw, strict=False))
    except ValueError:
        return raw[1:-1]


def _best(specifier: str, patterns: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the pattern for a specifier: the same text, else the one with the longest text before its star."""
    if specifier in patterns:
        return specifier
    found = [pattern for pattern in patterns if pattern.count("*") == 1 and _star(specifier, pattern) is not None]
    return max(found, key=lambda pattern: pattern.index("*"), default=None)


def _star(specifier: str, pattern: str) -> str | None:
    before, _, after = pattern.partition("*")
    fits = len(specifier) >= len(before) + len(after) and specifier.startswith(before) and specifier.endswith(after)
    return specifier[len(before) : len(specifier) - len(after)] if fits else None


def _match(specifier: str, patterns: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    pattern = _best(specifier, patterns)
    if pattern is None:
        return None
    star = _star(specifier, pattern) if "*" in pattern else None
    return [target.replace("*", star, 1) if star is not None else target for target in patterns[pattern]]


def _notice(value: Value, text: str) -> Notice:
    shown = f"`extends` of `{value.value}`" if isinstance(value.value, str) else "`emitDecoratorMetadata`"
    return Notice("tsconfig", f"{shown} {text}", Location(value.file, value.place.line, value.place.column))
