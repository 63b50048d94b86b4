"""Derives the settings of what writes to Kapso; imported only if a command may write."""

from __future__ import annotations

from dataclasses import replace

from kapso_sync.model.ports import EvidenceCollector, StartLocally
from kapso_sync.reconcile.apply.checks import CheckPace
from kapso_sync.reconcile.apply.deployment_poller import POLL_INTERVALS
from kapso_sync.reconcile.apply.executor import ExecutorSettings
from kapso_sync.retry import Backoff
from kapso_sync.settings import Settings
from kapso_sync.telemetry.redact import Redactor


def poll_intervals(settings: Settings) -> Backoff:
    """Return the pauses between looks at running deployments."""
    return replace(POLL_INTERVALS, initial=settings.deploy_poll, maximum=settings.deploy_poll * 5)


def executor_settings(
    settings: Settings, start_locally: StartLocally | None, evidence: EvidenceCollector, redactor: Redactor, *, watches: bool
) -> ExecutorSettings:
    """Return the settings of the executor of plans; ``watches``: a daemon reads what is invoked after a deployment."""
    return ExecutorSettings(
        concurrency=settings.concurrency,
        deploying=settings.deploying,
        deploy_timeout=settings.deploy_timeout,
        poll_intervals=poll_intervals(settings),
        checks=CheckPace(settings.check_delay, settings.check_window),
        unknown_secrets=settings.unknown_secrets,
        prune_idle=settings.prune_idle or 0.0,
        start_locally=start_locally,
        watch_edge=settings.check_window if watches else None,
        evidence=evidence,
        conceal=redactor.add,
    )
