"""Writes a plan, a report and a status as JSON documents for programs, and a status in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kapso_sync.advice import Advise, as_it_is
from kapso_sync.model.functions import Json
from kapso_sync.model.plan import DeferredDelete, Delete, Plan, Step
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.plurals import counted
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
        "functions": [_step_document(step) for step in plan.steps],
        "warnings": [
            {"code": notice.code, "message": notice.message, "location": str(notice.location) if notice.location else None}
            for notice in plan.notices
        ],
    }


def _step_document(step: Step) -> dict[str, Json]:
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
        "quarantine": None if outcome.quarantine is None else dataclasses.asdict(outcome.quarantine),
    }


def print_status(document: Mapping[str, Any], folder: Path | None = None, advise: Advise = as_it_is) -> None:
    """Print a status document for people; ``advise`` completes the commands that its texts name."""
    last, revision, suspended = document["last_pass"], document["revision"], document["suspended"]
    print(f"Source        {document['source']}")
    if document["owner"]:
        print(f"Owner         {document['owner']}")
    if folder is not None:
        print(f"State folder  {folder}")
    if suspended:
        until = f" until {suspended['until']}" if suspended["until"] else ""
        print(f"Suspended     since {suspended['since']}{until}: {suspended['reason']}")
    if revision:
        subject = f" “{revision['subject']}” by {revision['author']}" if revision["subject"] else ""
        print(f"Revision      {revision['id'][:19]}{subject}")
    if last is None:
        print(advise("No pass was recorded here yet: `kapso-sync sync` makes the first."))
    else:
        print(f"Last pass     {last['finished_at']}, exit code {last['exit_code']}, {counted(last['api_calls'], 'API call')}")
        for name in ("error", "hint"):
            if last[name]:
                print(f"{name.capitalize():<13} {advise(last[name])}")
        broken = last.get("broken_by")
        if broken and broken["subject"]:
            print(f"Broken by     {broken['id'][:12]} “{broken['subject']}” by {broken['author']}")
    for function in document["functions"]:
        ready = next(condition for condition in function["conditions"] if condition["type"] == "Ready")
        print(f"  {function['state']:<11} {function['slug']}  {advise(ready['message'])}")
    if document.get("unused"):
        print(f"Unused        by any workflow: {', '.join(document['unused'])}")
    if document["unfinished"]:
        print(f"Unfinished    {', '.join(document['unfinished'])}")
