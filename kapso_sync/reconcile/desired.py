"""From a snapshot to what git wants: the manifest read, each entry's code checked and built."""

from __future__ import annotations

from collections.abc import Callable

from kapso_sync.build import Builder, Packages
from kapso_sync.manifest import Parsed, read_manifest, unlisted_files
from kapso_sync.manifest.remote_map import read_project_id, read_remote_map
from kapso_sync.model.desired import Desired, Notice, UnusableFunction
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.secret_values import GivenSecrets, SecretValues


class DesiredBuilder:
    """Builds what git wants; keeps what it learned of unchanged files for the next time."""

    def __init__(
        self,
        builder: Builder,
        notices: tuple[Notice, ...] = (),
        packages: Callable[[Snapshot], Packages | None] = lambda _snapshot: None,
        secrets: SecretValues | None = None,
        environment: str | None = None,
    ) -> None:
        """``notices`` are warnings about something else, which everyone who reads a plan should see as well.

        ``packages`` returns where a snapshot's npm packages are, or None where its source has none. Without ``secrets`` nobody
        needs their values. ``environment`` names the one of the manifest's that counts.
        """
        self._environment = environment
        self._builder = builder
        self._secrets = secrets
        self._notices = notices
        self._packages = packages
        self._parsed: Parsed = {}

    async def __call__(self, snapshot: Snapshot, state: ReconcilerState) -> Desired:
        """Return what git wants; raises `ManifestInvalid` when nothing can be planned from it."""
        manifest = read_manifest(snapshot, expected=state.manifest_present, known=self._parsed, environment=self._environment)
        built = await self._builder.build(
            manifest.entries, snapshot.files, self._packages(snapshot), elsewhere=manifest.elsewhere
        )
        given = GivenSecrets(built.functions) if self._secrets is None else self._secrets.give(built.functions)
        broken = tuple(
            UnusableFunction(slug, None, problems, moved_from=manifest.moved_from.get(slug))
            for slug, problems in manifest.broken.items()
        )
        return Desired(
            source=snapshot.source,
            revision=snapshot.revision,
            functions=given.functions,
            unusable=tuple(sorted((*built.unusable, *given.lacking, *broken), key=lambda function: function.slug)),
            notices=(
                *self._notices,
                *manifest.notices,
                *built.notices,
                *given.notices,
                *unlisted_files(snapshot, built.used),
            ),
            manifest_present=manifest.present,
            rollout=manifest.rollout,
            remote_ids=read_remote_map(snapshot.remote_map).ids,
            project_id=read_project_id(snapshot.project_file),
        )
