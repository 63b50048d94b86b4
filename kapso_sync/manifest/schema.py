"""Defines the models of the manifest; its JSON Schema is made of them."""

from __future__ import annotations

import contextlib
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from kapso_sync.manifest.patterns import UnusablePattern, compile_pattern
from kapso_sync.model.desired import MAX_CHECKS
from kapso_sync.model.json_values import Json
from kapso_sync.model.names import ID_PATTERN, MAX_SLUG, SLUG_PATTERN
from kapso_sync.units import DURATION_PATTERN, PERCENTAGE_PATTERN, parse_duration, parse_percentage

SCHEMA_ID = "urn:kapso-sync:manifest:1"
"""The identity of the JSON Schema of manifests with ``version: 1``, for good. It is a name and no address: whoever owned that
could tell every editor what a manifest is.
"""

SECRET_PATTERN = "^[A-Z][A-Z0-9_]*$"  # noqa: S105 - a pattern for names
DOTENV_PATTERN = "^[^#]+#[A-Za-z_][A-Za-z0-9_]*$"
VARIABLE_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*$"

MAX_ENVIRONMENTS = 50
"""Most environments of a manifest: whichever holds, the whole manifest is checked for each of them."""

ENVIRONMENT_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]*$"

Slug = Annotated[str, StringConstraints(pattern=SLUG_PATTERN, max_length=MAX_SLUG)]
EnvironmentName = Annotated[str, StringConstraints(pattern=ENVIRONMENT_PATTERN, max_length=100)]
SecretName = Annotated[str, StringConstraints(pattern=SECRET_PATTERN)]
FilePath = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
FormerSlugs = Annotated[
    list[Slug],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=Slug | list[Slug]),
]
"""One slug, or a list of them."""


def _compiles(pattern: str) -> str:
    try:
        compile_pattern(pattern)
    except UnusablePattern as error:
        raise PydanticCustomError("pattern", "expected a regular expression: {reason}", {"reason": str(error)}) from None
    return pattern


MAX_HEADERS = 20
"""Most headers of a check."""

HEADER_PATTERN = "^[A-Za-z0-9-]{1,100}$"
HEADER_TEXT_PATTERN = "^[!-~](?:[ -~]{0,998}[!-~])?$"
"""What a header may hold here: printable ASCII, without spaces at its ends."""

FORBIDDEN_HEADERS = (
    *(
        "host",
        "content-",
        "transfer-encoding",
        "connection",
        "cookie",
        "authorization",
        "x-api-key",
        "forwarded",
        "x-forwarded-",
    ),
    *("accept-encoding", "expect", "keep-alive", "proxy-", "te", "trailer", "upgrade"),
)
"""Headers of the connection, of kapso-sync itself and of credentials; a name that ends with a hyphen is a beginning."""


def _may_be_sent(name: str) -> str:
    folded = name.lower()
    if any(folded == known or (known.endswith("-") and folded.startswith(known)) for known in FORBIDDEN_HEADERS):
        text = "expected another header: this one belongs to the connection, to Kapso or to a credential"
        raise PydanticCustomError("forbidden_header", text)
    return name


HeaderName = Annotated[str, StringConstraints(pattern=HEADER_PATTERN), AfterValidator(_may_be_sent)]
HeaderText = Annotated[str, StringConstraints(pattern=HEADER_TEXT_PATTERN)]
HeaderValue = Annotated[HeaderText, Field(description="The header's text: printable ASCII, up to 1,000 characters.")]

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_compiles)]


class Strict(BaseModel):
    """A mapping with these keys and no others, and values of exactly these types."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _one_source(schema: dict[str, Any]) -> None:
    """Add the validator's rule to the JSON Schema: one source, and `json` only beside `env` or `file`."""
    schema["oneOf"] = [{"required": [name]} for name in SECRET_SOURCES]
    schema["dependentSchemas"] = {"json": {"anyOf": [{"required": ["env"]}, {"required": ["file"]}]}}


SECRET_SOURCES = ("env", "file", "dotenv", "value", "keep")


