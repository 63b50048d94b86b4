"""Reads ``.kapso/remote-map.json`` of the Kapso CLI, leniently, as a hint which function is which, and edits it where asked.

An edit changes the entries of functions that we manage, and leaves every other byte: the file has several authors.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from pathlib import PurePosixPath

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.functions import DeploymentStatus
from kapso_sync.model.json_values import Json
from kapso_sync.model.pull import MappedFunction
from kapso_sync.model.source import REMOTE_MAP
from kapso_sync.units import timestamp


@dataclass(frozen=True, slots=True)
class RemoteMap:
    """The functions' ids by slug, and by slug the sha256 of each file (hex) by its path below the repository's root."""

    ids: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def code_file(self, slug: str, digest: str) -> tuple[str, str] | None:
        """Return the folder and the name of the file that held code of this sha256 (hex), or None."""
        for path, known in self.files.get(slug, {}).items():
            pure = PurePosixPath(path)
            if known.removeprefix("sha256:") == digest and len(pure.parts) > 1:
                return pure.parent.name, pure.name
        return None


def read_remote_map(content: bytes | None) -> RemoteMap:
    """Return the content of the file; empty if it is missing, or not what the CLI writes."""
    try:
        value: Json = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return RemoteMap()
    functions = value.get("functions") if isinstance(value, dict) else None
    ids: dict[str, str] = {}
    files: dict[str, Mapping[str, str]] = {}
    for slug, record in functions.items() if isinstance(functions, dict) else ():
        if not isinstance(record, dict):
            continue
        if isinstance(function_id := record.get("id"), str):
            ids[slug] = function_id
        if isinstance(listed := record.get("files"), dict):
            files[slug] = {path: digest for path, digest in listed.items() if isinstance(digest, str)}
    return RemoteMap(ids, files)


def read_project_id(content: bytes | None) -> str | None:
    """Return the project in a Kapso CLI's ``project.json``, or None."""
    try:
        value: Json = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return None
    found = value.get("projectId") if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None


def edited_remote_map(
    content: bytes | None, functions: Iterable[MappedFunction], gone: Collection[str], home: str
) -> bytes | None:
    """Return the file with the entries of these functions as they are now; ``content`` None makes a new one.

    ``gone`` are ids of functions that we deleted. ``home`` is the functions folder below the folder of the map. Entries of
    others, keys that we do not know and their spelling stay; None: nothing changes. Raises `KapsoSyncError` if the file is not
    what the CLI writes: nobody knows then what an edit would do.
    """
    text = "{}" if content is None else _checked(content)
    known = read_remote_map(content)
    old = json.loads(text).get("functions", {})
    entries = {mapped.remote.slug: _entry(mapped, old.get(mapped.remote.slug), home) for mapped in functions}
    ours = {*gone, *(entry["id"] for entry in entries.values())}
    moved = {slug: None for slug, function_id in known.ids.items() if function_id in ours and slug not in entries}
    if not entries and not moved:
        return None
    new = _merged(text.strip(_BLANKS), {"functions": {**dict(sorted(entries.items())), **moved}}, indent="")
    if content is None:
        return f"{new}\n".encode()
    new = text[: text.index("{")] + new + text[len(text.rstrip(_BLANKS)) :]
    return None if new == text else new.encode()


def _checked(content: bytes) -> str:
    def once(pairs: Sequence[tuple[str, Json]]) -> Json:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    text = content.decode("utf-8", "replace")
    try:
        value = json.loads(text, object_pairs_hook=once)
        functions = value.get("functions", {})
        sound = all(isinstance(each, dict) and isinstance(each.get("files", {}), dict) for each in functions.values())
    except (ValueError, RecursionError, AttributeError):
        sound = False
    if not sound or text.encode() != content:
        raise KapsoSyncError(
            f"{REMOTE_MAP} is left as it is: it is not what the Kapso CLI writes",
            hint="repair it, or move it away to have it made anew",
        )
    return text


