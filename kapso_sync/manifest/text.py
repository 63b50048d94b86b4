"""Writes YAML: values in one spelling, and edits that leave every other byte of a file alone.

A YAML library that writes what it read would re-indent, re-wrap and re-space lines that did not change. Here it only gives the
positions, and the edits are made there.
"""

from __future__ import annotations

from collections.abc import Iterable

from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from kapso_sync.dataclass import dataclass
from kapso_sync.manifest.document import AMBIGUOUS, CONSTANTS, NUMBER
from kapso_sync.manifest.yaml_events import compose
from kapso_sync.model.json_values import Json, same_json

STEP = 2
"""Default indentation of a level, in columns."""

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
_FLOW_MARKS = frozenset(",[]{}")
_PLAIN_START = frozenset("(_/.")


@dataclass(frozen=True, slots=True)
class Edit:
    """A value to set at a path of keys; missing parents are created. ``comment`` is written behind a new value."""

    path: tuple[str, ...]
    value: Json
    comment: str | None = None


_Tree = dict[str, "_Tree | Edit"]
_Splice = tuple[int, int, str]


def edited(text: str, edits: Iterable[Edit], *, nested: bool = False) -> str:
    """Return a block-style mapping's text with the edits made, and everything else unchanged.

    New keys are added at the end of their mapping, in the order of the edits. ``nested`` writes mappings and lists over
    several lines. The text must be YAML that `read_document` takes.
    """
    tree: _Tree = {}
    for edit in edits:
        branch = tree
        for key in edit.path[:-1]:
            branch = branch.setdefault(key, {})  # type: ignore[assignment]
        branch[edit.path[-1]] = edit
    return _Editor(text, nested=nested).apply(tree)


