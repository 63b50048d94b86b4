"""Reads YAML and JSON into plain values with positions, and refuses what two readers would read differently."""

from __future__ import annotations

import json
import math
import re
from collections.abc import MutableMapping
from dataclasses import field, replace

import yaml
from yaml import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, Problem
from kapso_sync.manifest.masking import (
    LINE_END,
    Span,
    is_secret_key,
    line_spans,
    masked,
    merged_spans,
    shown_secret_key,
    unread_secrets,
    with_comment,
)
from kapso_sync.manifest.yaml_events import LIBYAML, Loader, loaders
from kapso_sync.model.json_values import Json

MAX_DEPTH = 40
FRAME_WIDTH, FRAME_BEFORE = 160, 100
"""At most so many characters of a line are shown with a problem, and at most so many of them before its place."""

MAX_NUMBER_DIGITS = 24
"""Maximum length of a number, in characters: every double fits."""

Path = tuple[str | int, ...]
"""The path of a value: keys and indexes from the top."""

NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
CONSTANTS: dict[str, Json] = {"true": True, "false": False, "null": None, "": None}
AMBIGUOUS = re.compile(
    r"(?i:true|false|yes|no|on|off|y|n|null|~)"  # booleans and nulls in some readers, text in others
    r"|[-+]?\d[\d_]*(?:\.[\d_]*)?(?:[eE][-+]?\d+)?|[-+]?\.\d[\d_]*|[-+]?\.(?i:inf|nan)"
    r"|[-+]?0[xob][0-9a-fA-F_]+|[-+]?\d+(?::[0-5]?\d)+(?:\.\d*)?|\d{4}-\d\d?-\d\d?(?:[Tt ].*)?",
    re.ASCII,
)


@dataclass
class Document:
    """A file's value, the positions of its parts, and its syntax problems.

    ``places`` holds line and column (from 1) of values, ``key_places`` of mapping keys. ``ambiguous`` holds, by path, plain
    scalars that YAML readers disagree on; in the value they are text. ``secrets`` are the parts of the text that no problem
    shows, in order. ``is_complete``: the text was read to its end, so that `value` is all of it, whatever problems there are.
    """

    file: str
    text: str
    value: Json = None
    places: MutableMapping[Path, tuple[int, int]] = field(default_factory=dict)
    key_places: MutableMapping[Path, tuple[int, int]] = field(default_factory=dict)
    ambiguous: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    is_complete: bool = False
    secrets: list[Span] = field(default_factory=list, repr=False)
    _lines: list[Span] | None = field(default=None, repr=False)

    def location(self, path: Path, *, key: bool = False) -> Location:
        """Return the position of a value (or of its key), or of the nearest enclosing value that is in the file."""
        if key and path in self.key_places:
            return Location(self.file, *self.key_places[path])
        while path and path not in self.places:
            path = path[:-1]
        return Location(self.file, *self.places.get(path, (1, 1)))

    def location_at(self, index: int) -> Location:
        """Return the position of a character of the text."""
        ends = [end.end() for end in LINE_END.finditer(self.text, 0, index)]
        return Location(self.file, len(ends) + 1, index - (ends[-1] if ends else 0) + 1)

    def problem(self, code: str, message: str, location: Location, hint: str | None = None) -> Problem:
        """Return a problem with the source line shown."""
        return Problem(code, message, location, hint, self.frame(location))

    def frame(self, location: Location) -> str | None:
        """Return the line of a position with a caret below, or None if there is no such line; of a long line, the part there.

        A file may be one line, with a problem at every tenth character: a whole line for each would be gigabytes.
        """
        if self._lines is None:
            self._lines = line_spans(self.text)
        if not 0 < location.line <= len(self._lines):
            return None
        start, end = self._lines[location.line - 1]
        place = start + max(location.column, 1) - 1
        start = max(start, place - FRAME_BEFORE)
        line, column = masked(self.text, (start, max(start, min(start + FRAME_WIDTH, end))), place, self.secrets)
        margin = f"{location.line:>4} | "
        return f"{margin}{line}\n{' ' * (len(margin) + column)}^"

    def hide_unread(self) -> None:
        """Hide what may be a secret in a text that cannot be read to its end."""
        self.secrets = merged_spans([*self.secrets, *unread_secrets(self.text, is_json=self.file.endswith(".json"))])


