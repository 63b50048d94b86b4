"""From a snapshot to what git wants: the manifest read, each entry's code checked and built."""

from __future__ import annotations

from kapso_sync.build import Builder, imported_files
from kapso_sync.manifest import Parsed, read_manifest, unlisted_files
from kapso_sync.manifest.remote_map import read_remote_map
from kapso_sync.model.desired import Desired, Notice, UnusableFunction
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import Memory


class Desire:
    """Builds what git wants; keeps what it learned of unchanged files for the next time."""

    def __init__(self, builder: Builder, notices: tuple[Notice, ...] = ()) -> None:
        """``notices`` are warnings about something else, which everyone who reads a plan should see as well."""
        self._builder = builder
        self._notices = notices
        self._parsed: Parsed = {}

    def __call__(self, snapshot: Snapshot, memory: Memory) -> Desired:
        """Return what git wants; raises `ManifestInvalid` when nothing can be planned from it."""
        manifest = read_manifest(snapshot, expected=memory.manifest_present, known=self._parsed)
        functions, unusable = self._builder.build(manifest.entries, snapshot.files)
        broken = tuple(UnusableFunction(slug, None, problems) for slug, problems in manifest.broken.items())
        used = imported_files(manifest.entries, snapshot.files)
        return Desired(
            source=snapshot.source,
            revision=snapshot.revision,
            functions=functions,
            unusable=tuple(sorted((*unusable, *broken), key=lambda function: function.slug)),
            notices=(*self._notices, *manifest.notices, *unlisted_files(snapshot, used)),
            manifest_present=manifest.present,
            rollout=manifest.rollout,
            remote_ids=read_remote_map(snapshot.remote_map).ids,
        )
