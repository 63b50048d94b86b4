"""Writes a plan and a report as JSON documents for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from kapso_sync.model.desired import BundledPackage
from kapso_sync.model.json_values import Json
from kapso_sync.model.plan import DeferredDelete, Delete, Plan, Step
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.state import Quarantine
from kapso_sync.store.backups import copy_name


def plan_document(plan: Plan) -> dict[str, Json]:
    """Return a plan as the JSON document that ``plan --json`` prints."""
    return {
        "source": plan.source,
        "revision": plan.revision.id,
        "owner": plan.owner,
        "in_sync": plan.in_sync,
        "digest": plan.digest,
        "summary": dict(plan.summary),
        "functions": [_step_document(step, plan.packages.get(step.slug, ())) for step in plan.steps],
        "warnings": [
            {"code": notice.code, "message": notice.message, "location": str(notice.location) if notice.location else None}
            for notice in plan.notices
        ],
    }


def _step_document(step: Step, packages: Iterable[BundledPackage]) -> dict[str, Json]:
    return {
        "slug": step.slug,
        "id": step.function_id,
        "action": step.action,
        "deploy": step.deploys,
        "origin": str(step.origin) if step.origin else None,
        "fields": list(step.fields),
        "reasons": [*step.explanation, *_copies(step)],
        "file": step.file,
        "desired_hash": step.desired_hash,
        "remote_hash": step.remote_hash,
        "diff": step.diff,
        "packages": [
            {"name": package.name, "version": package.version, "license": package.license, "bytes": package.size}
            for package in packages
        ],
    }


def _copies(step: Step) -> list[str]:
    return [f"saved first as backups/{copy_name(step.remote)}"] if isinstance(step, Delete | DeferredDelete) else []


def report_document(report: Report) -> dict[str, Json]:
    """Return a report as the JSON document that ``sync --json`` prints."""
    counts: Mapping[str, Json] = {
        "created": report.count("create"),
        "updated": report.count("update"),
        "renamed": report.count("rename"),
        "deployed": report.deployed,
        "deleted": report.count("delete"),
        "adopted": report.count("adopt"),
        "unchanged": len(report.results(Result.UNCHANGED)),
        "failed": report.failed,
        "blocked": len(report.results(Result.BLOCKED)),
        "drifted": report.drifted,
        "api_calls": report.api_calls,
    }
    return {
        **plan_document(report.plan),
        "exit_code": int(report.exit_code),
        "result": dict(counts),
        "outcomes": [_outcome_document(outcome) for outcome in report.outcomes],
        "halted": None if report.halted is None else report.halted.message,
    }


def _outcome_document(outcome: Outcome) -> dict[str, Json]:
    return {
        "slug": outcome.step.slug,
        "id": outcome.function_id,
        "action": outcome.step.action,
        "result": str(outcome.result),
        "deployed": outcome.deployed,
        "error": outcome.error,
        "hint": outcome.hint,
        "backup": outcome.backup,
        "evidence": None if outcome.evidence is None else outcome.evidence.document,
        "quarantine": None if outcome.quarantine is None else _quarantine_document(outcome.quarantine),
    }


def _quarantine_document(quarantine: Quarantine) -> dict[str, Json]:
    """Return a quarantine without its evidence, which is the outcome's."""
    return {name: value for name, value in dataclasses.asdict(quarantine).items() if name != "evidence"}
