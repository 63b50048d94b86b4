"""Reads the invocations of one function: `follow` and `recent` ask Kapso, `places` leads stack traces back to the source.

`wiring.invocations` builds it. `cli.logs` prints what is followed, and the page shows what is recent.
"""
