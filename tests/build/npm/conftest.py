"""A registry for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.build.npm.registry import LoopbackRegistry, serving


@pytest.fixture
def registry() -> Iterator[LoopbackRegistry]:
    """A registry on loopback, with nothing in it."""
    with serving() as running:
        yield running
