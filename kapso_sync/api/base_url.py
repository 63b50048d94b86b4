"""Validate and normalize the base URL of the API, so that the API key is never sent unencrypted by accident."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from kapso_sync.errors import ConfigError
from kapso_sync.urls import is_loopback

PLATFORM_PATH = "/platform/v1"
FUNCTIONS_PATH = "/api/v1"


def parse_base_url(text: str, *, allow_http: bool = False) -> str:
    """Return the base URL without a slash at its end; a host alone gets ``/platform/v1``, as in Kapso's own tools.

    Raises `ConfigError` for a URL that is not https, and for a URL with a user, a query or a fragment. Plain http is
    accepted for loopback addresses, and for every host with ``allow_http``.
    """
    try:
        parts = urlsplit(text.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        # A slash in a password makes it the port, which the error quotes.
        raise _wrong(text, "it is malformed" if "@" in text else str(error)) from error
    if parts.scheme not in ("http", "https") or not host:
        raise _wrong(text, "it is not an http(s) URL")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("KAPSO_API_BASE_URL carries a user name or password", hint="the API key goes into KAPSO_API_KEY")
    if parts.query or parts.fragment:
        raise _wrong(text, "it has a query or a fragment")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
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
    # A URL that cannot be parsed may carry a password all the same.
    shown = re.sub(r"(?<=//).*@", "…@", text, flags=re.DOTALL)
    return ConfigError(f"KAPSO_API_BASE_URL {shown!r}: {reason}", hint="an example: https://app.kapso.ai/api/v1")
