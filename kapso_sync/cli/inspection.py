"""``status`` and ``invoke``: looking at what is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kapso_sync.cli.flags import Flags
from kapso_sync.cli.runner import run_to_end
from kapso_sync.errors import ExitCode, UsageError
from kapso_sync.model.functions import Json
from kapso_sync.model.state import IntentKind
from kapso_sync.settings import load_settings
from kapso_sync.store.database import read_last_pass, read_memory
from kapso_sync.wiring import Logging, find_state_folder, open_api

FAILED = 400
"""From this status on an invocation counts as failed."""


def status(overrides: Mapping[str, object], env_file: Path | None, *, json_output: bool) -> int:
    """Print the last pass and what is still in flight; takes no lock and asks nobody."""
    settings = load_settings(overrides, env_file=env_file)
    folder = find_state_folder(settings)
    memory, last = read_memory(folder), read_last_pass(folder)
    deploying: list[Json] = [intent.slug for intent in memory.intents if intent.kind is IntentKind.DEPLOY]
    unfinished: list[Json] = [
        f"{intent.kind} {intent.slug}" for intent in memory.intents if intent.kind is not IntentKind.DEPLOY
    ]
    document: dict[str, Json] = {
        "state_folder": str(folder),
        "last_pass": None if last is None else dict(last),
        "owned": len(memory.owned),
        "deploying": deploying,
        "unfinished": unfinished,
    }
    if json_output:
        print(json.dumps(document, indent=2))
    else:
        _print_status(document, last)
    return int(ExitCode.OK)


def _print_status(document: Mapping[str, Any], last: Mapping[str, Any] | None) -> None:
    print(f"State folder  {document['state_folder']}")
    if last is None:
        print("No pass was recorded here yet: `kapso-sync sync` makes the first.")
    else:
        revision = last["revision"]
        subject = f" “{revision['subject']}” by {revision['author']}" if revision["subject"] else ""
        print(f"Source        {last['source']}")
        print(f"Owner         {last['owner']}")
        print(f"Revision      {revision['id'][:19]}{subject}")
        print(f"Last pass     {last['finished_at']}, exit code {last['exit_code']}")
        if last["halted"]:
            print(f"Stopped       {last['halted']}")
        for function in last["functions"]:
            print(f"  {function['condition']:<8} {function['slug']}  {function['message'] or function['result']}")
    for name in ("deploying", "unfinished"):
        if document[name]:
            print(f"{name.capitalize():<13} {', '.join(document[name])}")


def invoke(slug: str, data: str, patience: float, flags: Flags, *, json_output: bool) -> int:
    """Call a function by its slug and print its answer; 1 when it answers 400 or above."""
    body = _request_body(data)
    settings = load_settings(flags.overrides(), env_file=flags.env_file)

    async def work() -> int:
        async with open_api(settings, Logging(settings, sys.stderr, level="warning")) as api:
            found = {function.slug: function for function in await api.list_functions()}.get(slug)
            if found is None:
                raise UsageError(f"no function `{slug}` on Kapso", hint="`kapso-sync status` lists what was synced")
            answer = await api.invoke_function(found.id, body, patience=patience)
        if json_output:
            document = {
                "slug": slug,
                "id": found.id,
                "status": answer.status,
                "content_type": answer.content_type,
                "body": answer.text,
            }
            print(json.dumps(document, indent=2))
        else:
            sys.stderr.write(f"{answer.status} {answer.content_type}\n")
            print(answer.text)
        return int(ExitCode.OK if answer.status < FAILED else ExitCode.FUNCTION_FAILED)

    return run_to_end(work)


def _request_body(data: str) -> Json:
    try:
        text = Path(data[1:]).read_text(encoding="utf-8") if data.startswith("@") else data
        body: Json = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"--data is not JSON: {error}", hint="""an example: --data '{"ping": true}', or --data @file.json"""
        ) from error
    return body
