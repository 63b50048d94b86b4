"""Frozen values that the packages pass to each other: no I/O, no clock, no behaviour beyond what follows from the value itself.

`source` is what a source reads, `desired` is git's content, `functions` are Kapso's records, `state` is what the state folder
stores. `plan` says what to do and why, `report` what was done, `events` are emitted on the way, and `status` is shown.
`ports` are the protocols behind which I/O is done.
"""
