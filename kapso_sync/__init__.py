"""kapso-sync: keeps the functions on Kapso equal to what git says.

The rooms, from the top: `cli` (commands), `wiring` (builds every object), `telemetry` (logs), `reconcile` (observe, plan,
guard, execute), then side by side `sources`, `build`, `manifest`, `api` and `store`, and at the bottom `model` and `errors`.
Imports point downwards only. `emulator` is the other side of the wire and stands apart.
"""

__version__ = "0.1.0"
