"""Every way in which a workflow, a Flow or a webhook refers to a function is found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kapso_sync.api.references import Reference, users_in
from kapso_sync.model.json_values import Json
from kapso_sync.model.users import FunctionUser, UserKind, is_named_in
from kapso_sync.reconcile.plan.function_usage import functions_that_name, upcoming_users
from tests.builders import remote

USED = replace(
    remote("greet"),
    id="0b9f4c52-6f0e-4a35-9d53-1a0f1c1f2a11",
    project_id="p1",
    worker_address="prj-1__greet.kapso.workers.dev",
)
OTHER = replace(remote("other"), id="77777777-6f0e-4a35-9d53-1a0f1c1f2a11", worker_address="prj-1__other.kapso.workers.dev")


@pytest.mark.parametrize(
    "content",
    [
        {"nodes": [{"data": {"config": {"function_id": USED.id}}}]},
        {"nodes": [{"function_id": USED.id.upper()}]},
        {"tools": [{"function_slug": "greet"}]},
        {"url": f"https://api.kapso.ai/platform/v1/functions/{USED.id}/invoke?x=1"},
        {"url": "https://PRJ-1__greet.kapso.workers.dev/hook"},
        {"text": json.dumps({"tool": {"function_slug": "greet"}})},
        {"text": json.dumps({"inner": json.dumps([{"function_name": "greet"}])})},
        [[f"call {USED.id}, then wait"]],
        {"tools": {USED.id: {}}},
        {"body": '{"function_slug": "greet", "n": {{vars.n}}}'},
        {"prompt": 'Call this:\n{"function_slug": "greet"}'},
        {"text": json.dumps(json.dumps({"function_slug": "greet"}))},
        {"functionSlug": " Greet "},
        {"function_slugs": ["other-one", "greet"]},
        {"url": "https://prj-p1__greet.acme.workers.dev/"},
    ],
)
def test_a_reference_is_found_in_every_spelling(content: Json) -> None:
    """And only the function that is meant counts as used."""
    users = users_in([Reference(UserKind.WORKFLOW, "Orders", content)], [USED, OTHER])
    assert users == {USED.id: (FunctionUser(UserKind.WORKFLOW, "Orders"),), OTHER.id: ()}


@pytest.mark.parametrize("content", [{"name": "greet"}, {"function_slug": "gree"}, {"prompt": "function_slug: greet-2"}, None])
def test_other_texts_are_not_references(content: Json) -> None:
    """Neither the slug of another function, nor the slug where nothing speaks of functions."""
    assert users_in([Reference(UserKind.WORKFLOW, "Orders", content)], [USED]) == {USED.id: ()}


@pytest.mark.parametrize("named", [USED.id, USED.id.upper(), "https://prj-1__greet.kapso.workers.dev"])
def test_code_that_names_a_function_uses_it(named: str) -> None:
    """Code on Kapso, and code that git wants."""
    code = f"const target = '{named}';"
    assert functions_that_name(USED, [replace(OTHER, code=code)]) == (FunctionUser(UserKind.FUNCTION, "other"),)
    assert upcoming_users(USED, {"other": code}) == (FunctionUser(UserKind.FUNCTION, "other"),)
    assert not is_named_in(OTHER, code.casefold())
