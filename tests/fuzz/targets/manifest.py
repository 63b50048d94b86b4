"""Manifest text in YAML and JSON, ``function.yaml``, and the Kapso CLI's files: an archive of a functions folder."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from kapso_sync.errors import KapsoSyncError, ManifestInvalid
from kapso_sync.manifest import read_manifest, unlisted_files
from kapso_sync.manifest.document import read_document
from kapso_sync.manifest.layout import edited_file, misfit, read_layout
from kapso_sync.manifest.remote_map import edited_remote_map, read_project_id, read_remote_map
from kapso_sync.manifest.text import Edit
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction
from kapso_sync.model.json_values import Json, canonical_json, same_json
from kapso_sync.model.pull import MappedFunction
from kapso_sync.model.source import FUNCTION_FILE, MANIFEST_NAMES, PROJECT_FILE, REMOTE_MAP
from kapso_sync.model.state import ReconcilerState
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw, dumps
from tests.fuzz.kit import builder_without_tools, print_desired, print_error, snapshot_of
from tests.fuzz.promises import BrokenPromise
from tests.fuzz.target import Target

ENVIRONMENTS = (None, "production")
MAX_BYTES = 24 * 1024
"""Larger ones take long to parse, and get no deeper."""

VALUES: tuple[Json, ...] = ("plain", "two\nlines: #", "", [1, {"a": "b: c"}], {"x": None}, "🦊 \u2028", 1e300)
"""What an edit sets; an input gets one of them."""


def run(data: bytes) -> None:
    """Read the folder for each environment, build it, print what is said, and edit the manifest."""
    files = dict(unpack(data))
    remote_map, project = files.pop(REMOTE_MAP, None), files.pop(PROJECT_FILE, None)
    files = {path: content for path, content in files.items() if len(content) <= MAX_BYTES}
    snapshot = snapshot_of(files, remote_map=remote_map, project_file=project)
    known = read_remote_map(remote_map)
    for slug in known.files:
        known.code_file(slug, "0" * 64)
    read_project_id(project)
    _edit_map(remote_map)
    for environment in ENVIRONMENTS:
        try:
            manifest = read_manifest(snapshot, environment=environment)
        except ManifestInvalid as error:
            print_error(error)
            continue
        unlisted_files(snapshot, manifest.unusable_files)
        read_layout(snapshot.files, environment)
        try:
            desired = asyncio.run(builder_without_tools(environment)(snapshot, ReconcilerState()))
        except KapsoSyncError as error:
            print_error(error)
            continue
        for function in desired.functions:
            canonical_json(dict(function.content))
            if ".." in function.entry.file.split("/"):
                raise BrokenPromise(f"an entry names {function.entry.file}")
        print_desired(desired)
        if environment is None:
            _edit(files, desired.slugs)


def _edit_map(content: bytes | None) -> None:
    """Enter a function into the map: entries of others keep their values, and a second time there is nothing to do."""
    greet = MappedFunction(RemoteFunction("id-1", "greet", DeploymentStatus.DEPLOYED, None), {"greet/index.js": b"x"})
    try:
        made = edited_remote_map(content, [greet], (), "functions")
    except KapsoSyncError as error:
        print_error(error)
        return
    after = content if made is None else made
    if edited_remote_map(after, [greet], (), "functions") is not None:
        raise BrokenPromise(f"the map is edited again: {after!r}")
    kept = _others(json.loads(content or b"{}"))
    if _others(json.loads(after or b"")) != kept:
        raise BrokenPromise(f"the map of others has changed: {content!r} became {after!r}")


def _others(value: Any) -> str:
    entries = {slug: each for slug, each in value.pop("functions", {}).items() if slug != "greet" and each.get("id") != "id-1"}
    return json.dumps([value, entries], sort_keys=True)


def _edit(files: dict[str, bytes], slugs: frozenset[str]) -> None:
    """Set a value of each file, and read it back: nothing else may change."""
    for name, content in files.items():
        if name not in MANIFEST_NAMES and not name.endswith(f"/{FUNCTION_FILE}"):
            continue
        before = read_document(name, content)
        if before != read_document(name, content, libyaml=None):
            raise BrokenPromise(f"PyYAML's parsers read {name} differently: {content!r}")
        if before.problems or not isinstance(before.value, dict):
            continue
        slug = min(slugs, default="greet")
        path = ("functions", slug, "description") if name in MANIFEST_NAMES else ("description",)
        if name in MANIFEST_NAMES and not isinstance(before.value.get("functions"), dict | None):
            continue
        value = VALUES[len(content) % len(VALUES)]
        _check_edit(name, content, path, value)
        misfit("greet", "runtime_config", value)


def _check_edit(name: str, content: bytes, path: tuple[str, ...], value: Json) -> None:
    edited = edited_file(name, content, [Edit(path, value)])
    after = read_document(name, edited)
    wanted = _with(read_document(name, content).value, path, value)
    if after.problems or not same_json(after.value, wanted):
        raise BrokenPromise(f"an edit of {name} does not read back: {edited!r}: {after.problems}")


def _with(value: Json, path: tuple[str, ...], new: Json) -> Json:
    if not path:
        return new
    inside = value if isinstance(value, dict) else {}
    return {**inside, path[0]: _with(inside.get(path[0]), path[1:], new)}


TOKENS = (
    *(f"{key}:".encode() for key in ("version", "functions", "defaults", "environments", "rollout", "secrets", "checks")),
    *(f"{key}: ".encode() for key in ("file", "name", "description", "moved_from", "deploy", "protected", "drift", "minify")),
    *(f"{key}: ".encode() for key in ("contract", "function_type", "public_endpoint", "runtime_config", "secrets_policy")),
    *(
        f"{key}: ".encode()
        for key in ("env", "dotenv", "value", "keep", "json", "request", "expect", "status", "text", "matches")
    ),
    *(
        b"&a",
        b"*a",
        b"<<: *a",
        b"!!str",
        b"!!binary",
        b"|",
        b">-",
        b"---",
        b"...",
        b"%YAML 1.1",
        b"? ",
        b"- ",
        b"#",
        b"~",
        b"\t",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b'"',
        b"'",
        b"\\u0000",
        b"\\ud800",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\r",
        b"\xe2\x80\xa8",
        b"@",
    ),
    *(
        b"(a+)+$",
        b"(?:x{1,1000}){1,1000}",
        b"[[a]--[b]]",
        b"(?R)",
        b"\\p{L}",
        b"x" * 1000,
        b"greet.js",
        b"greet",
        b"../canary.js",
    ),
    *(b"production", b"false", b"true", b"null", b"1_000", b"1e400", b"-.inf", b"0o17", b"2026-01-01", b"12:30"),
)


def _secret(draw: Draw) -> object:
    return draw.pick(
        (
            {"env": "TOKEN"},
            {"env": "TOKEN", "json": True},
            {"file": draw.pick(("a", "../canary", "a/b", draw.text()))},
            {"dotenv": draw.pick((".env#A", "../secret.env#A", "#", draw.text()))},
            {"value": draw.json()},
            {"keep": True},
            draw.json(),
        )
    )


def _entry(draw: Draw) -> object:
    if draw.chance(0.1):
        return draw.pick((None, False, draw.json()))
    usual = {
        "file": lambda: draw.pick(("greet.js", "./greet.js", "sub/other.ts", "../canary.js", draw.text())),
        "name": lambda: draw.pick(("Greet", draw.text())),
        "description": draw.text,
        "function_type": lambda: draw.pick(("cloudflare_worker", "supabase_function")),
        "invoke_response_mode": lambda: draw.pick(("passthrough", "wrapped")),
        "public_endpoint": lambda: draw.chance(0.5),
        "runtime_config": lambda: {draw.text(): draw.json()},
        "contract": lambda: draw.pick(("auto", "script", "module")),
        "minify": lambda: draw.chance(0.5),
        "deploy": lambda: draw.chance(0.5),
        "protected": lambda: draw.chance(0.5),
        "drift": lambda: draw.pick(("correct", "report")),
        "moved_from": lambda: draw.pick(("old", ["old", "older"], [], "greet")),
        "secrets": lambda: {draw.pick(("TOKEN", "A1", draw.text())): _secret(draw) for _ in range(2)},
        "checks": lambda: [
            draw.object(
                {
                    "request": draw.json,
                    "expect": lambda: draw.object(
                        {draw.pick(("status", "json", "text", "matches")): lambda: draw.pick((200, 99, "a+", "(", draw.json()))}
                    ),
                    "timeout": lambda: draw.pick((1, 0.5, 0, 1e9)),
                }
            )
            for _ in range(draw.pick((1, 1, 2, 25)))
        ],
    }
    return draw.object({name: usual[name] for name in draw.several(list(usual), 6)}, odd=0.06)


def _slug(draw: Draw) -> str:
    return draw.pick(("greet", "other", "a-b", "0", "null", "yes", draw.text()))


def make(draw: Draw) -> bytes:
    """A folder whose manifest is valid in most places."""
    shared = {"description": "x", "rollout": {"canary": _slug(draw), "max_failures": 2}, "secrets_policy": "exact"}
    value = draw.object(
        {
            "version": 1,
            "defaults": lambda: draw.object({name: shared[name] for name in draw.several(list(shared))}),
            "functions": lambda: {_slug(draw): _entry(draw) for _ in range(draw.random.randint(0, 4))},
            "environments": lambda: {
                draw.pick(("production", "a.b-c", draw.text())): draw.object(
                    {
                        "defaults": {"description": "there"},
                        "functions": lambda: {_slug(draw): _entry(draw) for _ in range(2)},
                    }
                )
            },
        },
        odd=0.05,
    )
    if draw.chance(0.5):
        value.pop("environments", None)
    name = draw.pick(("manifest.yaml", "manifest.yml", "manifest.json"))
    text = dumps(value, ascii_only=draw.chance(0.5)) if name.endswith("json") or draw.chance(0.3) else block(value, draw)
    files = {name: text, "greet.js": b"async function handler() {}\n", "other.ts": b"export default async () => 1\n"}
    for folder in draw.several(("first", "greet", "Second", "a b"), 2):
        made = draw.object(
            {"slug": "greet", "entrypoint": "index.js", "name": draw.text, "description": draw.text, "memory": 1}
        )
        files |= {f"{folder}/function.yaml": block(made, draw), f"{folder}/index.js": b"async function handler() {}\n"}
    if draw.chance(0.2):
        files[REMOTE_MAP] = dumps({"functions": {"greet": draw.object({"id": "id-greet", "files": {"a/b.js": "0" * 64}})}})
        files[PROJECT_FILE] = dumps(draw.object({"projectId": "p"}, odd=0.4))
    return pack(files)


def block(value: object, draw: Draw) -> bytes:
    """JSON as block YAML, with odd spellings of keys and scalars."""
    return "\n".join(_lines(value, 0, draw)).encode("utf-8", "surrogatepass") + b"\n"


def _lines(value: object, indent: int, draw: Draw) -> list[str]:
    room = " " * indent
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            lead = f"{room}{key if key.isalnum() else dumps(key).decode()}:"
            if draw.chance(0.02):
                lines.append(f"{room}# {draw.text()}".split("\n")[0])
            if isinstance(item, dict | list) and item and draw.chance(0.85):
                lines += [lead, *_lines(item, indent + 2, draw)]
            elif isinstance(item, str) and "\n" in item and draw.chance(0.5):
                lines += [f"{lead} {draw.pick('|>')}", *(f"{room}  {line}" for line in item.split("\n"))]
            else:
                lines.append(f"{lead} {_scalar(item, draw)}")
        return lines
    if isinstance(value, list) and value:
        return [f"{room}- {_scalar(item, draw)}" for item in value]
    return [f"{room}{_scalar(value, draw)}"]


def _scalar(value: object, draw: Draw) -> str:
    if isinstance(value, str) and draw.chance(0.3) and not value.startswith("@"):
        return value.replace("\n", " ")
    return dumps(value, ascii_only=draw.chance(0.5)).decode("utf-8", "surrogatepass")


TARGETS = (Target("manifest", run, make, TOKENS, share=2.0),)
