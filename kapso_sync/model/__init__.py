"""Frozen values that the rooms hand to each other: no I/O, no clock, no behaviour beyond what follows from the value itself.

`source` is what a source reads, `desired` what git says, `functions` what Kapso says, `state` what we remember, `plan` what is
to be done and why, `report` what came of it, `events` what the core tells its listeners on the way.
"""
