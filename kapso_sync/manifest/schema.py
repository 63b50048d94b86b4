"""Defines the models of the manifest; its JSON Schema is made of them."""

from __future__ import annotations

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
from kapso_sync.model.functions import MAX_SLUG, SLUG_PATTERN, Json

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


Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_compiles)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


def _one_source(schema: dict[str, Any]) -> None:
    """Add the validator's rule to the JSON Schema: one source, and `json` only beside `env` or `file`."""
    schema["oneOf"] = [{"required": [name]} for name in SECRET_SOURCES]
    schema["dependentSchemas"] = {"json": {"anyOf": [{"required": ["env"]}, {"required": ["file"]}]}}


SECRET_SOURCES = ("env", "file", "dotenv", "value", "keep")


class SecretModel(_Strict):
    """Where a secret's value comes from: exactly one of env, file, dotenv, value and keep."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra=_one_source)

    env: Annotated[str, StringConstraints(pattern=VARIABLE_PATTERN)] | None = Field(
        default=None, description="An environment variable of the daemon."
    )
    file: FilePath | None = Field(default=None, description="A file below the secrets folder.")
    dotenv: Annotated[str, StringConstraints(pattern=DOTENV_PATTERN)] | None = Field(
        default=None, description="FILE#NAME: a value of a .env file below the secrets folder."
    )
    value: JsonValue = Field(default=None, description="Plain configuration, text or JSON; not for credentials.")
    keep: Literal[True] | None = Field(default=None, description="Set on Kapso already: left alone, missed when it is gone.")
    json_: bool | None = Field(default=None, alias="json", description="The text of `env` or `file` is a JSON object or list.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        sources = self.model_fields_set - {"json_"}
        if len(sources) != 1:
            raise PydanticCustomError("one_source", "expected exactly one of env, file, dotenv, value and keep")
        if self.json_ is not None and not sources & {"env", "file"}:
            raise PydanticCustomError("json_source", "`json` goes with `env` or `file`")
        return self


class ExpectModel(_Strict):
    """What an answer must be."""

    status: Annotated[int, Field(ge=100, le=599)] | None = Field(default=None, description="The HTTP status.")
    json_: JsonValue = Field(default=None, alias="json", description="A subset of the answer's JSON.")
    text: Annotated[str, StringConstraints(min_length=1)] | None = Field(default=None, description="Text in the answer.")
    matches: Pattern | None = Field(default=None, description="A regular expression that is found in the answer.")


class CheckModel(_Strict):
    """A request to send after each deployment."""

    request: JsonValue = Field(default=None, description="The request's JSON.")
    expect: ExpectModel = Field(description="What the answer must be; without `status`, any success.")
    timeout: Annotated[float, Field(gt=0, le=120)] | None = Field(default=None, description="Seconds to wait. Default: 10.")


class SharedModel(_Strict):
    """What an entry and the defaults have in common. A field that is left out is not managed."""

    description: str | None = Field(default=None, description="Text shown on Kapso.")
    function_type: Literal["cloudflare_worker", "supabase_function"] | None = Field(default=None, description="Where it runs.")
    invoke_response_mode: Literal["passthrough", "wrapped"] | None = Field(default=None, description="How Kapso answers.")
    public_endpoint: bool | None = Field(default=None, description="Callers need no API key.")
    runtime_config: dict[str, JsonValue] | None = Field(default=None, description="Free-form settings of the runtime.")
    contract: Literal["auto", "script", "module"] | None = Field(default=None, description="How the code presents its handler.")
    minify: bool | None = Field(default=None, description="True: the code is built, and as small as it can be.")
    deploy: bool | None = Field(default=None, description="False keeps it a draft.")
    protected: bool | None = Field(default=None, description="True: never deleted by kapso-sync.")
    drift: Literal["correct", "report"] | None = Field(default=None, description="What to do about changes made on Kapso.")
    secrets: dict[SecretName, SecretModel] | None = Field(default=None, description="Secrets by name.")
    checks: Annotated[list[CheckModel], Field(max_length=MAX_CHECKS)] | None = Field(
        default=None, description="Requests to send after each deployment."
    )


class RolloutModel(_Strict):
    """How carefully a pass proceeds."""

    canary: Slug | None = Field(
        default=None, description="This function goes first; unless it is well, nothing else is written."
    )
    max_failures: Annotated[int, Field(ge=1)] | None = Field(default=None, description="So many failures end the pass.")


class DefaultsModel(SharedModel):
    """Fields for every function, and what concerns all of them."""

    rollout: RolloutModel | None = Field(default=None, description="How carefully a pass proceeds.")
    secrets_policy: Literal["leave", "exact"] | None = Field(
        default=None, description="What becomes of secrets that the manifest does not name."
    )


class EntryModel(SharedModel):
    """One function."""

    file: FilePath | None = Field(
        default=None, description="The code, relative to the manifest. Default: <slug>.ts or <slug>.js."
    )
    name: Name | None = Field(default=None, description="The name shown on Kapso. Default: the slug.")
    moved_from: FormerSlugs | None = Field(
        default=None,
        description="The slug it had before, or a list, the latest first; id, URL and secrets stay. []: it is new.",
    )


OptionalEntry = Annotated[
    EntryModel | None,
    BeforeValidator(lambda value: None if value is False else value, json_schema_input_type=EntryModel | Literal[False] | None),
]
"""An entry, or false (or nothing): no such function here."""


class EnvironmentModel(_Strict):
    """What is different in one environment."""

    defaults: DefaultsModel | None = Field(default=None, description="Fields above the manifest's defaults.")
    functions: dict[Slug, OptionalEntry] | None = Field(
        default=None,
        description="Keys above those of the manifest's functions, functions that are here alone, or false: not here.",
    )


class ManifestModel(_Strict):
    """The whole manifest."""

    version: Annotated[int, Field(ge=1, le=1)] = Field(description="The manifest's version.")
    defaults: DefaultsModel | None = Field(default=None, description="Fields for every function that does not set them itself.")
    functions: dict[Slug, EntryModel | None] | None = Field(default=None, description="Functions by slug.")
    environments: dict[EnvironmentName, EnvironmentModel] | None = Field(
        default=None,
        max_length=MAX_ENVIRONMENTS,
        description="What is different in each environment, by the name that --env gives.",
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
    """Return the JSON Schema of a manifest, with the draft it is written for."""
    schema: dict[str, Any] = ManifestModel.model_json_schema(by_alias=True)
    for model in (schema, schema["$defs"]["EnvironmentModel"]):
        model["properties"]["functions"]["anyOf"][0]["propertyNames"] = {"pattern": SLUG_PATTERN, "maxLength": MAX_SLUG}
    names = {"pattern": ENVIRONMENT_PATTERN, "maxLength": 100}
    schema["properties"]["environments"]["anyOf"][0]["propertyNames"] = names
    for model in ("DefaultsModel", "EntryModel"):
        schema["$defs"][model]["properties"]["secrets"]["anyOf"][0]["propertyNames"] = {"pattern": SECRET_PATTERN}
    _forbid_nulls(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "kapso-sync manifest"}


def _forbid_nulls(schema: dict[str, Any]) -> None:
    """Forbid null in the JSON Schema: a key without a value is a mistake, except for a function that is all defaults."""
    for model in (schema, *schema["$defs"].values()):
        for name, field in model.get("properties", {}).items():
            options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
            if "anyOf" in field and name not in ("request", "json", "value"):
                rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
                model["properties"][name] = {**(options[0] if len(options) == 1 else {"anyOf": options}), **rest}
