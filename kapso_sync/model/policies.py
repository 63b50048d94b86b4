"""Defines the policies that a plan follows, as the settings name them, and what a person allows for one pass."""

from __future__ import annotations

import enum

from kapso_sync.dataclass import dataclass


class Contract(enum.StrEnum):
    """How a file presents its handler to Kapso: a top-level ``handler``, or ``export default``."""

    AUTO = "auto"
    SCRIPT = "script"
    MODULE = "module"


class DriftPolicy(enum.StrEnum):
    """What to do about a change made on Kapso: write git's version back, or only report it."""

    CORRECT = "correct"
    REPORT = "report"


class AdoptPolicy(enum.StrEnum):
    """What to do with a function on Kapso that is unowned and has a slug from git."""

    IDENTICAL = "identical"
    ALWAYS = "always"
    NEVER = "never"


class UnknownSecrets(enum.StrEnum):
    """The policy for deployments of a function with secrets on Kapso that have no value in git.

    ``AUTO`` allows or blocks by whether this API base was observed to keep secrets across deployments, and allows until then.
    """

    AUTO = "auto"
    ALLOW = "allow"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class MaxDelete:
    """A number of functions, or a percentage of the owned ones."""

    amount: int
    percent: bool = False

    def limit(self, owned: int) -> int:
        """Return the number allowed; a percentage rounds down, but at least one is allowed."""
        if not self.percent:
            return self.amount
        return max(1, owned * self.amount // 100)

    def __str__(self) -> str:
        """The spelling that settings use."""
        return f"{self.amount}%" if self.percent else str(self.amount)


@dataclass(frozen=True, slots=True)
class PassOverrides:
    """What a person allows for one pass only: slugs, or owners in ``take_from``."""

    retry: frozenset[str] = frozenset()
    overwrite: frozenset[str] = frozenset()
    take_from: frozenset[str] = frozenset()
    delete: frozenset[str] = frozenset()
    allow_recreate: bool = False
    reset_secrets: bool = False

    @property
    def slugs(self) -> frozenset[str]:
        """The functions that are named."""
        return self.retry | self.overwrite | self.delete

    @property
    def options(self) -> str:
        """The same as options of a command line, each after a space."""
        named = {"--retry": self.retry, "--overwrite": self.overwrite, "--take-from": self.take_from, "--delete": self.delete}
        flags = {"--allow-recreate": self.allow_recreate, "--reset-secrets": self.reset_secrets}
        words = [f" {flag} {value}" for flag, values in named.items() for value in sorted(values)]
        return "".join([*words, *(f" {flag}" for flag, given in flags.items() if given)])

    def __or__(self, other: PassOverrides) -> PassOverrides:
        """Return what either of them allows."""
        return PassOverrides(
            self.retry | other.retry,
            self.overwrite | other.overwrite,
            self.take_from | other.take_from,
            self.delete | other.delete,
            self.allow_recreate or other.allow_recreate,
            self.reset_secrets or other.reset_secrets,
        )
