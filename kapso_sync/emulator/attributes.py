"""The attributes a caller may set on a function: which there are, what is wrong with them, and the slug a name gives."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

from kapso_sync.emulator.values import Json, JsonObject

Errors = dict[str, list[str]]
"""Messages by attribute, the way Rails words them."""

SLUG = re.compile(r"[a-z0-9-]+\Z")
SECRET_NAME = re.compile(r"[A-Z0-9_]+\Z")

TAKEN = "has already been taken"
BLANK = "can't be blank"
INVALID = "is invalid"
CLOUDFLARE_ONLY = "is only available for Cloudflare functions"


def read_attributes(body: Mapping[str, Json]) -> tuple[JsonObject, Errors]:
    """Return the known attributes in ``body`` and what is wrong with them; unknown ones are ignored, as Rails does."""
    known = {name: value for name, value in body.items() if name in _CHECKS}
    errors: Errors = {}
    for name, value in known.items():
        message = _CHECKS[name](value)
        if message is not None:
            errors[name] = [message]
    return known, errors


def slug_from(name: str) -> str:
    """Return the slug that ``name`` gives when a create sends none, as Rails' ``parameterize`` would; may be empty."""
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
