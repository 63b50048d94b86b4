"""Defines the facts that were observed about one API base."""

from __future__ import annotations

from kapso_sync.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ApiFacts:
    """Observed behaviour of one API base, stored beside the state folders of all sources that use that base.

    ``secrets_survive``: a deployment keeps the function's secrets. ``script_runs`` and ``module_runs``: code of that style
    went live (True), or ended in ``error`` while the other style went live (False). ``post_overwrites_secret``: a ``POST`` of
    an existing secret replaced it. ``lock_version_moves_on_deploy``: a deployment changes ``lock_version``.
    ``headers_reach``: headers of an invocation reach the function. ``deploy_seconds``: the time in which a quarter of the
    deployments seen last had ended.
    """

    secrets_survive: bool | None = None
    script_runs: bool | None = None
    module_runs: bool | None = None
    post_overwrites_secret: bool | None = None
    lock_version_moves_on_deploy: bool | None = None
    headers_reach: bool | None = None
    deploy_seconds: float | None = None
