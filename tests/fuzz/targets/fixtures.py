"""Fixtures of checks: an archive of what may lie beside the code of the function ``greet``."""

from __future__ import annotations

import contextlib

from kapso_sync.cli.fixtures import load_script, load_values, outbound_of
from kapso_sync.emulator.clock import SystemClock
from kapso_sync.emulator.values import dump_json, parse_json
from kapso_sync.emulator.workerd.d1 import Database
from kapso_sync.emulator.workerd.kv import KeyValues
from kapso_sync.errors import ManifestInvalid
from kapso_sync.manifest.fixtures import fixture_files, read_fixtures
from kapso_sync.model.source import SourceFile
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw, dumps
from tests.fuzz.kit import print_error
from tests.fuzz.promises import BrokenPromise
from tests.fuzz.target import Target
from tests.fuzz.targets.manifest import block

MAX_BYTES = 24 * 1024
"""Larger ones take long to parse, and get no deeper."""

NAMES = tuple(name for names in fixture_files("greet", "greet.js").values() for name in names)


def run(data: bytes) -> None:
    """Read the fixtures, print what is wrong with them, and else put them in place as `test` does."""
    files = {path: SourceFile(path, content) for path, content in unpack(data) if len(content) <= MAX_BYTES}
    try:
        fixtures = read_fixtures("greet", "greet.js", files)
        with contextlib.closing(Database()) as database:
            load_script(database, fixtures)
    except ManifestInvalid as error:
        print_error(error)
        return
    store = KeyValues(SystemClock())
    load_values(store, fixtures)
    if any(store.get(key) is None for key in fixtures.values):
        raise BrokenPromise("a value is not in the store")
    outbound = outbound_of(fixtures, network=False)
    if parse_json(dump_json(outbound)) != outbound:
        raise BrokenPromise(f"the answers do not reach the runtime: {outbound}")


STATEMENTS = (
    "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE TABLE IF NOT EXISTS people (name)",
    "INSERT INTO people (name) VALUES ('ada'), ('a;b')",
    "INSERT INTO nowhere VALUES (1)",
    "CREATE TRIGGER t AFTER INSERT ON people BEGIN DELETE FROM people; INSERT INTO people (name) VALUES ('x'); END",
    "CREATE TABLE many AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000) SELECT x FROM c",
    "CREATE VIRTUAL TABLE words USING fts5(text)",
    "SELECT zeroblob(999999999)",
    "SELECT replace(hex(zeroblob(99999)), '0', hex(zeroblob(99999)))",
    "PRAGMA foreign_keys = ON",
    "PRAGMA writable_schema = 1",
    "ATTACH DATABASE '../canary' AS canary",
    "VACUUM INTO '../rootx'",
    "SELECT load_extension('../canary')",
    "BEGIN",
    "COMMIT",
    "-- a comment",
    "/* open",
    "'open",
)


def _fetch(draw: Draw) -> object:
    answer = {
        "status": lambda: draw.pick((200, 204, 500, 199, 600, draw.json())),
        "headers": lambda: {draw.pick(("X-A", "content-type", "Set-Cookie", draw.text())): draw.pick(("b", draw.text()))},
        "json": draw.json,
        "text": draw.text,
    }
    return draw.object(
        {
            "method": lambda: draw.pick(("GET", "POST", "get", draw.text())),
            "url": lambda: draw.pick(("https://shop.example/*", "*", "**" * 50, draw.text())),
            "answer": lambda: draw.object({name: answer[name] for name in draw.several(list(answer), 2)}),
        }
    )


def make(draw: Draw) -> bytes:
    """Fixtures that are valid in most places, in some of the files that they may lie in."""
    files: dict[str, bytes] = {}
    for name in draw.several(NAMES, 3):
        if name.endswith(".sql"):
            text = draw.pick((";\n", ";", "\n")).join(draw.several((*STATEMENTS, draw.text()), 5))
            files[name] = text.encode("utf-8", "surrogatepass")
            continue
        value: object = [_fetch(draw) for _ in range(draw.random.randint(0, 3))]
        if ".kv." in name:
            value = {draw.pick(("seen", "a" * 513, draw.text())): draw.json() for _ in range(draw.random.randint(0, 3))}
        plain = name.endswith(".json") or draw.chance(0.5)
        files[name] = dumps(value, ascii_only=draw.chance(0.5)) if plain else block(value, draw)
    return pack(files)


TOKENS = (
    *(statement.encode() for statement in STATEMENTS),
    *(f"-- {name} --\n".encode() for name in NAMES),
    *(f"{key}: ".encode() for key in ("method", "url", "answer", "status", "headers", "json", "text")),
    *(b";", b"\0", b"- ", b"*", b"{", b"}", b"[", b"]", b'"\\ud800"', b"\xff", b"&a", b"*a", b"1e400", b"1" * 5000),
)

TARGETS = (Target("fixtures", run, make, TOKENS, cpu=20.0),)
