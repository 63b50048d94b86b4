"""Defines the models of the manifest; its JSON Schema is made of them.

`kapso_sync.manifest.checking` checks documents against them. A rule says what no type can: it returns what was expected, or
None.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

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

ALSO = "also"
"""Key of `Meta.extra`: a rule for values that are of the type."""

FIRST = "first"
"""Key of `Meta.extra`: a rule that says more than the type does, of values that are not of it as well."""

Slug = Annotated[str, Meta(pattern=SLUG_PATTERN, max_length=MAX_SLUG)]
EnvironmentName = Annotated[str, Meta(pattern=ENVIRONMENT_PATTERN, max_length=100)]
SecretName = Annotated[str, Meta(pattern=SECRET_PATTERN)]
FilePath = Annotated[str, Meta(min_length=1)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]


def _compiles(pattern: Json) -> str | None:
    try:
        compile_pattern(str(pattern))
    except UnusablePattern as error:
        return f"expected a regular expression: {error}"
    return None


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


def _may_be_sent(name: Json) -> str | None:
    folded = str(name).lower()
    if any(folded == known or (known.endswith("-") and folded.startswith(known)) for known in FORBIDDEN_HEADERS):
        return "expected another header: this one belongs to the connection, to Kapso or to a credential"
    return None


HeaderName = Annotated[str, Meta(pattern=HEADER_PATTERN, extra={ALSO: _may_be_sent})]
HeaderText = Annotated[str, Meta(pattern=HEADER_TEXT_PATTERN)]
HeaderValue = Annotated[
    str, Meta(pattern=HEADER_TEXT_PATTERN, description="The header's text: printable ASCII, up to 1,000 characters.")
]

Pattern = Annotated[str, Meta(min_length=1, max_length=1000, extra={ALSO: _compiles})]


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping, of which these keys are read."""

    @staticmethod
    def rule(given: Mapping[str, Json]) -> str | None:  # noqa: ARG004 - most models have none
        """Return what was expected of these keys together, each of which is right by itself."""
        return None

    def given(self) -> dict[str, Any]:
        """Return the values that are given, by the names of their fields."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


class Strict(Keys, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping with these keys and no others."""


SECRET_SOURCES = ("env", "file", "dotenv", "value", "keep")


class SecretModel(Strict, frozen=True, kw_only=True):
    """Where a secret's value comes from: exactly one of `env`, `file`, `dotenv`, `value` and `keep`."""

    env: Annotated[
        Annotated[str, Meta(pattern=VARIABLE_PATTERN)] | None,
        Meta(description="A variable of an `--env-file`, or one that KAPSO_SYNC_SECRET_ENV lists."),
    ] = None
    file: Annotated[
        FilePath | None, Meta(description="A file below KAPSO_SYNC_SECRETS_DIR; a last line end is not part of the value.")
    ] = None
    dotenv: Annotated[
        Annotated[str, Meta(pattern=DOTENV_PATTERN)] | None,
        Meta(description="FILE#NAME: one value of a .env file below KAPSO_SYNC_SECRETS_DIR."),
    ] = None
    value: Annotated[Json, Meta(description="Plain configuration, text or JSON; not for credentials.")] = None
    keep: Annotated[Literal[True] | None, Meta(description="Set on Kapso already: left alone, missed when it is gone.")] = None
    json_: Annotated[
        bool | None, Meta(description="True: the text of `env` or `file` is a JSON object or list, and is set as one.")
    ] = msgspec.field(default=None, name="json")

    @staticmethod
    def rule(given: Mapping[str, Json]) -> str | None:
        """Exactly one source, and `json` only beside one that is a text."""
        sources = given.keys() - {"json"}
        if len(sources) != 1:
            return "expected exactly one of env, file, dotenv, value and keep"
        return "`json` goes with `env` or `file`" if "json" in given and not sources & {"env", "file"} else None