def _entry(mapped: MappedFunction, old: Mapping[str, Json] | None, home: str) -> Mapping[str, Json]:
    """Return the keys of a function's entry; a time stays as it is spelled, and what Kapso does not show is left out."""
    remote = mapped.remote
    entry: dict[str, Json] = {"id": remote.id, "slug": remote.slug}
    if remote.status is not DeploymentStatus.UNKNOWN:
        entry["status"] = str(remote.status)
    for name, time in (("lastDeployedAt", remote.last_deployed_at), ("updatedAt", remote.updated_at)):
        if time is not None:
            spelled = (old or {}).get(name)
            entry[name] = spelled if _time(spelled) == time else _spelled(time)
    if remote.lock_version is not None:
        entry["lockVersion"] = remote.lock_version
    prefix = f"{home}/" if home else ""
    entry["files"] = {f"{prefix}{path}": hashlib.sha256(body).hexdigest() for path, body in sorted(mapped.files.items())}
    return entry


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _spelled(time: datetime) -> str:
    """Return a time as Kapso spells it."""
    return timestamp(time)


_BLANKS = " \t\r\n"
_SPACE = re.compile(f"[{_BLANKS}]*")


def _merged(text: str, wanted: Mapping[str, object], indent: str) -> str:
    """Return the text of a JSON object with the wanted values, those of inner objects as well, and nothing else changed.

    None removes a key. A new one goes behind the last one, laid out as those before it: one to a line, or all in one line.
    """
    members, end = _members(text)
    flat = bool(members) and "\n" not in text
    inner = next((lead.rpartition("\n")[2] for _, lead, _ in members if "\n" in lead), f"{indent}  ")
    made = [
        (lead, _merged_member(member, wanted[key], inner) if key in wanted else member)
        for key, lead, member in members
        if key not in wanted or wanted[key] is not None
    ]
    known = {key for key, _, _ in members}
    for key, value in wanted.items():
        if key not in known and value is not None:
            lead = ("" if not made else " ") if flat else f"\n{inner}"
            made.append((lead, f"{json.dumps(key, ensure_ascii=False)}: {_dumped(value, inner, flat=flat)}"))
    if not members and made:
        end = f"\n{indent}"
    return "{" + ",".join(f"{lead}{member}" for lead, member in made) + end + "}"


def _merged_member(member: str, wanted: object, indent: str) -> str:
    """Return the text of a member, its key included, with the wanted value."""
    decoder = json.JSONDecoder()
    start = _skip(member, _skip(member, decoder.raw_decode(member)[1]) + 1)
    value, stop = decoder.raw_decode(member, start)
    if isinstance(wanted, Mapping) and isinstance(value, dict):
        return member[:start] + _merged(member[start:stop], wanted, indent) + member[stop:]
    if value == wanted and type(value) is type(wanted):
        return member
    return member[:start] + _dumped(wanted, indent, flat="\n" not in member[start:stop]) + member[stop:]


def _members(text: str) -> tuple[list[tuple[str, str, str]], str]:
    """Return the members of a JSON object: key, the blanks before it, and its text; then the blanks before the last bracket."""
    decoder, place = json.JSONDecoder(), 1
    members: list[tuple[str, str, str]] = []
    while True:
        start = _skip(text, place)
        if text[start] == "}":
            return members, text[place:start]
        key, after = decoder.raw_decode(text, start)
        value_end = decoder.raw_decode(text, _skip(text, _skip(text, after) + 1))[1]
        stop = _skip(text, value_end)
        if text[stop] == "}":
            return [*members, (key, text[place:start], text[start:value_end])], text[value_end:stop]
        members.append((key, text[place:start], text[start:stop]))
        place = stop + 1


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def _dumped(value: object, indent: str, *, flat: bool) -> str:
    dumped = json.dumps(value, indent=None if flat else 2, ensure_ascii=False)
    return dumped.replace("\n", f"\n{indent}")
