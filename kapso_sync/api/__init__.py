"""HTTP client for Kapso's Functions API.

* `client` has one method for each endpoint.
* `wire` parses records into model values and encodes request bodies.
* `pages` reads all pages of a list.
* `envelope` reads what all answers have in common: JSON, lists, paging and errors; `json_answers` bounds what that costs.
* `transport` sends requests with deadlines, retries and a size limit, and maps httpx exceptions to `kapso_sync.errors`.
* `rate_limiter` keeps the requests below Kapso's rate limit.
* `base_url` checks and completes the base URL of the API.
* `references` finds which functions a workflow, a WhatsApp Flow or a webhook uses.

The package uses `model` for its values, `errors`, `credentials` and `retry`. Facts about the API come from Kapso's public
documentation and from public code that uses it.
"""
