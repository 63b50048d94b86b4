"""What all tests share."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import settings

from kapso_sync.network import AUTHORITY_VARIABLES, PROXY_VARIABLES
from tests.build.workbench import needs_esbuild
from tests.program import git, kapso_sync, started
from tests.sources.repositories import Repository

pytest_plugins = ["tests.fixtures_emulator"]

# An example's time depends on what else the machine does: a deadline would only make tests flaky.
settings.register_profile("kapso-sync", deadline=None)
settings.load_profile("kapso-sync")

# Tests reach nothing but loopback. With this machine's authorities each command would read all public ones as well.
for name in (*PROXY_VARIABLES, *AUTHORITY_VARIABLES):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)

STARTS_PROCESSES = (subprocess, git, started, kapso_sync, Repository)
"""A module of tests that imports one of these runs git, a whole command or another program."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make thorough`."""
    parser.addoption("--thorough", action="store_true", help="also run what takes many minutes")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the workers of ``-n auto``: two more than processors, since tests wait for servers, deployments and locks."""
    return len(os.sched_getaffinity(0)) + 2 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts processes as `e2e`, so that nobody has to think of it, and leave out what is too long for each run."""
    if not config.getoption("--thorough"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("thorough")])
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    for item in items:
        module = getattr(item, "module", None)
        uses = any(value is tool for value in vars(module).values() for tool in STARTS_PROCESSES) if module else False
        if uses or needs_esbuild.mark in item.iter_markers("skipif"):
            item.add_marker(pytest.mark.e2e)
