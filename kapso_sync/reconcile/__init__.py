"""The reconciler: it makes the functions on Kapso equal to what git says.

`cycle` is one pass from the first call to the report. `desired` builds what git wants, and `observe` asks Kapso what it has.
The package `plan` decides without any I/O, `apply` is the only writer, and `pull` writes what Kapso has into the folder. The
reconciler does its I/O through the protocols of `kapso_sync.model.ports`; `kapso_sync.session` runs it.
"""
