"""From an entry's file to the code that is uploaded: the contract check, and the decision whether the file can go up as it is.

`contract` reads the shape of a file with tree-sitter, without Node; `target` says what an API base wants; `builder` decides.
"""

from kapso_sync.build.builder import Builder, imported_files
from kapso_sync.build.target import Target, target_for

__all__ = ["Builder", "Target", "imported_files", "target_for"]
