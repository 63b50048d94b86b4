"""Answers with the status: the same as if each was rendered from nothing, and a thousand functions cost little."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

from kapso_sync.model.status import DaemonStatus, status_document
from kapso_sync.server.page import render_page
from kapso_sync.server.rendering import StatusRenderer
from tests.server.statuses import ALL, BAD, GOOD


def test_what_was_rendered_before_changes_no_answer() -> None:
    """Functions come, go, change, and grow older between two answers; texts may hold anything."""
    renderer = StatusRenderer()
    odd = replace(GOOD, functions=(replace(GOOD.functions[0], change="half \ud800 of a letter"), *BAD.functions[:3]))
    shown = [*ALL.values(), odd]
    older = [replace(each, now=each.now + timedelta(seconds=seconds)) for each in shown for seconds in (0, 1, 90, 90_000)]
    for first, second in permutations(older[::3], 2):
        for each in (first, second):
            assert json.loads(renderer.document(each, trusted=True)) == json.loads(
                json.dumps(status_document(each), ensure_ascii=False).encode("utf-8", "replace")
            )
            assert renderer.page(each) == render_page(each).encode("utf-8", "replace")


def test_a_function_that_did_not_change_is_not_rendered_again() -> None:
    """Else each look at the page would hold the event loop for as long as a pass."""
    renderer = StatusRenderer()

    def kept(shown: DaemonStatus) -> dict[str, tuple[int, int]]:
        renderer.document(shown, trusted=True)
        renderer.page(shown)
        return {slug: (id(renderer._documents[slug][-1]), id(renderer._cards[slug][-1])) for slug in renderer._cards}

    first = kept(GOOD)
    assert first.keys() == {function.slug for function in GOOD.functions}
    assert kept(replace(GOOD, now=GOOD.now + timedelta(milliseconds=200))) == first
    changed = replace(GOOD.functions[2], action="update")
    again = kept(replace(GOOD, functions=(*GOOD.functions[:2], changed, *GOOD.functions[3:])))
    assert [slug for slug, texts in again.items() if texts != first[slug]] == [changed.slug]
