"""Defines what an API base was seen to do where its contract is uncertain. None means: not seen yet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiFacts:
    """Observed behaviour of one API base, kept beside the state folders of all sources that use that base.

    ``secrets_survive``: a deployment keeps the function's secrets. ``script_runs`` and ``module_runs``: code of that style
    was seen to go live (True), or ended in ``error`` where the other style went live (False). ``post_overwrites_secret``:
    a ``POST`` of an existing secret replaced it. ``lock_version_moves_on_deploy``: a deployment changes ``lock_version``.
    """

    secrets_survive: bool | None = None
    script_runs: bool | None = None
    module_runs: bool | None = None
    post_overwrites_secret: bool | None = None
    lock_version_moves_on_deploy: bool | None = None
