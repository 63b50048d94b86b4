"""Pulling: compute the files that bring functions from Kapso into a functions folder; no I/O.

- `planner`: decides which functions are pulled, and verifies the result.
- `folder_editor`: chooses the code file and the manifest keys for each function.

The package uses `kapso_sync.manifest` (layout of the folder, edits of YAML), `kapso_sync.reconcile.plan` (comparison,
ownership) and `kapso_sync.model.pull` (its results).
"""
