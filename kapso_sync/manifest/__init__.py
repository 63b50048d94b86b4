"""Reads the manifest of a functions folder, folders of the Kapso CLI, or both.

`document` reads YAML and JSON into plain values with their positions, and refuses what different readers would read
differently. `schema` defines the manifest, and makes the JSON Schema. `checking` turns schema errors into problems with
locations. `layout` finds the folders of the Kapso CLI, `entries` makes entries, and `reader` puts everything together.
`text` edits YAML files for `reconcile.pull`.
"""

from kapso_sync.manifest.reader import read_manifest, unlisted_files
from kapso_sync.manifest.schema import json_schema

__all__ = ["json_schema", "read_manifest", "unlisted_files"]
