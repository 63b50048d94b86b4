"""Answers with the status: the same as if each was rendered from nothing, and a thousand functions cost little."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

from kapso_sync.model.status import DaemonStatus, status_document
from kapso_sync.server.page import render_page
from kapso_sync.server.rendering import KEPT_SECONDS, StatusRenderer
from tests.server.statuses import ALL, BAD, GOOD
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_what_was_rendered_before_changes_no_answer() -> None:
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


@in_virtual_time
async def test_a_function_that_did_not_change_is_not_rendered_again() -> None:
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


@in_virtual_time
async def test_what_nobody_asks_for_takes_no_memory() -> None:
    """A daemon is looked at for minutes and idle for days. Who asks each 20 s is answered with what is kept."""
    renderer = StatusRenderer()
    answer, page = renderer.document(GOOD, trusted=True), renderer.page(GOOD)
    first = next(iter(renderer._documents.values()))
    for _ in range(5):
        await asyncio.sleep(KEPT_SECONDS * 2 / 3)
        renderer.document(GOOD, trusted=True)
    assert next(iter(renderer._documents.values())) is first
    assert renderer._cards
    await asyncio.sleep(KEPT_SECONDS)
    assert (renderer._documents, renderer._cards, renderer._listed) == ({}, {}, ())
    assert (renderer.document(GOOD, trusted=True), renderer.page(GOOD)) == (answer, page)
