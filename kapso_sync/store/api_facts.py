"""Stores the observed behaviour of one API base; all sources that use the base share the file."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.permissions import is_ours
from kapso_sync.store.json_file import PrivateJsonFile

_ANSWERS = tuple(field.name for field in dataclasses.fields(ApiFacts) if field.name != "deploy_seconds")

MAX_DEPLOY_SECONDS = 600.0
"""No deployment is documented to take longer than a minute; one that is said to take hours would never be looked at."""


@dataclass(frozen=True, slots=True)
class ApiFactsFile:
    """One JSON object beside the state folders. Losing it means observing once more, nothing else."""

    path: Path

    @classmethod
    def for_base(cls, root: Path, base_url: str) -> ApiFactsFile:
        """Return the file of an API base below ``root``, the folder that holds the state folders."""
        digest = hashlib.sha256(base_url.encode()).hexdigest()[:16]
        return cls(root / f"api-{digest}.json")

    def read(self) -> ApiFacts:
        """Return the facts; values that cannot be are ignored, and so is a file that others may write."""
        kept = PrivateJsonFile(self.path).read() if is_ours(self.path) else {}
        known = {name: value for name in _ANSWERS if isinstance(value := kept.get(name), bool)}
        seconds = kept.get("deploy_seconds")
        taken = seconds if isinstance(seconds, float) and 0 < seconds <= MAX_DEPLOY_SECONDS else None
        return ApiFacts(**known, deploy_seconds=taken)

    def write(self, facts: ApiFacts) -> None:
        """Replace the stored facts; raises `StateUnusable`."""
        PrivateJsonFile(self.path).write(
            {name: value for name, value in dataclasses.asdict(facts).items() if value is not None}
        )