class ExpectModel(Strict, frozen=True, kw_only=True):
    """What the answer must be: all that is given here."""

    status: Annotated[
        Annotated[int, Meta(ge=100, le=599)] | None, Meta(description="The HTTP status. Default: any success.")
    ] = None
    json_: Annotated[Json, Meta(description="A part of the answer's JSON; lists have to be as long as here.")] = msgspec.field(
        default=None, name="json"
    )
    text: Annotated[Annotated[str, Meta(min_length=1)] | None, Meta(description="Text somewhere in the answer.")] = None
    matches: Annotated[Pattern | None, Meta(description="A regular expression that matches somewhere in the answer.")] = None


class SignModel(Strict, frozen=True, kw_only=True):
    """A signature of the request: the hex HMAC-SHA256 of the raw body, in a header."""

    header: Annotated[HeaderName, Meta(description="The header that holds it, such as X-Signature.")]
    secret: Annotated[SecretName, Meta(description="The key: the name of one of the function's own secrets.")]
    prefix: Annotated[HeaderText | None, Meta(description="Text before the hex digits, such as `sha256=`.")] = None


class CheckModel(Strict, frozen=True, kw_only=True):
    """A request to send after each deployment, and the answer that is expected; one that fails takes the deployment back."""

    request: Annotated[Json, Meta(description="The JSON to send. Default: null.")] = None
    text: Annotated[str | None, Meta(description="The body to send, byte for byte, in place of `request`.")] = None
    method: Annotated[
        Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None,
        Meta(description="The HTTP method; others than POST are sent by the command `test` alone. Default: POST."),
    ] = None
    headers: Annotated[
        Annotated[dict[HeaderName, HeaderValue], Meta(max_length=MAX_HEADERS)] | None,
        Meta(description="Headers of the request, by their names."),
    ] = None
    sign: Annotated[SignModel | None, Meta(description="Signs the raw body with one of the function's own secrets.")] = None
    expect: Annotated[ExpectModel, Meta(description="What the answer must be; `{}`: any success.")]
    timeout: Annotated[
        Annotated[float, Meta(gt=0, le=120)] | None, Meta(description="Seconds to wait for the answer. Default: 10.")
    ] = None

    @staticmethod
    def rule(given: Mapping[str, Json]) -> str | None:
        """One body, none with GET, and each header once."""
        bodies = given.keys() & {"request", "text"}
        if len(bodies) > 1:
            return "expected `request` or `text`, and both are given"
        if given.get("method") == "GET" and bodies:
            return "expected no `request` and no `text` with `method: GET`, which has no body"
        headers, sign = given.get("headers"), given.get("sign")
        names = [*(headers if isinstance(headers, dict) else ()), *([sign["header"]] if isinstance(sign, dict) else ())]
        folded = [str(name).lower() for name in names]
        twice = next((name for name in folded if folded.count(name) > 1), None)
        return None if twice is None else f"the header `{twice}` is given twice"


MIN_WATCH, MAX_WATCH = 1.0, 86400.0
"""Shortest and longest time of a watch, in seconds."""


def _watch_time(value: Json) -> str | None:
    with contextlib.suppress(ValueError):
        if MIN_WATCH <= parse_duration(value) <= MAX_WATCH:
            return None
    return "expected a duration from 1s to 24h, such as 10m"


def _percentage(value: Json) -> str | None:
    try:
        parse_percentage(value)
    except ValueError as error:
        return str(error)
    return None


class WatchModel(Strict, frozen=True, kw_only=True):
    """What makes the daemon take a deployment back: the number of failed invocations, and their part of all."""

    for_: Annotated[
        Annotated[str, Meta(pattern=DURATION_PATTERN, extra={FIRST: _watch_time})] | None,
        Meta(description="How long it is watched after a deployment, from 1s to 24h. Default: 10m."),
    ] = msgspec.field(default=None, name="for")
    failures: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(description="At least this many invocations ended in an exception or a status of 500 and above. Default: 3."),
    ] = None
    ratio: Annotated[
        Annotated[str, Meta(pattern=PERCENTAGE_PATTERN, extra={FIRST: _percentage})] | None,
        Meta(description="They are at least this part of all, and a larger part than before the deployment. Default: 50%."),
    ] = None


