"""Writes private files of the state folder, each as a whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import StateUnusable
from kapso_sync.files import read_small
from kapso_sync.model.json_values import Json
from kapso_sync.permissions import make_private
from kapso_sync.store.writing_hint import writing_hint

MAX_BYTES = 16 * 1024 * 1024
"""Most bytes of such a file: those of notifications have some KiB for each channel."""


@dataclass(frozen=True, slots=True)
class PrivateJsonFile:
    """One JSON object in a file, such as the notifications that were sent. Losing it costs a repeated message, and no more."""

    path: Path

    def read(self) -> Mapping[str, Json]:
        """Return the object; empty if there is none that can be read."""
        try:
            kept = json.loads(read_small(self.path, MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def write(self, document: Mapping[str, Json]) -> None:
        """Replace the object. Raises `StateUnusable`."""
        write_private(self.path, json.dumps(dict(document)))

    def remove(self) -> None:
        """Remove the file, if it is there. Raises `StateUnusable`."""
        with _writing(self.path):
            self.path.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner can read. Raises `StateUnusable`."""
    with _writing(path):
        make_private(path.parent)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(part).replace(path)
        except OSError:
            Path(part).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = writing_hint(error, "make the state folder writable")
        raise StateUnusable(f"{path} cannot be written: {error.strerror}", hint=hint) from error