class SecretModel(Strict):
    """Where a secret's value comes from: exactly one of `env`, `file`, `dotenv`, `value` and `keep`."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra=_one_source)

    env: Annotated[str, StringConstraints(pattern=VARIABLE_PATTERN)] | None = Field(
        default=None, description="A variable of an `--env-file`, or one that KAPSO_SYNC_SECRET_ENV lists."
    )
    file: FilePath | None = Field(
        default=None, description="A file below KAPSO_SYNC_SECRETS_DIR; a last line end is not part of the value."
    )
    dotenv: Annotated[str, StringConstraints(pattern=DOTENV_PATTERN)] | None = Field(
        default=None, description="FILE#NAME: one value of a .env file below KAPSO_SYNC_SECRETS_DIR."
    )
    value: JsonValue = Field(default=None, description="Plain configuration, text or JSON; not for credentials.")
    keep: Literal[True] | None = Field(default=None, description="Set on Kapso already: left alone, missed when it is gone.")
    json_: bool | None = Field(
        default=None, alias="json", description="True: the text of `env` or `file` is a JSON object or list, and is set as one."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        sources = self.model_fields_set - {"json_"}
        if len(sources) != 1:
            raise PydanticCustomError("one_source", "expected exactly one of env, file, dotenv, value and keep")
        if self.json_ is not None and not sources & {"env", "file"}:
            raise PydanticCustomError("json_source", "`json` goes with `env` or `file`")
        return self


class ExpectModel(Strict):
    """What the answer must be: all that is given here."""

    status: Annotated[int, Field(ge=100, le=599)] | None = Field(
        default=None, description="The HTTP status. Default: any success."
    )
    json_: JsonValue = Field(
        default=None, alias="json", description="A part of the answer's JSON; lists have to be as long as here."
    )
    text: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None, description="Text somewhere in the answer."
    )
    matches: Pattern | None = Field(default=None, description="A regular expression that matches somewhere in the answer.")


class SignModel(Strict):
    """A signature of the request: the hex HMAC-SHA256 of the raw body, in a header."""

    header: HeaderName = Field(description="The header that holds it, such as X-Signature.")
    secret: SecretName = Field(description="The key: the name of one of the function's own secrets.")
    prefix: HeaderText | None = Field(default=None, description="Text before the hex digits, such as `sha256=`.")


def _one_body(schema: dict[str, Any]) -> None:
    """Add the validator's rules to the JSON Schema: one body, and none with GET."""
    schema["not"] = {"required": ["request", "text"]}
    schema["if"] = {"properties": {"method": {"const": "GET"}}, "required": ["method"]}
    schema["then"] = {"not": {"anyOf": [{"required": ["request"]}, {"required": ["text"]}]}}