class SharedModel(Strict, frozen=True, kw_only=True):
    """What an entry and the defaults have in common. A field that is left out is not managed."""

    description: Annotated[str | None, Meta(description="Text shown on Kapso.")] = None
    function_type: Annotated[
        Literal["cloudflare_worker", "supabase_function"] | None,
        Meta(description="Where it runs: Cloudflare Workers, or Supabase, which is Deno. A new one: cloudflare_worker."),
    ] = None
    invoke_response_mode: Annotated[
        Literal["passthrough", "wrapped"] | None,
        Meta(description="How Kapso hands an answer on: as it is, or wrapped in `data`."),
    ] = None
    public_endpoint: Annotated[bool | None, Meta(description="True: callers need no API key. On Cloudflare Workers only.")] = (
        None
    )
    runtime_config: Annotated[dict[str, Json] | None, Meta(description="Settings of the runtime, such as `{timeout: 30}`.")] = (
        None
    )
    contract: Annotated[
        Literal["auto", "script", "module"] | None,
        Meta(description="How the code goes up: as a script (top-level handler, no exports), a module, or as Kapso takes it."),
    ] = None
    minify: Annotated[bool | None, Meta(description="True: the code is built, and as small as it can be. Default: false.")] = (
        None
    )
    deploy: Annotated[
        bool | None, Meta(description="False: it stays a draft, and its secrets and checks wait. Default: true.")
    ] = None
    protected: Annotated[
        bool | None, Meta(description="True: kapso-sync never deletes it, whatever the settings, until this says false.")
    ] = None
    drift: Annotated[
        Literal["correct", "report"] | None,
        Meta(description="What becomes of changes made on Kapso: put right, or only reported. Default: KAPSO_SYNC_DRIFT."),
    ] = None
    secrets: Annotated[
        dict[SecretName, SecretModel] | None,
        Meta(description="Secrets by their name on Kapso, and where their values come from. Those that are not named stay."),
    ] = None
    checks: Annotated[
        Annotated[list[CheckModel], Meta(max_length=MAX_CHECKS)] | None,
        Meta(description="Requests to send after each deployment; one that fails takes the deployment back."),
    ] = None
    watch: Annotated[
        WatchModel | Literal[False] | None,
        Meta(
            description="The daemon reads invocations after a deployment, and takes back one that fails too often; false: not."
        ),
    ] = None


class RolloutModel(Strict, frozen=True, kw_only=True):
    """How carefully a pass goes on."""

    canary: Annotated[
        Slug | None,
        Meta(description="The slug of the function that goes first; unless it is as git says, nothing else is written."),
    ] = None
    max_failures: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="After this many failures, the rest of the pass is not started.")
    ] = None


class DefaultsModel(SharedModel, frozen=True, kw_only=True):
    """Keys for every function that does not set them itself, and what concerns all of them."""

    rollout: Annotated[RolloutModel | None, Meta(description="How carefully a pass goes on.")] = None
    secrets_policy: Annotated[
        Literal["leave", "exact"] | None,
        Meta(description="What becomes of secrets that the manifest does not name; `exact` removes them. Default: leave."),
    ] = None


class EntryModel(SharedModel, frozen=True, kw_only=True):
    """A function, by its slug: a-z, 0-9 and hyphens. A key that is left out is not managed: what is set on Kapso stays."""

    file: Annotated[
        FilePath | None, Meta(description="The code, relative to the manifest. Default: SLUG.ts or SLUG.js, whichever exists.")
    ] = None
    name: Annotated[Name | None, Meta(description="The name shown on Kapso. Default: the slug.")] = None
    moved_from: Annotated[
        Slug | list[Slug] | None,
        Meta(
            description="The slug that it had before, or a list, the latest first; id, URL and secrets stay. `[]`: it is new."
        ),
    ] = None
    whatsapp_flow: Annotated[
        Annotated[str, Meta(pattern=ID_PATTERN)] | None,
        Meta(description="The id of a WhatsApp Flow on Kapso, whose data endpoint the function becomes. Nothing detaches it."),
    ] = None


