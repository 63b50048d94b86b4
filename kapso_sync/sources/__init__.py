"""Reads a folder or a git repository as one unchanging Snapshot, and the values of secrets.

`spec` parses a SOURCE argument and refuses unsafe ones, `identity` derives the owner, `folder` reads a folder that may change
meanwhile, `git` keeps a bare mirror and reads blobs from one commit's tree, `command` runs git in a hardened environment,
`signatures` decides whether a key in `trusted_keys` signed a commit or a tag, and `secrets` reads values. What only a git
repository needs is imported from its own module, so that a folder does not load it.
"""

from kapso_sync.sources.folder import FolderSource
from kapso_sync.sources.identity import WorkTree, find_work_tree, folder_identity, remote_identity
from kapso_sync.sources.secrets import SecretMissing, SecretReader
from kapso_sync.sources.spec import SourceKind, SourceSpec, parse_source

__all__ = [
    "FolderSource",
    "SecretMissing",
    "SecretReader",
    "SourceKind",
    "SourceSpec",
    "WorkTree",
    "find_work_tree",
    "folder_identity",
    "parse_source",
    "remote_identity",
]
