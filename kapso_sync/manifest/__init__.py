"""What a functions folder declares: a manifest, folders of the Kapso CLI, or both.

`document` reads YAML and JSON into plain values with their positions, and refuses what different readers would read
differently; `schema` says what a manifest looks like, and makes the JSON Schema; `checking` turns its complaints into problems
with places; `entries` and `folders` make entries of both layouts; `reader` puts them together.
"""

from kapso_sync.manifest.reader import Parsed, read_manifest, unlisted_files
from kapso_sync.manifest.schema import json_schema

__all__ = ["Parsed", "json_schema", "read_manifest", "unlisted_files"]
