"""Reconciler: fetch the source, observe Kapso, plan, guard, and apply the plan.

`cycle` runs one whole pass. `desired` turns a snapshot into the functions that git wants. `observe` reads the functions and the
names of their secrets from Kapso.

The package `plan` computes steps and does no I/O. `apply` carries steps out and is the only package that writes to Kapso.
`pull` computes the files that bring functions from Kapso into a functions folder.

The reconciler uses `kapso_sync.manifest` (reads the manifest), `kapso_sync.build` (builds code), `kapso_sync.model` (the
values) and `kapso_sync.model.ports` (protocols of the source, the API and the state folder). `kapso_sync.wiring` puts the parts
together.
"""
