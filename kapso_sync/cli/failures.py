"""Prints errors for the person at the terminal: what went wrong, where, and what to do about it."""

from __future__ import annotations

import sys

from kapso_sync.errors import ExitCode, KapsoSyncError, ManifestInvalid, Problem


def print_error(error: KapsoSyncError) -> ExitCode:
    """Say on stderr what went wrong and what to do about it; return the exit code."""
    if isinstance(error, ManifestInvalid):
        for problem in error.problems:
            print_problem(problem)
    else:
        sys.stderr.write(f"error: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
    return error.exit_code


def print_problem(problem: Problem) -> None:
    """Say on stderr where git is wrong, show the line, and say what to do."""
    sys.stderr.write(f"error: {problem}\n")
    for line in (problem.frame or "").splitlines():
        sys.stderr.write(f"  {line}\n")
    if problem.hint:
        sys.stderr.write(f"hint: {problem.hint}\n")
