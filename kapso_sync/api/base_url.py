"""Validate and normalize the base URL of the API, so that the API key is never sent unencrypted by accident."""

from __future__ import annotations

from urllib.parse import urlsplit

from kapso_sync.errors import ConfigError
from kapso_sync.urls import CarriesPassword, is_loopback, split_http_url, without_query

PLATFORM_PATH = "/platform/v1"
FUNCTIONS_PATH = "/api/v1"


def parse_base_url(text: str, *, allow_http: bool = False) -> str:
    """Return the base URL without a slash at its end; a host alone gets ``/platform/v1``, as in Kapso's own tools.

    Raises `ConfigError` for a URL that is not https, and for a URL with a user, a query or a fragment. Plain http is
    accepted for loopback addresses, and for every host with ``allow_http``.
    """
    try:
        parts = split_http_url(text)
    except CarriesPassword:
        raise ConfigError(
            "KAPSO_API_BASE_URL carries a user name or password", hint="the API key goes into KAPSO_API_KEY"
        ) from None
    except ValueError as error:
        raise _wrong(text, str(error)) from error
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"KAPSO_API_BASE_URL {text} would send the API key unencrypted",
            hint="use https://, or set KAPSO_SYNC_ALLOW_HTTP=1 if you must",
        )
    path = parts.path.rstrip("/") or PLATFORM_PATH
    return f"{parts.scheme}://{parts.netloc}{path}"


def other_base(base_url: str) -> str:
    """Return the base URL to try when this one does not know the functions route."""
    if base_url.endswith(FUNCTIONS_PATH):
        return "https://api.kapso.ai/platform/v1"
    return "https://app.kapso.ai/api/v1"


def sibling_base(base_url: str) -> str:
    """Return the other API of the same operator: Kapso's other host, or the other path of any other host."""
    parts = urlsplit(base_url)
    if parts.hostname in ("app.kapso.ai", "api.kapso.ai"):
        return other_base(base_url)
    path = PLATFORM_PATH if base_url.endswith(FUNCTIONS_PATH) else FUNCTIONS_PATH
    return f"{parts.scheme}://{parts.netloc}{path}"


def platform_base(base_url: str) -> str:
    """Return the Platform API's base URL on the same host, or on Kapso's API host; it lists the users of functions."""
    parts = urlsplit(base_url)
    netloc = "api.kapso.ai" if parts.hostname == "app.kapso.ai" else parts.netloc
    return f"{parts.scheme}://{netloc}{PLATFORM_PATH}"


def _wrong(text: str, reason: str) -> ConfigError:
    return ConfigError(f"KAPSO_API_BASE_URL {without_query(text)!r}: {reason}", hint="an example: https://app.kapso.ai/api/v1")
