"""Giving functions the values of their secrets; one whose value is not to be had fails before anything of it is written."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from kapso_sync.errors import Problem
from kapso_sync.model.desired import DesiredFunction, SecretSource, SecretValue, UnusableFunction
from kapso_sync.sources import SecretMissing

Digest = Callable[[str, str], str]
"""From a secret's name and value to a digest that only the holder of the key can make."""


class Reader(Protocol):
    """Where values come from."""

    def read(self, source: SecretSource) -> str:
        """Return the value; raises `SecretMissing`."""
        ...


def keyed_digest(key: bytes) -> Digest:
    """Return the digest of this key; it begins with the key's name, so that digests of another key are known as such."""
    name_of_key = hashlib.sha256(b"name of the key\0" + key).hexdigest()[:8]

    def digest(name: str, value: str) -> str:
        text = f"{name}={value}".encode("utf-8", "surrogatepass")  # no name has a `=`
        return f"{name_of_key}:{hmac.new(key, text, hashlib.sha256).hexdigest()}"

    return digest


@dataclass(frozen=True, slots=True)
class SecretValues:
    """Reads values and makes their digests."""

    reader: Reader
    digest: Digest = field(repr=False)

    def give(self, functions: Iterable[DesiredFunction]) -> tuple[tuple[DesiredFunction, ...], tuple[UnusableFunction, ...]]:
        """Return the functions with their values, and those that lack one."""
        good, bad = [], []
        for function in functions:
            given = self._given(function)
            if isinstance(given, DesiredFunction):
                good.append(given)
            else:
                bad.append(given)
        return tuple(good), tuple(bad)

    def _given(self, function: DesiredFunction) -> DesiredFunction | UnusableFunction:
        entry = function.entry
        if not (entry.secrets and entry.deploy):
            return function
        values, problems = {}, []
        for name, source in entry.secrets.items():
            try:
                value = self.reader.read(source)
            except SecretMissing as missing:
                text = f"functions.{entry.slug}.secrets.{name} {missing.message}"
                problems.append(Problem("missing-secret", text, entry.location, missing.hint))
            else:
                values[name] = SecretValue(value, self.digest(name, value))
        if problems:
            return UnusableFunction(entry.slug, entry.file, tuple(problems), moved_from=entry.moved_from)
        return replace(function, secrets=values)
