"""HTTP client for Kapso's Functions API.

* `client` has one method for each endpoint.
* `wire` parses JSON answers into model values and encodes request bodies.
* `transport` sends requests with deadlines, retries and a size limit, and maps httpx exceptions to `kapso_sync.errors`.
* `rate_limiter` keeps the requests below Kapso's rate limit.
* `base_url` checks and completes the base URL of the API.
* `references` finds which functions a workflow, a WhatsApp Flow or a webhook uses.

The package uses `model` for its values, `errors`, `credentials` and `retry`. Facts about the API come from Kapso's public
documentation and from public code that uses it.
"""

from kapso_sync.api.base_url import parse_base_url
from kapso_sync.api.client import KapsoClient
from kapso_sync.api.rate_limiter import RateLimiter
from kapso_sync.api.transport import Transport, TransportSettings

__all__ = ["KapsoClient", "RateLimiter", "Transport", "TransportSettings", "parse_base_url"]
