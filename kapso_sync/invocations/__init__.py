"""Reads the invocations of one function: `follow` asks Kapso for them, `places` leads their stack traces back to the source.

`wiring.invocations` builds it, and `cli.logs` prints it.
"""