class EnvironmentModel(Strict, frozen=True, kw_only=True):
    """What is different in the environment of this name, which `--env` gives."""

    defaults: Annotated[DefaultsModel | None, Meta(description="Keys above those of the manifest's defaults.")] = None
    functions: Annotated[
        dict[Slug, EntryModel | Literal[False] | None] | None,
        Meta(description="Keys above those of the manifest's functions, functions that are here alone, or false: not here."),
    ] = None


class ManifestModel(Strict, frozen=True, kw_only=True):
    """Which functions of a Kapso project git manages, and which of their keys."""

    version: Annotated[Annotated[int, Meta(ge=1, le=1)], Meta(description="The manifest's version, which is 1.")]
    defaults: Annotated[DefaultsModel | None, Meta(description="Keys for every function that does not set them itself.")] = None
    functions: Annotated[
        dict[Slug, EntryModel | None] | None, Meta(description="The functions that git manages, by their slugs.")
    ] = None
    environments: Annotated[
        Annotated[dict[EnvironmentName, EnvironmentModel], Meta(max_length=MAX_ENVIRONMENTS)] | None,
        Meta(description="What is different in each environment, by its name."),
    ] = None


class FolderModel(Keys, frozen=True, kw_only=True):
    """A ``function.yaml`` of the Kapso CLI; keys that are not ours are Kapso's business."""

    slug: Slug | None = None
    entrypoint: FilePath | None = None
    name: Name | None = None
    description: str | None = None
    function_type: Literal["cloudflare_worker", "supabase_function"] | None = None
    invoke_response_mode: Literal["passthrough", "wrapped"] | None = None
    public_endpoint: bool | None = None
    runtime_config: dict[str, Json] | None = None


def json_schema() -> dict[str, Json]:
    """Return the JSON Schema of a manifest, with the draft it is written for, and where it is published.

    Editors show the descriptions beside the keys: each key has one, and so has what keys by name hold, such as a function.
    """
    models: dict[str, Any]
    _, models = msgspec.json.schema_components([ManifestModel], ref_template="#/$defs/{name}")
    schema = models.pop("ManifestModel")
    described = models["EntryModel"]["description"]
    for model in (schema, models["EnvironmentModel"]):
        # An entry without keys is null, which no model describes.
        model["properties"]["functions"]["anyOf"][0]["additionalProperties"]["description"] = described
    beginnings = [f"{name}.*" if name.endswith("-") else name for name in FORBIDDEN_HEADERS]
    header = {"not": {"pattern": _any_case(f"^(?:{'|'.join(beginnings)})$")}}
    models["CheckModel"]["properties"]["headers"]["anyOf"][0]["propertyNames"] |= header
    models["SignModel"]["properties"]["header"] |= header
    models["SecretModel"] |= {
        "oneOf": [{"required": [name]} for name in SECRET_SOURCES],
        "dependentSchemas": {"json": {"anyOf": [{"required": ["env"]}, {"required": ["file"]}]}},
    }
    models["CheckModel"] |= {
        "not": {"required": ["request", "text"]},
        "if": {"properties": {"method": {"const": "GET"}}, "required": ["method"]},
        "then": {"not": {"anyOf": [{"required": ["request"]}, {"required": ["text"]}]}},
    }
    for model in (schema, *models.values()):
        _forbid_nulls(model)
        _drop_titles(model)
        _name_types(model)
    head: dict[str, Json] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return {**head, "title": "kapso-sync manifest", **schema, "$defs": models}


def _name_types(schema: Any) -> None:
    """Say of what type the alternatives of a choice are: editors offer them by it."""
    if isinstance(schema, dict):
        if "enum" in schema:
            schema["type"] = "boolean" if isinstance(schema["enum"][0], bool) else "string"
        for below in schema.values():
            _name_types(below)
    elif isinstance(schema, list):
        for below in schema:
            _name_types(below)


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