class CheckModel(Strict):
    """A request to send after each deployment, and the answer that is expected; one that fails takes the deployment back."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra=_one_body)

    request: JsonValue = Field(default=None, description="The JSON to send. Default: null.")
    text: str | None = Field(default=None, description="The body to send, byte for byte, in place of `request`.")
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = Field(
        default=None, description="The HTTP method; others than POST are sent by the command `test` alone. Default: POST."
    )
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=MAX_HEADERS)] | None = Field(
        default=None, description="Headers of the request, by their names."
    )
    sign: SignModel | None = Field(default=None, description="Signs the raw body with one of the function's own secrets.")
    expect: ExpectModel = Field(description="What the answer must be; `{}`: any success.")
    timeout: Annotated[float, Field(gt=0, le=120)] | None = Field(
        default=None, description="Seconds to wait for the answer. Default: 10."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = self.model_fields_set & {"request", "text"}
        if len(given) > 1:
            raise PydanticCustomError("one_body", "expected `request` or `text`, and both are given")
        if self.method == "GET" and given:
            raise PydanticCustomError(
                "body_of_get", "expected no `request` and no `text` with `method: GET`, which has no body"
            )
        names = [name.lower() for name in (*(self.headers or ()), *((self.sign.header,) if self.sign else ()))]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise PydanticCustomError("header_twice", "the header `{name}` is given twice", {"name": twice})
        return self


MIN_WATCH, MAX_WATCH = 1.0, 86400.0
"""Shortest and longest time of a watch, in seconds."""


def _watch_time(value: object) -> object:
    with contextlib.suppress(ValueError):
        if MIN_WATCH <= parse_duration(value) <= MAX_WATCH:
            return value
    raise PydanticCustomError("duration", "expected a duration from 1s to 24h, such as 10m")


def _percentage(value: object) -> object:
    try:
        parse_percentage(value)
    except ValueError as error:
        raise PydanticCustomError("percentage", "{reason}", {"reason": str(error)}) from None
    return value


class WatchModel(Strict):
    """What makes the daemon take a deployment back: the number of failed invocations, and their part of all."""

    for_: Annotated[str, StringConstraints(pattern=DURATION_PATTERN), BeforeValidator(_watch_time)] | None = Field(
        default=None, alias="for", description="How long it is watched after a deployment, from 1s to 24h. Default: 10m."
    )
    failures: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="At least this many invocations ended in an exception or a status of 500 and above. Default: 3.",
    )
    ratio: Annotated[str, StringConstraints(pattern=PERCENTAGE_PATTERN), BeforeValidator(_percentage)] | None = Field(
        default=None,
        description="They are at least this part of all, and a larger part than before the deployment. Default: 50%.",
    )


class NotWatched(WatchModel):
    """What ``watch: false`` is read as: it overrides a watch of the defaults."""


class SharedModel(Strict):
    """What an entry and the defaults have in common. A field that is left out is not managed."""

    description: str | None = Field(default=None, description="Text shown on Kapso.")
    function_type: Literal["cloudflare_worker", "supabase_function"] | None = Field(
        default=None,
        description="Where it runs: Cloudflare Workers, or Supabase, which is Deno. A new one: cloudflare_worker.",
    )
    invoke_response_mode: Literal["passthrough", "wrapped"] | None = Field(
        default=None, description="How Kapso hands an answer on: as it is, or wrapped in `data`."
    )
    public_endpoint: bool | None = Field(default=None, description="True: callers need no API key. On Cloudflare Workers only.")
    runtime_config: dict[str, JsonValue] | None = Field(
        default=None, description="Settings of the runtime, such as `{timeout: 30}`."
    )
    contract: Literal["auto", "script", "module"] | None = Field(
        default=None,
        description="How the code goes up: as a script (top-level handler, no exports), a module, or as Kapso takes it.",
    )
    minify: bool | None = Field(default=None, description="True: the code is built, and as small as it can be. Default: false.")
    deploy: bool | None = Field(
        default=None, description="False: it stays a draft, and its secrets and checks wait. Default: true."
    )
    protected: bool | None = Field(
        default=None, description="True: kapso-sync never deletes it, whatever the settings, until this says false."
    )
    drift: Literal["correct", "report"] | None = Field(
        default=None,
        description="What becomes of changes made on Kapso: put right, or only reported. Default: KAPSO_SYNC_DRIFT.",
    )
    secrets: dict[SecretName, SecretModel] | None = Field(
        default=None,
        description="Secrets by their name on Kapso, and where their values come from. Those that are not named stay.",
    )
    checks: Annotated[list[CheckModel], Field(max_length=MAX_CHECKS)] | None = Field(
        default=None, description="Requests to send after each deployment; one that fails takes the deployment back."
    )
    watch: Annotated[
        WatchModel | None,
        BeforeValidator(
            lambda value: NotWatched() if value is False else value, json_schema_input_type=WatchModel | Literal[False] | None
        ),
    ] = Field(
        default=None,
        description="The daemon reads its invocations after a deployment, and takes back one that fails too often; false: not.",
    )


class RolloutModel(Strict):
    """How carefully a pass goes on."""

    canary: Slug | None = Field(
        default=None, description="The slug of the function that goes first; unless it is as git says, nothing else is written."
    )
    max_failures: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="After this many failures, the rest of the pass is not started."
    )


class DefaultsModel(SharedModel):
    """Keys for every function that does not set them itself, and what concerns all of them."""

    rollout: RolloutModel | None = Field(default=None, description="How carefully a pass goes on.")
    secrets_policy: Literal["leave", "exact"] | None = Field(
        default=None,
        description="What becomes of secrets that the manifest does not name; `exact` removes them. Default: leave.",
    )


class EntryModel(SharedModel):
    """A function, by its slug: a-z, 0-9 and hyphens. A key that is left out is not managed: what is set on Kapso stays."""

    file: FilePath | None = Field(
        default=None, description="The code, relative to the manifest. Default: SLUG.ts or SLUG.js, whichever exists."
    )
    name: Name | None = Field(default=None, description="The name shown on Kapso. Default: the slug.")
    moved_from: FormerSlugs | None = Field(
        default=None,
        description="The slug that it had before, or a list, the latest first; id, URL and secrets stay. `[]`: it is new.",
    )
    whatsapp_flow: Annotated[str, StringConstraints(pattern=ID_PATTERN)] | None = Field(
        default=None,
        description="The id of a WhatsApp Flow on Kapso, whose data endpoint the function becomes. Nothing detaches it.",
    )


OptionalEntry = Annotated[
    EntryModel | None,
    BeforeValidator(lambda value: None if value is False else value, json_schema_input_type=EntryModel | Literal[False] | None),
]
"""An entry, or false (or nothing): no such function here."""


class EnvironmentModel(Strict):
    """What is different in the environment of this name, which `--env` gives."""

    defaults: DefaultsModel | None = Field(default=None, description="Keys above those of the manifest's defaults.")
    functions: dict[Slug, OptionalEntry] | None = Field(
        default=None,
        description="Keys above those of the manifest's functions, functions that are here alone, or false: not here.",
    )


class ManifestModel(Strict):
    """Which functions of a Kapso project git manages, and which of their keys."""

    version: Annotated[int, Field(ge=1, le=1)] = Field(description="The manifest's version, which is 1.")
    defaults: DefaultsModel | None = Field(default=None, description="Keys for every function that does not set them itself.")
    functions: dict[Slug, EntryModel | None] | None = Field(
        default=None, description="The functions that git manages, by their slugs."
    )
    environments: dict[EnvironmentName, EnvironmentModel] | None = Field(
        default=None,
        max_length=MAX_ENVIRONMENTS,
        description="What is different in each environment, by its name.",
    )


class FolderModel(BaseModel):
    """A ``function.yaml`` of the Kapso CLI; keys that are not ours are Kapso's business."""

    model_config = ConfigDict(strict=True, extra="ignore")

    slug: Slug | None = None
    entrypoint: FilePath | None = None
    name: Name | None = None
    description: str | None = None
    function_type: Literal["cloudflare_worker", "supabase_function"] | None = None
    invoke_response_mode: Literal["passthrough", "wrapped"] | None = None
    public_endpoint: bool | None = None
    runtime_config: dict[str, JsonValue] | None = None


