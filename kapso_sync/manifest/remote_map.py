"""Reads ``.kapso/remote-map.json`` of the Kapso CLI, leniently: a hint which function is which. It is never written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from kapso_sync.model.functions import Json


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