def scalar(value: bool | float | str | None, *, flow: bool = False) -> str:
    """Return a value as YAML: text is plain if every YAML reader reads it as that text, else double-quoted."""
    if isinstance(value, str):
        return value if _is_plain(value, flow=flow) else _quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def flow_text(value: Json) -> str:
    """Return a value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key, flow=True)}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    return scalar(value, flow=True)


def block_lines(key: str, value: Json, indent: int, *, nested: bool, step: int = STEP) -> list[str]:
    """Return the lines of one key of a block mapping."""
    inner = indent + step
    lead = f"{' ' * indent}{scalar(key)}:"
    if isinstance(value, str) and _is_literal(value):
        chomp = "" if value.endswith("\n") else "-"
        return [f"{lead} |{chomp}", *(f"{' ' * inner}{line}" for line in value.removesuffix("\n").split("\n"))]
    if nested and isinstance(value, dict) and value:
        below = (block_lines(name, item, inner, nested=True, step=step) for name, item in value.items())
        return [lead, *(line for lines in below for line in lines)]
    if nested and isinstance(value, list) and value:
        return [lead, *(f"{' ' * inner}- {flow_text(item)}" for item in value)]
    return [f"{lead} {flow_text(value) if isinstance(value, dict | list) else scalar(value)}"]


def _is_plain(text: str, *, flow: bool) -> bool:
    return (
        bool(text)
        and (text[0].isalnum() or text[0] in _PLAIN_START)
        and text == text.strip()
        and text.isprintable()
        and not (flow and _FLOW_MARKS & set(text))
        and ": " not in text
        and " #" not in text
        and not text.endswith(":")
        and not text.startswith("...")
        and text not in CONSTANTS
        and not AMBIGUOUS.fullmatch(text)
        and not NUMBER.fullmatch(text)
    )


def _is_literal(text: str) -> bool:
    """Return whether text is best written over several lines, and reads back unchanged."""
    lines = text.removesuffix("\n").split("\n")
    return len(lines) > 1 and all(line and line == line.strip() and line.isprintable() for line in lines)


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char) or (char if char.isprintable() else _numbered(ord(char))) for char in text) + '"'


def _numbered(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Editor:
    """One text, and the replacements that a tree of edits needs."""

    def __init__(self, text: str, *, nested: bool) -> None:
        self._text = text
        self._nested = nested
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._step = STEP
        self._splices: list[_Splice] = []

    def apply(self, tree: _Tree) -> str:
        root = compose(self._text)
        if isinstance(root, MappingNode) and root.value:
            self._step = next((step for _, value in root.value if (step := _indent(value) - _indent(root)) > 0), STEP)
            self._mapping(root, tree)
        else:
            lines = self._lines(tree, 0)
            gap = "" if not self._text or self._text.endswith("\n") else self._newline
            self._splices.append((len(self._text), len(self._text), gap + self._newline.join(lines) + self._newline))
        text = self._text
        # From the end, so that places stay true; of several at one place the first comes first.
        for start, _, end, new in sorted(((s, n, e, t) for n, (s, e, t) in enumerate(self._splices)), reverse=True):
            text = text[:start] + new + text[end:]
        return text

    def _mapping(self, node: MappingNode, tree: _Tree) -> None:
        children = {str(key.value): (key, value) for key, value in node.value}
        new: _Tree = {}
        for name, wish in tree.items():
            if name not in children:
                new[name] = wish
                continue
            key, value = children[name]
            if isinstance(wish, Edit):
                self._replace(key, value, wish.value, flow=bool(node.flow_style))
            elif isinstance(value, MappingNode) and value.value:
                self._mapping(value, wish)
            else:
                self._fill(key, value, wish, flow=bool(node.flow_style))
        if new:
            self._append(node, new)

    def _replace(self, key: Node, value: Node, new: Json, *, flow: bool) -> None:
        """Replace a value; in a block mapping only the differences, so that its comments stay."""
        old = _plain_value(value)
        if same_json(old, new):
            return
        if (
            isinstance(value, MappingNode)
            and not value.flow_style
            and isinstance(old, dict)
            and isinstance(new, dict)
            and old.keys() & new.keys()
        ):
            for name, item in value.value:
                if name.value in new:
                    self._replace(name, item, new[name.value], flow=False)
                else:
                    self._remove(name, item)
            added: _Tree = {name: Edit((), item) for name, item in new.items() if name not in old}
            if added:
                self._append(value, added)
            return
        spelled = flow_text(new) if flow or isinstance(new, dict | list) else scalar(new)
        self._splices.append((self._colon(key), self._end(key, value), f" {spelled}"))

    def _remove(self, key: Node, value: Node) -> None:
        start = self._text.rfind("\n", 0, key.start_mark.index) + 1
        self._splices.append((start, self._line_end(self._end(key, value), after=True), ""))

    def _fill(self, key: Node, value: Node, wish: _Tree, *, flow: bool) -> None:
        """Add the first keys to an empty value."""
        colon, end = self._colon(key), self._end(key, value)
        if flow:
            self._splices.append((colon, end, f" {flow_text(_as_json(wish))}"))
            return
        if end > colon:
            self._splices.append((colon, end, ""))
        self._insert(self._line_end(end), self._lines(wish, key.start_mark.column + self._step))

    def _append(self, node: MappingNode, new: _Tree) -> None:
        if node.flow_style:
            items = [f"{scalar(name, flow=True)}: {flow_text(_as_json(wish))}" for name, wish in new.items()]
            last = self._end(*node.value[-1]) if node.value else node.start_mark.index + 1
            self._splices.append((last, last, (", " if node.value else "") + ", ".join(items)))
            return
        self._insert(self._line_end(self._end(*node.value[-1])), self._lines(new, node.value[0][0].start_mark.column))

    def _insert(self, place: int, lines: list[str]) -> None:
        self._splices.append((place, place, "".join(f"{self._newline}{line}" for line in lines)))

    def _lines(self, tree: _Tree, indent: int) -> list[str]:
        lines: list[str] = []
        for name, wish in tree.items():
            if isinstance(wish, Edit):
                made = block_lines(name, wish.value, indent, nested=self._nested, step=self._step)
                lines += [f"{made[0]}  # {wish.comment}", *made[1:]] if wish.comment else made
            else:
                lines += [f"{' ' * indent}{scalar(name)}:", *self._lines(wish, indent + self._step)]
        return lines

    def _colon(self, key: Node) -> int:
        return self._text.index(":", key.end_mark.index) + 1

    def _end(self, key: Node, value: Node) -> int:
        """Return where a value, or the last thing in it, ends; the parser includes the blank lines after a block."""
        while isinstance(value, CollectionNode) and not value.flow_style and value.value:
            last = value.value[-1]
            key, value = last if isinstance(last, tuple) else (last, last)
        end: int = value.end_mark.index
        if not isinstance(value, ScalarNode):
            return end
        if not value.value and not value.style:
            return self._colon(key) if key is not value else value.start_mark.index
        return len(self._text[:end].rstrip())

    def _line_end(self, place: int, *, after: bool = False) -> int:
        """Return where the line of a position ends, or with ``after`` where the next one begins."""
        found = self._text.find("\n", place)
        if found < 0:
            return len(self._text)
        if after:
            return found + 1
        return found - 1 if self._text[found - 1 : found] == "\r" else found


def _indent(node: Node) -> int:
    """Return the column of a block mapping's keys; 0 for anything else."""
    block = isinstance(node, MappingNode) and not node.flow_style and node.value
    return int(node.value[0][0].start_mark.column) if block else 0


def _plain_value(node: Node) -> Json:
    """Return a node as JSON, the way `read_document` reads it."""
    if isinstance(node, MappingNode):
        return {str(key.value): _plain_value(value) for key, value in node.value}
    if not isinstance(node, ScalarNode):
        return [_plain_value(item) for item in node.value]
    text = str(node.value)
    if not node.style and text in CONSTANTS:
        return CONSTANTS[text]
    if not node.style and NUMBER.fullmatch(text):
        return float(text) if any(char in text for char in ".eE") else int(text)
    return text


def _as_json(wish: _Tree | Edit) -> Json:
    return wish.value if isinstance(wish, Edit) else {name: _as_json(item) for name, item in wish.items()}
