"""Decides with which versions of git a repository is read.

Only what makes our use unsafe is refused; `doctor` warns of the rest. Distributions keep an old number and add the fixes, as
Ubuntu 22.04 does to 2.34.1: a number says that fixes may be missing, not that they are.

* Below 2.31, git ignores ``GIT_CONFIG_COUNT``, and so every setting of `sources.command`, such as the transports and hooks that
  are not allowed. It is always refused.
* 2.39.4 and 2.45.1 (2.40.2 to 2.44.1 in the lines between) fixed CVE-2024-32002 (submodules), -32020 and -32021 (hard links of
  a local clone), -32004 and -32465 (a local repository that runs programs while it is read). We fetch into a bare mirror of our
  own: no clone, submodule, work tree or hook. What remains are the last two: git's ``upload-pack`` runs here, with the
  configuration of a repository on this machine. So the number counts where such a repository belongs to another user, and
  ssh or https are the way around.
* Later fixes concern submodules, bundle URIs, credential helpers and terminals, and we use none of them.

Source: git's release notes, https://github.com/git/git/tree/master/Documentation/RelNotes (2.31.0, 2.39.4, 2.45.1, 2.50.1).
"""

from __future__ import annotations

import re

Version = tuple[int, int, int]

OLDEST: Version = (2, 31, 0)
"""The oldest git that heeds our settings."""

FIXED: tuple[Version, ...] = ((2, 39, 4), (2, 40, 2), (2, 41, 1), (2, 42, 2), (2, 43, 4), (2, 44, 1), (2, 45, 1))
"""The first version of each release line that reads hostile local repositories safely; newer lines all do."""


def parse_git_version(text: str) -> Version | None:
    """Return the version in what ``git --version`` prints, such as ``git version 2.39.5 (Apple Git-154)``, or None."""
    match = re.search(r"\b(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def heeds_settings(version: Version) -> bool:
    """Return whether git takes settings from its environment."""
    return version >= OLDEST


def is_fixed(version: Version) -> bool:
    """Return whether this number has the fixes of 2024."""
    line = next((fixed for fixed in FIXED if fixed[:2] == version[:2]), FIXED[-1])
    return version >= line
