"""Counts for Prometheus, from the core's events and the status; label values are bounded by the number of functions."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from kapso_sync.errors import IssueKind
from kapso_sync.model import events
from kapso_sync.model.events import Event
from kapso_sync.model.status import ConditionType, DaemonStatus, Role

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """A listener that counts; ``status`` is called for gauges at each scrape."""

    def __init__(self, version: str, status: Callable[[], DaemonStatus]) -> None:
        self._status = status
        self._registry = registry = CollectorRegistry()
        self._reconciles = Counter("kapso_sync_reconcile_total", "Passes, by how they ended", ["result"], registry=registry)
        self._deploys = Counter("kapso_sync_deploy_total", "Deployments, by how they ended", ["result"], registry=registry)
        self._watches = Counter(
            "kapso_sync_watch_total", "Watches after deployments, by how they ended", ["result"], registry=registry
        )
        self._webhooks_refused = Counter(
            "kapso_sync_webhooks_refused_total", "Pushes to the webhook that were refused", ["reason"], registry=registry
        )
        # Where a count begins with its first event, a query sees no increase in it.
        for result in ("success", "failed", "error"):
            self._reconciles.labels(result)
        for result in ("succeeded", "failed", "timed_out"):
            self._deploys.labels(result)
        for result in ("passed", "failed", "inconclusive"):
            self._watches.labels(result)
        for reason in events.WebhookRefusal:
            self._webhooks_refused.labels(str(reason))
        self._reconcile_seconds = Histogram(
            "kapso_sync_reconcile_duration_seconds", "How long passes take", buckets=_SECONDS, registry=registry
        )
        self._functions = Gauge("kapso_sync_functions", "Functions, by condition", ["condition"], registry=registry)
        self._ready = Gauge("kapso_sync_function_ready", "1 while a function is as git wants it", ["slug"], registry=registry)
        self._prune_pending = Gauge(
            "kapso_sync_prune_pending", "Functions that left git and wait to be deleted", registry=registry
        )
        self._drift = Counter("kapso_sync_drift_total", "Changes made on Kapso", ["slug", "field"], registry=registry)
        self._deploy_seconds = Histogram(
            "kapso_sync_deploy_duration_seconds", "How long deployments take", buckets=_SECONDS, registry=registry
        )
        self._requests = Counter(
            "kapso_sync_api_requests_total", "Requests to Kapso", ["method", "route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "kapso_sync_api_request_duration_seconds",
            "How long requests take",
            ["method", "route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._remaining = Gauge("kapso_sync_api_rate_limit_remaining", "Calls left in this window", registry=registry)
        self._limit = Gauge("kapso_sync_api_rate_limit", "Calls a window allows", registry=registry)
        self._last_success = Gauge(
            "kapso_sync_last_success_timestamp_seconds", "When a pass last found or made everything right", registry=registry
        )
        self._source = Gauge("kapso_sync_source_info", "The revision that was read last", ["revision"], registry=registry)
        self._unverified = Gauge(
            "kapso_sync_source_unverified",
            "1 while a revision is not read, since nobody who may has signed it",
            registry=registry,
        )
        self._triggers = Counter("kapso_sync_triggers_total", "Triggers", ["trigger"], registry=registry)
        self._suspended = Gauge("kapso_sync_suspended", "1 while suspended", registry=registry)
        self._leader = Gauge(
            "kapso_sync_leader",
            "1 at the replica that holds the Lease, and at a daemon without one; 0 at a standby",
            registry=registry,
        )
        self._lease = Gauge("kapso_sync_lease_info", "The Lease of this replica", ["lease"], registry=registry)
        Gauge("kapso_sync_build_info", "The version that runs", ["version"], registry=registry).labels(version).set(1)
        ProcessCollector(registry=registry)

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case events.ReconcileFinished():
                self._reconciles.labels(event.result).inc()
                self._reconcile_seconds.observe(event.duration_ms / 1000)
            case events.ReconcileFailed():
                self._reconciles.labels("error").inc()
            case events.DriftDetected():
                for field in event.fields:
                    self._drift.labels(event.slug, field).inc()
            case events.DeploySucceeded():
                self._deploys.labels("succeeded").inc()
                self._deploy_seconds.observe(event.duration_ms / 1000)
            case events.DeployFailed():
                self._deploys.labels("failed").inc()
            case events.DeployTimedOut():
                self._deploys.labels("timed_out").inc()
            case events.WatchPassed() | events.WatchFailed() | events.WatchInconclusive():
                self._watches.labels(event.name.removeprefix("watch.")).inc()
            case events.ApiCalled():
                self._called(event)
            case events.TriggerReceived():
                self._triggers.labels(event.trigger).inc()
            case events.WebhookRefused():
                self._webhooks_refused.labels(event.reason).inc()
            case _:
                pass

    def _called(self, event: events.ApiCalled) -> None:
        self._requests.labels(event.method, event.route, str(event.status or "none")).inc()
        self._request_seconds.labels(event.method, event.route).observe(event.duration_ms / 1000)
        if event.rate_limit is not None and event.rate_remaining is not None:
            self._limit.set(event.rate_limit)
            self._remaining.set(event.rate_remaining)

    def exposition(self) -> tuple[bytes, str]:
        """Return everything in Prometheus' text format, and its content type."""
        status = self._status()
        self._functions.clear()
        self._ready.clear()
        for kind in ConditionType:
            count = sum(function.condition(kind).status for function in status.functions)
            self._functions.labels(str(kind)).set(count)
        for function in status.functions:
            self._ready.labels(function.slug).set(function.condition(ConditionType.READY).status)
        self._prune_pending.set(sum(function.delete_at is not None for function in status.functions))
        self._source.clear()
        if status.revision is not None:
            self._source.labels(status.revision.id).set(1)
        if status.last_success_at is not None:
            self._last_success.set(status.last_success_at.timestamp())
        self._unverified.set(status.last_pass is not None and status.last_pass.issue is IssueKind.UNVERIFIED)
        self._suspended.set(status.suspension is not None)
        self._leader.set(status.role is Role.LEADER)
        if status.replica is not None:
            self._lease.labels(status.replica.lease).set(1)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    @property
    def names(self) -> frozenset[str]:
        """The names of all metrics, as a query would spell them."""
        found = set()
        for metric in self._registry.collect():
            plain = f"{metric.name}_total" if metric.type == "counter" else metric.name
            found |= {plain, *(f"{metric.name}_{part}" for part in ("bucket", "sum", "count") if metric.type == "histogram")}
        return frozenset(found)
