"""Kapso's Functions API over HTTP.

`client` has a method for each endpoint, `wire` turns payloads into model values and back, `transport` sends requests with
deadlines, retries and a size cap and maps every foreign exception to ours, `pacer` keeps to the rate limit, `base_url` checks
where all of it goes. Facts about the remote side come from Kapso's public documentation and from public code that uses it.
"""

from kapso_sync.api.base_url import parse_base_url
from kapso_sync.api.client import KapsoClient
from kapso_sync.api.rate_limiter import RateLimiter
from kapso_sync.api.transport import Transport, TransportSettings

__all__ = ["KapsoClient", "RateLimiter", "Transport", "TransportSettings", "parse_base_url"]
