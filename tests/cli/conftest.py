"""An emulator for the commands of a test, and a folder of functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import answering, write_functions
from tests.served import Served, served


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def kapso(shared: Served) -> Served:
    """An emulator as new; its server is the module's."""
    shared.control("POST", "/reset")
    return shared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sound functions."""
    folder = tmp_path / "functions"
    write_functions(folder, {"greet": answering("hello"), "part": answering("bye")})
    return folder


@pytest.fixture
def environment(kapso: Served, tmp_path: Path) -> dict[str, str]:
    return kapso.environment(tmp_path / "state")
