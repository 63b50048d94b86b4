"""Reads a folder or a git repository as one unchanging Snapshot, and the values of secrets.

`spec` parses a SOURCE argument and refuses unsafe ones, `identity` derives the owner, `folder` reads a folder that may change
meanwhile, `git` keeps a bare mirror and reads blobs from one commit's tree, `command` runs git in a hardened environment,
`signatures` decides whether a key in `trusted_keys` signed a commit or a tag, and `secrets` reads values. `resolved` holds what
was found of a source. Names are imported from these modules, so that a folder does not load what only a repository needs.
"""
