"""Check the code of each function, and bundle it with esbuild if it cannot be uploaded as it is.

* `encoding` checks that a file is UTF-8 text, and names what git's filters leave in its place.
* `syntax` parses code with tree-sitter (without Node) and walks the tree; `scopes` resolves names, and finds sloppy code.
* `contract` finds the shape of a file: its handler, its imports and its first syntax error.
* `parser` asks esbuild where tree-sitter is not sure, and `sourcemap` leads places in printed code back.
* `graph` follows the imports of an entry to all files and packages that it needs.
* `tsconfig` reads the options and aliases that hold for a file, and `subpaths` the `#name` imports of package.json.
* `nearest` finds both for a file: in its folder, or in one above it.
* `rules` returns the errors and warnings about shapes and imports, and `deno` those of a `supabase_function`.
* `diagnostics` has the error type, parses esbuild's messages, and shows the lines of code around an error.
* `builder` decides for each entry to upload the file, to build it, or to refuse it, and caches what it finds.
* `kept_result` keeps the result of the last build, for a folder in which nothing has changed.
* `bundler` finds esbuild and builds many entries at once, `esbuild_run` limits each run, and `wrapping` writes the code around
  a bundle.
* `packages` finds npm packages in ``node_modules``, `folder_packages` copies those of a folder for a build, and `npm` fetches
  those of a git source; `space` bounds both.
* `types` runs the repository's own TypeScript compiler.

The package uses `model` for its values, `errors`, `credentials`, `process` to run programs, and `tools` to find esbuild.
"""

from kapso_sync.build.builder import Builder, BuildResult, Target
from kapso_sync.build.bundler import Bundler, Esbuild
from kapso_sync.build.folder_packages import FolderPackages, PackageCopies
from kapso_sync.build.packages import PackageSource
from kapso_sync.build.types import check_types

__all__ = [
    "BuildResult",
    "Builder",
    "Bundler",
    "Esbuild",
    "FolderPackages",
    "PackageCopies",
    "PackageSource",
    "Target",
    "check_types",
]
