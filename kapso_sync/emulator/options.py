"""Options of the emulator: how it is served, and how it behaves where Kapso's documentation leaves room; and its errors."""

from __future__ import annotations

import dataclasses
import re
import secrets
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from kapso_sync.emulator.values import is_int, is_number

DEFAULT_KEY = "kapso-emulator-key"
_TOKEN = re.compile(r"[!-~]{1,200}")


def random_token() -> str:
    """Return a new token that nobody can guess."""
    return secrets.token_urlsafe(24)


def _switch(*, default: object, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The world that the emulator is: one switch for each thing that Kapso's documentation leaves open or gets wrong.

    Each switch is independent of the others. Its ``meaning`` is in the field's metadata, from which the documentation's table
    is made. Defaults are what Kapso documents, or else what was seen in production.
    """

    slug_changes: bool = _switch(
        default=True, meaning="An update may change the slug; otherwise it keeps the old one and says nothing."
    )
    list_code: bool = _switch(default=True, meaning="The list of functions carries `code`.")
    double_wrap: bool = _switch(default=False, meaning='Answers come as `{"data": {"data": …}}`.')
    normalise_code: Literal["off", "rstrip", "newlines"] = _switch(
        default="off",
        meaning="Before storing code, the server strips white space at its end, or turns CRLF into LF.",
    )
    quota_answer: Literal["refuse", "error"] = _switch(
        default="refuse",
        meaning="A deployment beyond the quota or the script cap is refused with 422, or accepted and ends in `error`.",
    )
    paging: bool = _switch(default=True, meaning="Lists of functions and workflows honour `page`, `limit` and `per_page`.")
    page_size: int = _switch(default=100, meaning="Largest size of a page, and the default for functions and workflows.")
    list_meta: bool = _switch(default=True, meaning="A list of more than one page carries `meta`.")
    error_moves_updated_at: bool = _switch(default=True, meaning="A failed deployment moves `updated_at`.")
    edge_stale: float = _switch(
        default=0.0, meaning="Seconds after a deployment in which invocations are still answered by the code before it."
    )
    secrets_shape: Literal["list", "object"] = _switch(
        default="list", meaning='Secrets are listed as `{"data": […]}`, or as `{"data": {"secrets": […]}}`.'
    )
    secrets_on_deploy: Literal["keep", "drop"] = _switch(
        default="keep", meaning="A deployment keeps the function's own secrets, or drops them all."
    )
    post_of_existing: Literal["refuse", "overwrite"] = _switch(
        default="refuse", meaning="A `POST` of a secret that exists answers 422, its name being taken, or overwrites the value."
    )
    inherited_secrets: tuple[str, ...] = _switch(
        default=(), meaning="Names of secrets that every function inherits from the project."
    )
    slug_change_loses_secrets: bool = _switch(
        default=False, meaning="The first deployment after a change of slug loses the function's secrets."
    )
    secret_routes_fail: bool = _switch(default=False, meaning="The secret routes answer 502 with a web page of Cloudflare's.")
    lock_version: Literal["absent", "update", "deploy", "refused"] = _switch(
        default="update",
        meaning="`lock_version` is absent; moves on updates; on deployments too; or is shown, and refused in an update.",
    )
    keeps_public_endpoint: bool = _switch(
        default=True, meaning="`public_endpoint: true` is stored; otherwise it silently stays false."
    )
    function_type_in_update: Literal["ignore", "take", "refuse"] = _switch(
        default="ignore", meaning="An update ignores another `function_type`, takes it, or answers 422."
    )
    function_type_required: bool = _switch(default=True, meaning="A create without `function_type` answers 422.")
    invoke_mode_in_create: bool = _switch(
        default=False, meaning="A create takes `invoke_response_mode`; otherwise it is ignored."
    )
    takes_wrapped: bool = _switch(
        default=True, meaning="`invoke_response_mode: wrapped` is stored; otherwise it silently stays as it was."
    )
    unknown_fields: tuple[str, ...] = _switch(
        default=(), meaning="Fields that this API does not know: it ignores them, and records lack them."
    )
    module_code: Literal["runs", "error"] = _switch(
        default="runs", meaning="A deployment of code with `export` goes live, or ends in `error`."
    )
    script_code: Literal["runs", "error"] = _switch(
        default="runs", meaning="A deployment of code without `export` goes live, or ends in `error`."
    )
    handler_ctx: bool = _switch(default=False, meaning="Handlers get a third argument, `ctx`.")
    invoke_headers: bool = _switch(
        default=True, meaning="The headers of an invocation reach the function; otherwise it gets its `Content-Type` alone."
    )
    code_limit: int = _switch(default=2**20, meaning="Largest size of code, in bytes: 1000000 or 1048576.")
    workflows: Literal["workflows", "flows", "none"] = _switch(
        default="workflows", meaning="Workflows are at `/workflows`, at the older `/flows`, or nowhere."
    )
    references_on: Literal["platform", "both"] = _switch(
        default="platform", meaning="The routes of workflows, Flows and webhooks answer on the platform base alone, or on both."
    )
    whatsapp: bool = _switch(default=True, meaning="`/whatsapp/flows` and `/whatsapp/webhooks` exist.")
    flow_republish: bool = _switch(
        default=True, meaning="A WhatsApp Flow is published again with its function; else a warning."
    )
    invoke_failure: Literal["envelope", "passthrough"] = _switch(
        default="envelope",
        meaning="A function that throws, or answers 4xx or 5xx, gives Kapso's 500 envelope, or its own status and body.",
    )
    blocked_user_agents: str = _switch(
        default="", meaning="A regular expression: a `User-Agent` it is found in gets 403 as plain text."
    )
    errors_quote: bool = _switch(default=False, meaning="A 422 quotes the request's body: code, and values of secrets.")
    status_word: Literal["deployed", "active"] = _switch(
        default="deployed", meaning="The word for a function that is deployed."
    )
    script_cap: int = _switch(default=0, meaning="How many distinct Worker scripts a project may have; 0: any number.")
    old_scripts_count: bool = _switch(
        default=True, meaning="The script of a former slug goes on counting after the slug changed."
    )
    older_update: Literal["both", "PUT", "PATCH"] = _switch(
        default="both", meaning="The verbs that the older base updates with; another is 404."
    )

    def changed(self, changes: Mapping[str, object]) -> Self:
        """Return a copy with ``changes`` applied; raises BehaviourInvalid for an unknown name or a value of the wrong kind."""
        hints = typing.get_type_hints(type(self))
        for name, value in changes.items():
            if name not in hints:
                raise BehaviourInvalid(f"unknown switch {name!r}", hint="known are: " + ", ".join(hints))
            _check(name, hints[name], value)
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
        return dataclasses.replace(self, **plain)  # type: ignore[arg-type]  # each value was checked above

    def changed_by_words(self, words: Iterable[str]) -> Self:
        """Return a copy with each ``NAME=VALUE`` applied, as a command line spells it; raises BehaviourInvalid."""
        hints = typing.get_type_hints(type(self))
        changes: dict[str, object] = {}
        for word in words:
            name, equals, text = word.partition("=")
            if not equals or name not in hints:
                known = ", ".join(hints)
                raise BehaviourInvalid(f"{word!r} is not NAME=VALUE of a known switch", hint=f"known are: {known}")
            changes[name] = _from_text(hints[name], text)
        return self.changed(changes)


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def _from_text(hint: object, text: str) -> object:
    """Return the value of a word; a word that does not fit is returned unchanged, for the check to report."""
    if hint is bool:
        return _BOOLEANS.get(text.lower(), text)
    if hint in (int, float):
        try:
            return int(text) if hint is int else float(text)
        except ValueError:
            return text
    if hint == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _check(name: str, hint: object, value: object) -> None:
    if hint is bool:
        fits, expected = isinstance(value, bool), "true or false"
    elif hint is int:
        least = 0 if name == "script_cap" else 1
        fits, expected = is_int(value) and value >= least, f"a whole number above {least - 1}"
    elif hint is float:
        fits, expected = is_number(value) and value >= 0, "a number of seconds"
    elif hint is str:
        fits, expected = isinstance(value, str), "text"
    elif hint == tuple[str, ...]:
        fits = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        expected = "a list of names"
    else:
        choices = typing.get_args(hint)
        fits, expected = value in choices, "one of " + ", ".join(choices)
    if not fits:
        raise BehaviourInvalid(f"switch {name}: expected {expected}, got {value!r}")


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """How an emulator is served and what it starts with.

    ``port`` 0 picks a free one. ``data``: folder in which everything survives a restart; None keeps it in memory.
    ``faults``: a YAML file with fault rules. ``rate_limit`` requests are answered in each window of ``window`` seconds.
    ``deploy_delay``: seconds a deployment takes, or a range to draw from. ``quota``: how many functions may be deployed; None
    for no limit. ``workerd``: the binary that compiles and runs what is deployed; None: code is only parsed, and not run.
    ``network``: functions that run reach public addresses. ``names`` are further names under which it answers, as those of a
    proxy in front of it. ``control_token`` opens the control API. Raises EmulatorError for a
    rate limit that allows nothing, and for a token that cannot be sent in a header.
    """

    port: int = 0
    host: str = "127.0.0.1"
    api_key: str = DEFAULT_KEY
    data: Path | None = None
    faults: Path | None = None
    rate_limit: int = 1000
    window: float = 60.0
    deploy_delay: float | tuple[float, float] = 0.5
    quota: int | None = None
    workerd: Path | None = None
    network: bool = False
    names: tuple[str, ...] = ()
    behaviour: Behaviour = field(default_factory=Behaviour)
    control_token: str = field(default_factory=random_token, repr=False)

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.control_token):
            hint = "name 1 to 200 printable ASCII characters without spaces, or none for a random token"
            raise EmulatorError("the control token cannot be sent in a header", hint=hint)
        if self.rate_limit < 1 or self.window <= 0:
            raise EmulatorError("the rate limit needs at least one request in a window longer than 0 seconds")


class EmulatorError(Exception):
    """The emulator cannot do what was requested: a one-line ``message``, and a ``hint`` that says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BehaviourInvalid(EmulatorError):
    """An unknown behaviour, or an invalid value of one."""


class FaultsInvalid(EmulatorError):
    """An invalid fault rule; the message names the rule and, for a file, its line and column."""


class DataUnusable(EmulatorError):
    """The data folder cannot be read or written."""
