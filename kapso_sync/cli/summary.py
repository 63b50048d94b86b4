"""Writes the lines that a pass is summed up in, whether it was made or not."""

from __future__ import annotations

from kapso_sync.cli.console import Console, whole
from kapso_sync.model.source import Revision
from kapso_sync.plurals import counted


def print_plan_heading(console: Console, source: str, revision: Revision, owner: str) -> None:
    """Print what a plan is made from."""
    console.line(("Plan", "bold"), " for ", whole(source), f" at {revision_line(revision)}")
    console.line("Owner ", whole(owner), style="dim")


def revision_line(revision: Revision) -> str:
    """Return a revision in a few words: ``4f1c2ab “Add greeting” by Ada``, or a folder's digest."""
    parts = [revision.short]
    if revision.described:
        parts.append(f"({revision.described})")
    if revision.subject:
        parts.append(f"“{revision.subject}”")
    if revision.author:
        parts.append(f"by {revision.author}")
    return " ".join(parts)


def in_sync_summary(functions: int) -> str:
    """Return a sentence about a plan that has nothing to do."""
    return f"In sync: {counted(functions, 'function')}, nothing to do."


def cost(api_calls: int, seconds: float) -> str:
    """Return what a pass took: ``10 API calls, 0.3 s``, as a sentence."""
    return f"{counted(api_calls, 'API call')}, {seconds:.1f} s."
