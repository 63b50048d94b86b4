"""``invoke``: call a deployed function by its slug."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kapso_sync.cli.console import Console
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.runner import run_to_end
from kapso_sync.closest import closest
from kapso_sync.errors import ExitCode, UsageError
from kapso_sync.model.functions import InvokeRequest, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.visible import visible_lines
from kapso_sync.wiring.engine import open_api

FAILED_STATUS = 400
"""The lowest HTTP status of a failed invocation."""


def invoke(slug: str, data: str, timeout: float, context: CommandContext, *, json_output: bool) -> int:
    """Call a function by its slug and print its answer, without credentials; 1 when it answers 400 or above."""
    body = request_body(data)
    settings = context.load_settings()
    bus = context.event_bus(settings, level="warning")

    async def work() -> int:
        async with open_api(settings, bus) as api:
            found = find_function(slug, await api.list_functions())
            answer = await api.invoke_function(found.id, InvokeRequest.of_json(body), timeout=timeout)
        text = bus.redactor.text(answer.text)
        if json_output:
            document = {
                "slug": slug,
                "id": found.id,
                "status": answer.status,
                "content_type": answer.content_type,
                "body": text,
            }
            context.stdout().document(document)
        else:
            context.stderr().line(f"{answer.status} {answer.content_type}")
            print_body(text, context.stdout())
        return int(ExitCode.OK if answer.status < FAILED_STATUS else ExitCode.FUNCTION_FAILED)

    return run_to_end(work)


def find_function(slug: str, functions: Sequence[RemoteFunction]) -> RemoteFunction:
    """Return the function of a slug; raises `UsageError`, with the slug that is nearly the same if there is one."""
    known = {function.slug: function for function in functions}
    if slug not in known:
        close = closest(slug, known)
        hint = f"did you mean `{close}`?" if close else "`kapso-sync status` lists what was synced"
        raise UsageError(f"no function `{slug}` on Kapso", hint=hint)
    return known[slug]


def print_body(text: str, console: Console) -> None:
    """Print an answer without control characters: JSON into a pipe stays the JSON that it is, with the same values."""
    if not console.terminal and _is_json(text):
        console.json_text(text)
        return
    for line in visible_lines(text):
        console.verbatim(line)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def request_body(data: str) -> Json:
    """Return the JSON that ``--data`` gives, itself or as ``@file``; raises `UsageError`."""
    try:
        text = Path(data[1:]).read_text(encoding="utf-8") if data.startswith("@") else data
        body: Json = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"--data is not JSON: {error}", hint="""an example: --data '{"ping": true}', or --data @file.json"""
        ) from error
    return body
