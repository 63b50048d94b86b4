"""Defines a settled pass: one that found every function in sync, and has nothing to report. Made again, it finds the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kapso_sync.dataclass import dataclass
from kapso_sync.model.json_values import Json


@dataclass(frozen=True, slots=True)
class SettledPass:
    """What a pass was made from that found this number of ``functions`` in sync, and nothing else to do or to report.

    ``snapshot`` and ``listed`` are the digests of what was read of the source and of Kapso.
    """

    functions: int
    snapshot: str
    listed: str


@dataclass(frozen=True, slots=True)
class RecordedPass:
    """A settled pass as the state folder keeps it until somebody writes there.

    ``circumstances`` is a digest of everything else that it depended on. ``status`` is the status after the pass, without its
    functions, and ``recorded_at`` when that was.
    """

    settled: SettledPass
    circumstances: str
    status: Mapping[str, Any]
    recorded_at: Json
