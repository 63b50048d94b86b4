"""Builds every object from Settings, and does nothing else: the one place that knows all the other packages.

`folder` decides where the source and its state are, `source` what is read, `transport` builds the connection to Kapso,
`building` the reader and builder of functions, `engine` what a pass needs, and `daemon` and `notifications` what runs around
the passes. Names are imported from these modules, and `git_source`, `npm` and `executor` only where a source is a repository,
its packages come from a registry, or a command writes: so a command loads what it uses.
"""
