"""Parses YAML with PyYAML: with libyaml where its two parsers agree, else with the one in Python."""

from __future__ import annotations

import contextlib
import re
from typing import TypeAlias

import yaml
from yaml import DocumentEndEvent
from yaml.scanner import ScannerError
from yaml.tokens import (
    AliasToken,
    AnchorToken,
    DocumentEndToken,
    FlowMappingEndToken,
    FlowSequenceEndToken,
    ScalarToken,
    Token,
)

Loader: TypeAlias = "type[yaml.BaseLoader | yaml.CBaseLoader]"

LIBYAML: Loader | None = getattr(yaml, "CBaseLoader", None)
"""The loader that parses with libyaml; None if PyYAML was built without it."""

_BLANK = frozenset("\0 \t\r\n")
_NAME_ENDS = _BLANK | frozenset(",[]{}")

_BYTE_ORDER_MARK = "\ufeff"
_UNLIKE = re.compile(
    r"[\t\ufeff!?|>]"  # in front, so that the search only stops at these: it takes an eighth of the time
    r"(?:(?<=[\t\ufeff])"  # a tab, a mark of byte order
    r"|(?<=[!?])(?<![^\s\[\]{},:].)"  # a tag, a complex key, or what looks like one
    r"|(?<=[|>])[-+\d]*#)"  # a comment right behind the header of a block scalar
)
"""Where libyaml may read on, and Python's parser refuse it or place it otherwise."""


class PythonLoader(yaml.BaseLoader):
    """PyYAML's parser in Python, which defines what we read, with the rules of YAML 1.2 where a manifest may need them."""

    def __init__(self, stream: str) -> None:
        self._flow: list[str] = []
        super().__init__(stream)

    def fetch_flow_sequence_start(self) -> None:
        """Enter a flow sequence."""
        super().fetch_flow_sequence_start()
        self._flow.append("[")

    def fetch_flow_mapping_start(self) -> None:
        """Enter a flow mapping."""
        super().fetch_flow_mapping_start()
        self._flow.append("{")

    def fetch_flow_collection_end(self, TokenClass: type[Token]) -> None:  # noqa: N803 - PyYAML's name
        """Leave the innermost flow collection, if any is open."""
        super().fetch_flow_collection_end(TokenClass)
        del self._flow[-1:]
        self.flow_level = len(self._flow)

    def scan_to_next_token(self) -> None:
        """Skip blanks and comments; in a flow collection tabs as well, as in JSON."""
        super().scan_to_next_token()
        while self.flow_level and self.peek() == "\t":
            self.forward()
            super().scan_to_next_token()

    def check_value(self) -> bool:
        """Return whether this `:` ends a key: a blank follows, or the key is in a flow mapping, or in quotes or brackets."""
        if self.peek(1) in _BLANK or self._flow[-1:] == ["{"]:
            return True
        last = self.tokens[-1] if self._flow and self.tokens else None
        if isinstance(last, ScalarToken):
            return not last.plain
        return isinstance(last, FlowMappingEndToken | FlowSequenceEndToken)

    def check_plain(self) -> bool:
        """Return whether a plain scalar begins here; in a flow collection one may begin with `:`."""
        return bool(super().check_plain()) or bool(self.flow_level and self.peek() == ":" and self.peek(1) not in _BLANK)

    def scan_plain(self) -> ScalarToken:
        """Scan a plain scalar; also in a flow collection `?` is text, and `:` unless a blank follows."""
        chunks: list[str] = []
        spaces: list[str] = []
        start = end = self.get_mark()
        indent = self.indent + 1
        ends = _NAME_ENDS if self.flow_level else _BLANK
        while self.peek() != "#":
            length = 0
            while (char := self.peek(length)) not in ends and not (char == ":" and self.peek(length + 1) in _BLANK):
                length += 1
            if not length:
                break
            self.allow_simple_key = False
            chunks += [*spaces, self.prefix(length)]
            self.forward(length)
            end = self.get_mark()
            spaces = self.scan_plain_spaces(indent, start) or []
            if not spaces or (not self.flow_level and self.column < indent):
                break
        return ScalarToken("".join(chunks), plain=True, start_mark=start, end_mark=end)

    def scan_anchor(self, TokenClass: type[AnchorToken | AliasToken]) -> AnchorToken | AliasToken:  # noqa: N803 - PyYAML's name
        """Scan an anchor or an alias, whose name may be any text without blanks."""
        start = self.get_mark()
        length = 1
        while self.peek(length) not in _NAME_ENDS:
            length += 1
        name = self.prefix(length)[1:]
        self.forward(length)
        if not name:
            raise ScannerError(
                None, start, f"expected alphabetic or numeric character, but found {self.peek()!r}", self.get_mark()
            )
        return TokenClass(name, start, self.get_mark())

    def parse_document_end(self) -> DocumentEndEvent:
        """Take what follows `...` for one more document."""
        event = super().parse_document_end()
        if event.explicit and not self.check_token(DocumentEndToken):
            self.state = self.parse_implicit_document_start
        return event


class JsonLoader(PythonLoader):
    """The same for valid JSON, whose keys have any length, and may be followed by line ends."""

    def stale_possible_simple_keys(self) -> None:
        """Forget what cannot be a key any more; a text in quotes remains one until the next token decides."""
        known = self.possible_simple_keys
        texts = {level: key for level, key in known.items() if self.buffer[key.index] == '"'}
        self.possible_simple_keys = {level: key for level, key in known.items() if level not in texts}
        super().stale_possible_simple_keys()
        self.possible_simple_keys |= texts


def loaders(text: str, *, is_json: bool = False, libyaml: Loader | None = LIBYAML) -> tuple[Loader, ...]:
    """Return the loaders to read a text with, the fastest first; the last one reads what the others have a problem with.

    ``is_json``: the text is valid JSON, without tabs.
    """
    python: Loader = JsonLoader if is_json else PythonLoader
    if libyaml is None or (_BYTE_ORDER_MARK in text if is_json else _UNLIKE.search(text)):
        return (python,)
    return (libyaml, python)


def compose(text: str) -> yaml.Node | None:
    """Return the nodes of a text that is valid, with their positions; None for an empty one."""
    *fast, last = loaders(text)
    for loader in fast:
        with contextlib.suppress(yaml.YAMLError):
            return yaml.compose(text, Loader=loader)
    return yaml.compose(text, Loader=last)