def read_document(file: str, content: bytes, *, libyaml: Loader | None = LIBYAML) -> Document:
    """Return the document; a file that cannot be read at all has problems and the value None.

    Without ``libyaml`` the result is the same, and takes several times as long.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return _unreadable(file, "not-utf8", "the file is not UTF-8 text", line, "save it as UTF-8")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        return _unreadable(file, "nul", "the file holds a NUL character", line, "is it a text file?")
    is_json = file.endswith(".json")
    document = Document(file, json_for_yaml(text) if is_json else text)
    if not (_check_json(document) if is_json else _check_line_ends(document)):
        return document
    source = document.text.replace("\t", " ") if is_json else document.text  # JSON has tabs between its tokens only
    for loader in loaders(source, is_json=is_json, libyaml=libyaml):
        document = Document(file, document.text)
        _Reader(document).read(source, loader)
        if document.value is not None and not document.problems:
            break
    return document


_LINE_END_SOMEWHERE = re.compile("[\x85\u2028\u2029]")
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def json_for_yaml(text: str) -> str:
    """Return JSON with those characters escaped that YAML refuses, or takes for the end of a line, and JSON for themselves."""
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _unreadable(file: str, code: str, message: str, line: int, hint: str) -> Document:
    return Document(file, "", problems=[Problem(code, message, Location(file, line, 1), hint)])


_JSON_MESSAGES = {
    "Invalid control character at": ("a text has a control character", "write it as an escape, such as `\\n` or `\\t`"),
    "Unterminated string starting at": ("a text has no closing quote", None),
}
"""What is said in place of messages that end with a place, and a hint."""

_JSON_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|-?(?:Infinity|NaN)')
"""A text, or a number of JavaScript that JSON does not have."""


def _check_json(document: Document) -> bool:
    """Check a JSON file by JSON's own rules; the YAML parser, which accepts JSON, then gives the positions."""
    try:
        json.loads(document.text, parse_constant=_no_constant, parse_int=str)  # the reader names the place of a long one
    except RecursionError:
        document.hide_unread()
        document.problems.append(document.problem("too-deep", _TOO_DEEP, Location(document.file, 1, 1)))
        return False
    except json.JSONDecodeError as error:
        document.hide_unread()
        said, hint = _JSON_MESSAGES.get(error.msg, (error.msg, None))
        document.problems.append(document.problem("syntax", f"not valid JSON: {said}", document.location_at(error.pos), hint))
        return False
    except ValueError as error:
        document.hide_unread()
        starts = (found.start() for found in _JSON_CONSTANT.finditer(document.text) if not found[0].startswith('"'))
        location = document.location_at(next(starts, 0))
        document.problems.append(document.problem("syntax", f"not valid JSON: {error}", location, "write a number, or null"))
        return False
    return True


def _check_line_ends(document: Document) -> bool:
    """Refuse the characters that end a line in YAML 1.1, and are text in YAML 1.2."""
    found = _LINE_END_SOMEWHERE.search(document.text)
    if found is None:
        return True
    place = document.location_at(found.start())
    escape = f"\\u{ord(found[0]):04x}"
    document.hide_unread()
    document.problems.append(
        document.problem(
            "syntax",
            f"not valid YAML: U+{ord(found[0]):04X} ends a line to some YAML readers, and is text to others",
            place,
            f"remove it, or write {escape} in double quotes",
        )
    )
    return False


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


_TOO_DEEP = f"the file is nested deeper than {MAX_DEPTH} levels"


