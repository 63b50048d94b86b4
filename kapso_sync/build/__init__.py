"""From an entry's file to the code that is uploaded: the contract check, and the build of whatever cannot go up as it is.

`contract` reads the shape of a file with tree-sitter, without Node, `graph` follows its imports, `rules` judge both. `target`
says what an API base wants, `builder` decides and remembers, `bundler` runs esbuild over what needs it, all at once.
"""

from kapso_sync.build.builder import Builder, BuildResult, Target
from kapso_sync.build.bundler import Bundler
from kapso_sync.build.esbuild import Esbuild
from kapso_sync.build.packages import Packages
from kapso_sync.build.types import check_types

__all__ = [
    "BuildResult",
    "Builder",
    "Bundler",
    "Esbuild",
    "Packages",
    "Target",
    "check_types",
]
