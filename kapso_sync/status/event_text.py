"""Describes an event in one line for people."""

from __future__ import annotations

from datetime import UTC, datetime

from kapso_sync.model import events
from kapso_sync.model.events import Event
from kapso_sync.plurals import counted


def event_text(event: Event) -> str:  # noqa: C901 - a table of sentences
    """Return a short description of an event; its slug, if any, is shown beside it."""
    match event:
        case events.SourceChanged():
            subject = f" “{event.subject}”" if event.subject else ""
            author = f" by {event.author}" if event.author else ""
            return f"new revision {event.revision.rpartition(':')[2][:12]}{subject}{author}"
        case events.FunctionCreated():
            return "created"
        case events.FunctionUpdated():
            return f"updated: {', '.join(event.fields)} ({event.origin})"
        case events.FunctionAdopted():
            return "adopted"
        case events.FunctionDisowned():
            return "disowned"
        case events.FunctionRenamed():
            return f"renamed from {event.previous}"
        case events.SlugVacated():
            return (
                f"parked, to become {event.target}" if event.target else f"renamed to {event.became}, since its slug was needed"
            )
        case events.FunctionDeleted():
            return f"deleted, saved to backups/{event.backup}"
        case events.FunctionBackedUp():
            return f"saved to backups/{event.backup} ({event.reason})"
        case events.PrunePending():
            return f"left git, will be deleted after {_moment(event.at)}"
        case events.DriftDetected():
            return f"changed on Kapso: {', '.join(event.fields)}"
        case events.DriftCorrected():
            return "drift corrected: git's version was written"
        case events.DriftIgnored():
            return "changed on Kapso; drift is only reported"
        case events.DeployStarted():
            return "deployment started"
        case events.DeploySucceeded():
            return f"live after {event.duration_ms / 1000:.1f} s"
        case events.DeployFailed():
            return f"deployment failed: {event.error}"
        case events.DeployTimedOut():
            return f"the deployment did not end within {event.timeout_s:.0f} s"
        case events.CheckPassed():
            return f"{counted(event.checks, 'check')} passed after {event.duration_ms / 1000:.0f} s"
        case events.CheckFailed():
            return f"check failed: {event.error}{_at(event.place)}"
        case events.WatchStarted():
            return f"watched until {_moment(event.until)}"
        case events.WatchPassed():
            return f"stood its watch: {event.failed} of {counted(event.invocations, 'invocation')} failed"
        case events.WatchFailed():
            return f"watch failed: {event.error}"
        case events.RollbackStarted():
            return f"rolling back: {event.reason}"
        case events.RollbackSucceeded():
            return "rolled back: the previous version runs again"
        case events.RollbackFailed():
            return f"rollback failed: {event.error}"
        case events.SecretSet():
            return f"secret {event.secret} set"
        case events.SecretRemoved():
            return f"secret {event.secret} removed"
        case events.SecretLost():
            return f"secrets lost: {', '.join(event.names)}"
        case events.FieldRefused():
            return f"Kapso kept {event.field_name}={event.got}"
        case events.FailureEnded():
            return f"over after {counted(event.times, 'time')}: {event.error or event.failure}"
        case _:
            said = getattr(event, "error", None) or getattr(event, "reason", None) or getattr(event, "message", None)
            return str(said) if said else event.name.replace(".", " ").replace("_", " ")


def _at(place: str | None) -> str:
    return "" if place is None else f", thrown at {place}"


def _moment(text: str) -> str:
    """Return an ISO time as people read it; what is none stays as it is."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return text