@dataclass(slots=True)
class _Open:
    """A mapping or sequence that is being read, its position and, for a mapping, the key of the next value.

    ``secret``: nothing in it is shown but its keys.
    """

    path: Path
    value: dict[str, Json] | list[Json]
    key: str | None = None
    skipped: bool = False
    secret: bool = False

    @property
    def hides_next(self) -> bool:
        """Whether the next value is not shown."""
        return self.secret or (self.key is not None and is_secret_key(self.key))


_QUOTED_HANDLE = re.compile("(?<=undefined tag handle) '.*", re.DOTALL)
"""A part of the text that PyYAML quotes: a password may begin like a tag."""


_YAML_HINTS = {
    "\\t": "YAML is indented with spaces, never with tabs",
    "mapping values are not allowed": "quote a text that holds `: `, and indent a key as those beside it",
}
"""What to do, by a part of the parser's message."""


class _Reader:
    """Builds the value from the parser's events, without recursion."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: list[_Open] = []
        self._documents = 0
        self._secrets: list[Span] = []

    def read(self, source: str, loader: Loader) -> None:
        """Fill the document in."""
        document = self._document
        document.is_complete = self._read_events(source, loader)
        document.secrets = merged_spans(with_comment(source, span) for span in self._secrets)
        if not document.is_complete:
            document.hide_unread()
        # Only now it is known what their lines may show.
        document.problems = [
            replace(problem, frame=document.frame(problem.location) if problem.location else None)
            for problem in document.problems
        ]

    def _read_events(self, source: str, loader: Loader) -> bool:
        """Take all events; return whether the text was read to its end."""
        try:
            for event in yaml.parse(source, Loader=loader):
                if not self._take(event):
                    return False
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            hint = next((hint for part, hint in _YAML_HINTS.items() if part in str(error.problem)), None)
            said = _QUOTED_HANDLE.sub("", str(error.problem or error.context))
            self._report("syntax", f"not valid YAML: {said}", place, hint)
        except yaml.reader.ReaderError as error:
            where = self._document.location_at(error.position)
            said = f"not valid YAML: the character U+{error.character:04X} is not allowed"
            hint = f'remove it, or write "\\u{error.character:04x}" in double quotes'
            self._report("syntax", said, (where.line, where.column), hint)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            self._report("syntax", f"not valid YAML: {' '.join(str(error).split())[:200]}", (1, 1))
        else:
            return True
        return False

    def _take(self, event: Event) -> bool:
        mark = event.start_mark
        place = (mark.line + 1, mark.column + 1)  # type: ignore[union-attr] # the parsers set it on every event
        if isinstance(event, ScalarEvent):  # first, since most of them are
            self._scalar(event, place)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            return self._begin(event, place)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._open.pop()
        elif isinstance(event, AliasEvent):
            if self._open and self._open[-1].hides_next:
                self._hide(event)
            self._report("alias", "aliases are not read", place, "write the value out, or use `defaults`")
            self._put(None, place)
        elif isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                line = "---" if event.explicit else "..."
                self._report(
                    "documents", "the file holds more than one YAML document", place, f"keep the first, remove `{line}`"
                )
                return False
        return True

    def _begin(self, event: MappingStartEvent | SequenceStartEvent, place: tuple[int, int]) -> bool:
        if event.anchor is not None or event.tag is not None:
            self._report_properties(event, place)
        if len(self._open) >= MAX_DEPTH:
            self._report("too-deep", _TOO_DEEP, place)
            return False
        value: dict[str, Json] | list[Json] = {} if isinstance(event, MappingStartEvent) else []
        top = self._open[-1] if self._open else None
        if top is not None and top.key is None and isinstance(top.value, dict):
            self._report("key", "a key must be text", place, "quote it")
            return False
        is_secret = top is not None and top.hides_next
        path = self._put(value, place)
        self._open.append(_Open(path, value, secret=is_secret))
        return True

    def _hide(self, event: Event) -> None:
        """Keep the text of an event out of all problems."""
        self._secrets.append((event.start_mark.index, event.end_mark.index))  # type: ignore[union-attr]

    def _report_properties(self, event: MappingStartEvent | SequenceStartEvent | ScalarEvent, place: tuple[int, int]) -> None:
        is_secret = bool(self._open) and self._open[-1].hides_next
        if is_secret:  # a password may begin with these characters
            self._hide(event)
        if event.anchor is not None:
            name = "" if is_secret else f" (&{event.anchor})"
            self._report("anchor", f"anchors are not read{name}", place, "write the value out, or use `defaults`")
        if event.tag is not None and not (isinstance(event, ScalarEvent) and event.tag == "!"):
            name = "" if is_secret else f" ({event.tag})"
            self._report("tag", f"tags are not read{name}", place, "quote it, if it is text" if is_secret else "remove it")

    def _text(self, event: ScalarEvent, place: tuple[int, int]) -> str:
        """Return a scalar's text. JSON escapes characters beyond the first plane as pairs, which YAML does not join."""
        text: str = event.value
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._report("not-text", "half of a surrogate pair is not text", place, "remove the escape")
            return ""

    def _scalar(self, event: ScalarEvent, place: tuple[int, int]) -> None:
        if event.anchor is not None or event.tag is not None:
            self._report_properties(event, place)
        top = self._open[-1] if self._open else None
        if top is not None and top.key is None and isinstance(top.value, dict):
            self._key(top, event, place)
            return
        if top is not None and top.hides_next:
            self._hide(event)
        text = self._text(event, place)
        value: Json = text
        plain = not event.style
        if plain and text in CONSTANTS:
            value = CONSTANTS[text]
        elif plain and NUMBER.fullmatch(text):
            if len(text) > MAX_NUMBER_DIGITS:
                self._report("number", f"a number of {len(text)} digits is not read", place, "quote it, if it is text")
                value = 0
            elif math.isinf(float(text)):
                self._report("number", "a number of this size is not read", place, "quote it, if it is text")
                value = 0
            else:
                value = float(text) if any(char in text for char in ".eE") else int(text)
        if plain and not text and top is not None and top.key is not None:
            place = self._document.key_places[*top.path, top.key]  # of what is not written, each parser names another place
        path = self._put(value, place)
        if plain and isinstance(value, str) and AMBIGUOUS.fullmatch(text):
            self._document.ambiguous[path] = text

    def _key(self, top: _Open, event: ScalarEvent, place: tuple[int, int]) -> None:
        key = self._text(event, place)
        path = (*top.path, key)
        first = self._document.key_places.get(path)
        shown = shown_secret_key(key) if top.secret else key
        if shown != key:
            self._hide(event)
        if first is not None:
            self._report("duplicate-key", f"`{shown}` is given twice, first in line {first[0]}", place, "keep one of them")
        elif not event.style and key == "<<":
            self._report("merge", "merge keys are not read", place, "write the values out, or use `defaults`")
        elif not event.style and (AMBIGUOUS.fullmatch(key) or not key):
            self._report("key", f"the key `{shown}` is not text to every YAML reader", place, "quote it")
        top.key, top.skipped = key, first is not None
        if first is None:
            self._document.key_places[path] = place

    def _put(self, value: Json, place: tuple[int, int]) -> Path:
        """Add a value to its parent and return its path; the value of a duplicate key is read, but not added."""
        if not self._open:
            self._document.value = value
            self._document.places[()] = place
            return ()
        top = self._open[-1]
        if isinstance(top.value, list):
            path: Path = (*top.path, len(top.value))
            top.value.append(value)
        else:
            key = top.key if top.key is not None else ""
            path = (*top.path, f"{key} (again)" if top.skipped else key)
            if not top.skipped:
                top.value[key] = value
            top.key = None
        self._document.places[path] = place
        return path

    def _report(self, code: str, message: str, place: tuple[int, int], hint: str | None = None) -> None:
        location = Location(self._document.file, *place)
        self._document.problems.append(Problem(code, message, location, hint))
