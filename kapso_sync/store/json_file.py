"""Small documents that a daemon keeps beside the inventory: whom it told what. Losing one means telling once more, no more."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kapso_sync.errors import StateUnusable
from kapso_sync.model.functions import Json


@dataclass(frozen=True, slots=True)
class PrivateJsonFile:
    """One JSON object in a file of the state folder, for its owner's eyes."""

    path: Path

    def read(self) -> Mapping[str, Json]:
        """Return what was kept; empty where there is nothing that can be read."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def write(self, document: Mapping[str, Json]) -> None:
        """Keep this in place of what was kept, as a whole or not at all; raises `StateUnusable`."""
        part: str | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, part = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(dict(document), file)
            Path(part).replace(self.path)
        except OSError as error:
            if part is not None:
                Path(part).unlink(missing_ok=True)
            raise StateUnusable(
                f"{self.path} cannot be written: {error.strerror}", hint="make the state folder writable"
            ) from error
