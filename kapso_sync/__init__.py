"""kapso-sync: keep the functions on Kapso in sync with a git repository or a folder.

The packages, from the top: `cli` (commands), `wiring` (creates every object), `telemetry` (logs), `reconcile` (observe, plan,
guard, execute), then side by side `sources`, `build`, `manifest`, `api` and `store`, and at the bottom `model` and `errors`.
A package imports only from packages below it. `emulator` is a fake Kapso server for tests; it is separate from the rest.
"""

__version__ = "0.2.0"
