"""Defines the records of functions, deployments, invocations and workflows, and their JSON on disk."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Self, cast

from kapso_sync.emulator.clock import rfc3339
from kapso_sync.emulator.values import Json, JsonObject

Status = Literal["draft", "deployed", "error"]

CLOUDFLARE = "cloudflare_worker"
LIVE_FIELDS = ("function_type", "invoke_response_mode", "public_endpoint", "runtime_config")
"""The fields that a deployment deploys besides the code."""


@dataclass(slots=True)
class Function:
    """One function's record.

    ``live_code`` and ``live_fields`` are what really runs; the Functions API never shows them. ``live_deployment`` is the id
    of the deployment that made them live. ``former`` is the previous version, which still answers invocations until
    ``former_until``. ``failure`` is why the last deployment ended in ``error``. ``script`` is the name of the Worker script
    that was deployed last; it holds the slug of that time. ``secrets_updated_at`` says when each secret was set, if
    that is known.
    """

    id: str
    name: str
    slug: str
    code: str
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    function_type: str = CLOUDFLARE
    invoke_response_mode: str = "passthrough"
    public_endpoint: bool = False
    runtime_config: JsonObject = field(default_factory=dict)
    status: Status = "draft"
    version: int = 1
    last_deployed_at: datetime | None = None
    live_code: str | None = None
    live_fields: JsonObject | None = None
    live_deployment: str | None = None
    former: JsonObject | None = None
    former_until: datetime | None = None
    failure: str | None = None
    secrets: dict[str, Json] = field(default_factory=dict, repr=False)
    secrets_updated_at: dict[str, str] = field(default_factory=dict)
    lock_version: int = 0
    script: str | None = None

    @property
    def running(self) -> bool:
        """Return whether it can be invoked."""
        return self.status == "deployed"

    def serving(self, now: datetime) -> Live | None:
        """Return the version that answers an invocation at this time, or None if the function is not deployed."""
        if not self.running or self.live_code is None:
            return None
        if self.former is not None and self.former_until is not None and now < self.former_until:
            return Live.from_document(self.former)
        return Live(self.live_code, self.live_fields or self.deployable_fields(), self.live_deployment or "")

    def deployable_fields(self) -> JsonObject:
        """Return a copy of the fields that take effect with a deployment."""
        return {name: cast("Json", getattr(self, name)) for name in LIVE_FIELDS}

    def keep_secret(self, name: str, value: Json, now: datetime) -> None:
        """Set a secret."""
        self.secrets[name] = value
        self.secrets_updated_at[name] = rfc3339(now)

    def drop_secrets(self, *names: str) -> None:
        """Forget these secrets."""
        for name in names:
            del self.secrets[name]
            self.secrets_updated_at.pop(name, None)

    def described_secrets(self) -> JsonObject:
        """Return the type of each secret and when it was set, by name, without any value."""
        return {
            name: {"type": secret_type(value), "updated_at": self.secrets_updated_at.get(name)}
            for name, value in self.secrets.items()
        }

    def to_document(self) -> JsonObject:
        """Return everything, secrets included, as JSON."""
        return _document(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Self:
        """Return what `to_document` wrote."""
        return cls(**_values(document, ("created_at", "updated_at", "last_deployed_at", "former_until")))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Live:
    """The live version: code, the fields it was deployed with, and the deployment's id."""

    code: str
    fields: JsonObject
    deployment: str

    def to_document(self) -> JsonObject:
        """Return everything as JSON."""
        return {"code": self.code, "fields": self.fields, "deployment": self.deployment}

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Self:
        """Return what `to_document` wrote."""
        return cls(**document)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running deployment. ``code`` and ``fields`` are those at the time of the request.

    ``failure`` is the error that it will end with; ``ends_at`` is None if it never ends.
    """

    id: str
    function_id: str
    code: str
    fields: JsonObject
    requested_at: datetime
    ends_at: datetime | None
    failure: str | None = None

    def to_document(self) -> JsonObject:
        """Return everything as JSON."""
        return _document(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Self:
        """Return what `to_document` wrote."""
        return cls(**_values(document, ("requested_at", "ends_at")))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a deployed function, as the API lists it."""

    id: str
    function_id: str
    status_code: int
    duration_ms: int
    request_body: Json
    response_body: Json
    error_message: str | None
    created_at: datetime
    console_logs: tuple[JsonObject, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Return whether it succeeded: a status of 2xx."""
        return 200 <= self.status_code < 300

    def to_document(self) -> JsonObject:
        """Return the record as it is kept."""
        return _document(self) | {"console_logs": list(self.console_logs)}

    def shown(self) -> JsonObject:
        """Return the record as the API shows it."""
        return {name: value for name, value in self.to_document().items() if name != "function_id"}

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Self:
        """Return what `to_document` wrote."""
        values = _values(document, ("created_at",))
        return cls(**values | {"console_logs": tuple(values["console_logs"])})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow; the emulator knows only its definition."""

    id: str
    name: str
    definition: JsonObject
    created_at: datetime
    status: str = "active"

    def shown(self) -> JsonObject:
        """Return the record as the API's list shows it, without the definition."""
        shown = {name: value for name, value in self.to_document().items() if name != "definition"}
        return shown | {"slug": slug_from(self.name), "lock_version": 0, "updated_at": shown["created_at"]}

    def to_document(self) -> JsonObject:
        """Return everything as JSON."""
        return _document(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Self:
        """Return what `to_document` wrote."""
        return cls(**_values(document, ("created_at",)))  # type: ignore[arg-type]


def secret_type(value: Json) -> str:
    """Return the type that the API lists for a secret of this value."""
    return "text" if isinstance(value, str) else "json"


def stamp(moment: datetime | None) -> str | None:
    """Return a time as the API writes it, or None."""
    return None if moment is None else rfc3339(moment)


def _document(record: Function | Deployment | Invocation | Workflow) -> JsonObject:
    document: JsonObject = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        document[item.name] = rfc3339(value) if isinstance(value, datetime) else value
    return document


def _values(document: Mapping[str, Json], times: tuple[str, ...]) -> dict[str, object]:
    return {
        name: datetime.fromisoformat(value) if name in times and isinstance(value, str) else value
        for name, value in document.items()
    }


Errors = dict[str, list[str]]
"""Error messages by attribute, in Rails' words."""

SLUG = re.compile(r"[a-z0-9-]+\Z")
SECRET_NAME = re.compile(r"[A-Z0-9_]+\Z")

TAKEN = "has already been taken"
BLANK = "can't be blank"
INVALID = "is invalid"
CLOUDFLARE_ONLY = "is only available for Cloudflare functions"


def read_attributes(body: Mapping[str, Json]) -> tuple[JsonObject, Errors]:
    """Return the known attributes in ``body`` and their errors; unknown ones are ignored, as in Rails."""
    known = {name: value for name, value in body.items() if name in _CHECKS}
    errors: Errors = {}
    for name, value in known.items():
        message = _CHECKS[name](value)
        if message is not None:
            errors[name] = [message]
    return known, errors


def slug_from(name: str) -> str:
    """Return the slug for a create without one, made from ``name`` like Rails' ``parameterize``; may be empty."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def _text(value: Json) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return BLANK
    return None if isinstance(value, str) else INVALID


def _slug(value: Json) -> str | None:
    return _text(value) or (None if isinstance(value, str) and SLUG.match(value) else INVALID)


def _description(value: Json) -> str | None:
    return None if value is None or isinstance(value, str) else INVALID


def _one_of(*choices: str) -> Callable[[Json], str | None]:
    return lambda value: None if value in choices else "is not included in the list"


def _boolean(value: Json) -> str | None:
    return None if isinstance(value, bool) else "is not included in the list"


def _object(value: Json) -> str | None:
    return None if isinstance(value, dict) else "must be an object"


_CHECKS: dict[str, Callable[[Json], str | None]] = {
    "name": _text,
    "slug": _slug,
    "description": _description,
    "code": _text,
    "function_type": _one_of("cloudflare_worker", "supabase_function"),
    "invoke_response_mode": _one_of("passthrough", "wrapped"),
    "public_endpoint": _boolean,
    "runtime_config": _object,
}
