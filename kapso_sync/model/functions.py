"""Defines a function as Kapso's API records it, and the content by which two versions are compared."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime

from kapso_sync.dataclass import dataclass
from kapso_sync.model.json_values import Json, canonical_json, same_json
from kapso_sync.model.ownership import Mark, last_mark, marks_in, without_marks

Content = Mapping[str, Json]
"""The content that is compared: a function's managed fields by name, and ``code`` as a hash (see `code_hash`)."""

CODE = "code"
SLUG = "slug"
DESCRIPTION = "description"

FIELDS = ("name", DESCRIPTION, "function_type", "invoke_response_mode", "public_endpoint", "runtime_config")
"""The fields of a function that a manifest may manage, in the order they are shown."""

RUNTIME_CONTENT = (CODE, "function_type", "invoke_response_mode", "public_endpoint", "runtime_config")
"""The content that needs a deployment to take effect; ``name``, ``description`` and ``slug`` do not."""


EXACT_FIELDS = ("function_type", "invoke_response_mode", "public_endpoint", "runtime_config")
"""Booleans, words and objects: if an answer shows another value than was sent, Kapso refused it.

Code and texts may be normalised by the server.
"""


class FunctionType(enum.StrEnum):
    """Where Kapso runs a function."""

    CLOUDFLARE_WORKER = "cloudflare_worker"
    SUPABASE_FUNCTION = "supabase_function"


class InvokeMode(enum.StrEnum):
    """How Kapso answers an invocation: the function's own answer, or wrapped in ``{"data": …}`` (legacy)."""

    PASSTHROUGH = "passthrough"
    WRAPPED = "wrapped"


class DeploymentStatus(enum.StrEnum):
    """The deployment status of a function's record; ``UNKNOWN`` stands for words we have not seen yet."""

    DRAFT = "draft"
    DEPLOYED = "deployed"
    ERROR = "error"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RemoteFunction:
    """One record of Kapso's list, read leniently.

    ``code`` is None if the list did not have it. ``fields`` holds those of `FIELDS` that the record had; the description in it
    is the raw one, ownership mark included. Times are the server's own, aware, or None. ``text`` is the description without
    any mark; ``marks`` are the marks in it, of any owner, valid or not, and ``mark`` is the last one. ``code_hash`` is that of
    the code. ``lock_version`` is sent back with an update to prove that the newest version was seen; older bases have none.
    ``worker_address`` is the URL, without scheme, of its Cloudflare Worker, if an answer has it.
    """

    id: str
    slug: str
    status: DeploymentStatus
    code: str | None = field(repr=False)
    fields: Mapping[str, Json] = field(default_factory=dict)
    last_deployed_at: datetime | None = None
    updated_at: datetime | None = None
    created_at: datetime | None = None
    project_id: str | None = None
    lock_version: int | None = None
    worker_address: str | None = None
    text: str = field(init=False, repr=False, compare=False)
    marks: tuple[Mark, ...] = field(init=False, repr=False, compare=False)
    mark: Mark | None = field(init=False, repr=False, compare=False)
    code_hash: str | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse the description and hash the code once: many rules ask for them."""
        description = self.description or ""
        marks = marks_in(description)
        object.__setattr__(self, "text", without_marks(description) if marks else description)
        object.__setattr__(self, "marks", marks)
        object.__setattr__(self, "mark", last_mark(marks))
        object.__setattr__(self, "code_hash", None if self.code is None else code_hash(self.code))

    @property
    def name(self) -> str:
        """The display name, or the slug if the record has none."""
        name = self.fields.get("name")
        return name if isinstance(name, str) else self.slug

    @property
    def description(self) -> str | None:
        """The raw description, ownership mark included."""
        text = self.fields.get(DESCRIPTION)
        return text if isinstance(text, str) else None


@dataclass(frozen=True, slots=True)
class GarbledRecord:
    """A record of Kapso's list that cannot be believed: it is left alone, and so is the function that it may be.

    ``reason`` says what is wrong. ``id`` and ``slug`` are the record's own texts, and empty where it has none; ``mark`` is the
    ownership mark in its description.
    """

    id: str
    slug: str
    reason: str
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class FunctionList:
    """Kapso's whole list: the functions, each with an id and a slug of its own, and the records that cannot be believed.

    ``digest`` is that of the answers as they came: equal ones hold the same list. Empty: not known.
    """

    functions: tuple[RemoteFunction, ...]
    garbled: tuple[GarbledRecord, ...] = ()
    digest: str = ""


@dataclass(frozen=True, slots=True)
class CallBudget:
    """What reading costs.

    ``list_calls`` is how many calls the whole list took last. ``per_second`` is our share of the rate limit in calls per
    second, or None while no limit is known.
    """

    list_calls: int = 1
    per_second: float | None = None


class SecretType(enum.StrEnum):
    """The type of a secret. ``INHERITED`` ones belong to the project, not to the function."""

    TEXT = "text"
    JSON = "json"
    INHERITED = "inherited"


@dataclass(frozen=True, slots=True)
class RemoteSecret:
    """A secret's name as Kapso lists it; values are never shown. An unknown type counts as ``TEXT``."""

    name: str
    type: SecretType = SecretType.TEXT


@dataclass(frozen=True, slots=True)
class InvokeRequest:
    """The request of an invocation. Kapso documents a ``POST`` of JSON; ``headers`` are those for the function."""

    body: bytes = field(repr=False)
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @staticmethod
    def of_json(value: Json) -> InvokeRequest:
        """Return the request with this JSON; null is no body at all. ASCII only, so that every text can be encoded."""
        return InvokeRequest(b"" if value is None else json.dumps(value).encode("ascii"))


@dataclass(frozen=True, slots=True)
class Invocation:
    """A function's own answer to a call."""

    status: int
    content_type: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """One line that a function wrote to its console. ``logged_at`` is the server's time, or None."""

    level: str
    message: str = field(repr=False)
    logged_at: datetime | None = None
    stack: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class InvocationRecord:
    """One recent invocation as Kapso lists it. ``duration_ms`` and ``status_code`` are None if the record has none.

    Texts may hold personal data and secrets: they are redacted before they are shown.
    """

    id: str
    status_code: int | None = None
    duration_ms: float | None = None
    error: str | None = field(default=None, repr=False)
    created_at: datetime | None = None
    console: tuple[ConsoleLine, ...] = field(default=(), repr=False)
    request_body: Json = field(default=None, repr=False)
    response_body: Json = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a function: its code, and its fields without our mark."""

    code: str = field(repr=False)
    fields: Mapping[str, Json]


def code_hash(code: str) -> str:
    """Return ``sha256:…`` of the code's UTF-8 bytes; lone surrogates, which JSON can carry, have their own bytes."""
    return "sha256:" + hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def normal_code(code: str) -> str:
    """Return the code with LF line endings and without trailing newlines: code that differs in nothing else is the same."""
    return code.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


def content_hash(content: Content) -> str:
    """Return ``sha256:…`` over a content, the same for equal contents in any key order."""
    return code_hash(canonical_json(dict(content)))


def agree(left: Content, right: Content, keys: tuple[str, ...]) -> bool:
    """Return whether two contents agree on those of ``keys`` that both have."""
    return all(same_json(left[key], right[key]) for key in keys if key in left and key in right)
