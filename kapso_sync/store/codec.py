"""The JSON in which records are kept; unknown keys are ignored, so that an older program can read a newer row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kapso_sync.model.functions import RemoteFunction, Version
from kapso_sync.model.ownership import split_description
from kapso_sync.model.state import (
    Intent,
    IntentKind,
    InventoryRecord,
    KnownSecrets,
    LiveContent,
    MissingFunction,
    Quarantine,
    QuarantineReason,
    QuotaRefusal,
    RenameRecord,
)


def encode_owned(owned: InventoryRecord) -> str:
    """Return an inventory record as JSON."""
    return json.dumps(
        {
            "slug": owned.slug,
            "function_id": owned.function_id,
            "wanted": dict(owned.wanted),
            "stored": dict(owned.stored),
            "updated_at": _moment(owned.updated_at),
            "live": None
            if owned.live is None
            else {"content": dict(owned.live.content), "deployed_at": _moment(owned.live.deployed_at)},
            "protected": owned.protected,
            "corrections": owned.corrections,
            "refused_slug": owned.refused_slug,
            "unproven": owned.unproven,
            "quarantine": None if owned.quarantine is None else dataclasses.asdict(owned.quarantine),
            "check_requests": list(owned.check_requests),
            "other_style_tried": owned.other_style_tried,
            "secrets": {**dataclasses.asdict(owned.secrets), "listed_at": _moment(owned.secrets.listed_at)},
        }
    )


def decode_owned(text: str) -> InventoryRecord:
    """Return the inventory record; raises ValueError, KeyError or TypeError when it is not one."""
    data: Mapping[str, Any] = json.loads(text)
    live = data.get("live")
    return InventoryRecord(
        slug=data["slug"],
        function_id=data["function_id"],
        wanted=data["wanted"],
        stored=data["stored"],
        updated_at=_parse(data.get("updated_at")),
        live=None if live is None else LiveContent(live["content"], _parse(live.get("deployed_at"))),
        protected=bool(data.get("protected")),
        corrections=int(data.get("corrections") or 0),
        refused_slug=data.get("refused_slug"),
        unproven=bool(data.get("unproven")),
        quarantine=_quarantine(data.get("quarantine")),
        secrets=_secrets(data.get("secrets") or {}),
        check_requests=tuple(data.get("check_requests") or ()),
        other_style_tried=data.get("other_style_tried"),
    )


def _secrets(data: Mapping[str, Any]) -> KnownSecrets:
    return KnownSecrets(
        digests=data.get("digests") or {},
        unverified=tuple(data.get("unverified") or ()),
        rewriting=tuple(data.get("rewriting") or ()),
        undeployed=bool(data.get("undeployed")),
        listed_at=_parse(data.get("listed_at")),
        exact=bool(data.get("exact")),
        unchecked=bool(data.get("unchecked")),
        before=tuple(data.get("before") or ()),
    )


def _quarantine(data: Mapping[str, Any] | None) -> Quarantine | None:
    if data is None:
        return None
    texts = {name: str(data[name]) for name in ("attempt", "error", "code", "restored", "at")}
    return Quarantine(fault=QuarantineReason(data["fault"]), **texts)


def encode_intent(intent: Intent) -> str:
    """Return an intent as JSON; its number is the row's."""
    return json.dumps(
        {
            "kind": str(intent.kind),
            "slug": intent.slug,
            "function_id": intent.function_id,
            "wanted": dict(intent.wanted),
            "content": dict(intent.content),
            "baseline": _moment(intent.baseline),
            "protected": intent.protected,
        }
    )


def decode_intent(number: int, text: str) -> Intent:
    """Return the intent with its number; raises like `decode_owned`."""
    data: Mapping[str, Any] = json.loads(text)
    return Intent(
        kind=IntentKind(data["kind"]),
        slug=data["slug"],
        function_id=data.get("function_id"),
        wanted=data["wanted"],
        content=data["content"],
        baseline=_parse(data.get("baseline")),
        protected=bool(data.get("protected")),
        id=number,
    )


def encode_quota(quota: QuotaRefusal) -> str:
    """Return a quota refusal as JSON."""
    return json.dumps({"fits": quota.fits, "message": quota.message, "at": quota.at})


def decode_quota(text: str) -> QuotaRefusal:
    """Return the quota refusal; raises like `decode_owned`."""
    data: Mapping[str, Any] = json.loads(text)
    return QuotaRefusal(int(data["fits"]), str(data["message"]), str(data["at"]))


def encode_moves(moves: Mapping[str, RenameRecord]) -> str:
    """Return what became of each ``moved_from`` as JSON."""
    return json.dumps({slug: dataclasses.asdict(move) for slug, move in moves.items()}, sort_keys=True)


def decode_moves(text: str) -> Mapping[str, RenameRecord]:
    """Return what became of each ``moved_from``; raises like `decode_owned`."""
    data: Mapping[str, Any] = json.loads(text)
    return {slug: RenameRecord(tuple(move["sources"]), move["function_id"], move["was"]) for slug, move in data.items()}


def encode_absences(absences: Iterable[MissingFunction]) -> str:
    """Return absences as JSON."""
    return json.dumps(
        [
            dataclasses.asdict(absence) | {name: _moment(getattr(absence, name)) for name in ("since", "seen")}
            for absence in absences
        ]
    )


def decode_absences(text: str) -> Mapping[str, MissingFunction]:
    """Return absences by function id; raises like `decode_owned`."""
    items: list[Mapping[str, Any]] = json.loads(text)
    return {
        str(item["function_id"]): MissingFunction(
            function_id=str(item["function_id"]),
            slug=str(item["slug"]),
            suspects=tuple(item["suspects"]),
            since=_parse(item["since"]),
            seen=_parse(item["seen"]),
            tick=float(item["tick"]),
            session=str(item["session"]),
        )
        for item in items
    }


def encode_version(remote: RemoteFunction) -> str:
    """Return a record's code and fields as JSON; it must have come with its code."""
    fields = {**remote.fields, "description": split_description(remote.description)[0]}
    return json.dumps({"code": remote.code, "fields": fields})


def decode_version(text: str) -> Version:
    """Return the code and fields; raises like `decode_owned`."""
    data: Mapping[str, Any] = json.loads(text)
    return Version(str(data["code"]), data["fields"])


def _moment(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _parse(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