def json_schema() -> dict[str, Json]:
    """Return the JSON Schema of a manifest, with the draft it is written for, and where it is published.

    Editors show the descriptions beside the keys: each key has one, and so has what keys by name hold, such as a function.
    """
    schema: dict[str, Any] = ManifestModel.model_json_schema(by_alias=True)
    for model in (schema, schema["$defs"]["EnvironmentModel"]):
        functions = model["properties"]["functions"]["anyOf"][0]
        functions["propertyNames"] = {"pattern": SLUG_PATTERN, "maxLength": MAX_SLUG}
        # An entry without keys is null, which no model describes.
        functions["patternProperties"][SLUG_PATTERN]["description"] = schema["$defs"]["EntryModel"]["description"]
    names = {"pattern": ENVIRONMENT_PATTERN, "maxLength": 100}
    schema["properties"]["environments"]["anyOf"][0]["propertyNames"] = names
    for model in ("DefaultsModel", "EntryModel"):
        schema["$defs"][model]["properties"]["secrets"]["anyOf"][0]["propertyNames"] = {"pattern": SECRET_PATTERN}
    beginnings = [f"{name}.*" if name.endswith("-") else name for name in FORBIDDEN_HEADERS]
    header = {"pattern": HEADER_PATTERN, "not": {"pattern": _any_case(f"^(?:{'|'.join(beginnings)})$")}}
    schema["$defs"]["CheckModel"]["properties"]["headers"]["anyOf"][0]["propertyNames"] = header
    schema["$defs"]["SignModel"]["properties"]["header"] |= header
    for model in (schema, *schema["$defs"].values()):
        _forbid_nulls(model)
        _drop_titles(model)
    head: dict[str, Json] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return {**head, "title": "kapso-sync manifest", **schema}


def _any_case(pattern: str) -> str:
    """Return a pattern for names of any case: those of JSON Schema have no flag for it."""
    return re.sub(r"[a-z]", lambda letter: f"[{letter[0].upper()}{letter[0]}]", pattern)


def _forbid_nulls(model: dict[str, Any]) -> None:
    """Forbid null in the JSON Schema: a key without a value is a mistake, except for a function that is all defaults."""
    for name, field in model.get("properties", {}).items():
        options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
        if "anyOf" in field:
            rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
            model["properties"][name] = {**(options[0] if len(options) == 1 else {"anyOf": options}), **rest}


def _drop_titles(model: dict[str, Any]) -> None:
    """Drop the titles, which are names of Python classes and the keys once more, and defaults that say that there is none."""
    for field in (model, *model.get("properties", {}).values()):
        field.pop("title", None)
        field.pop("default", None)
