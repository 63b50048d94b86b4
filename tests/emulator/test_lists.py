"""Lists and their pages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.kapso import CODE, Kapso


def fill(kapso: Kapso, count: int) -> list[str]:
    """Make functions, and return their slugs in the order of the list."""
    return [kapso.emulator.world.create({"name": f"f{number}", "code": CODE}).slug for number in range(count)]


async def read(kapso: Kapso, **params: object) -> tuple[list[str], dict[str, Any] | None]:
    """Return the slugs and the ``meta`` of one answer."""
    answer = await kapso.http.get("/functions", params={name: str(value) for name, value in params.items()})
    assert answer.status_code == 200
    body = answer.json()
    return [item["slug"] for item in body["data"]], body.get("meta")


async def test_list_of_one_page_has_no_meta_and_includes_code(kapso: Kapso) -> None:
    """Up to a hundred functions come complete in one response."""
    slugs = fill(kapso, 100)
    assert await read(kapso) == (slugs, None)
    answer = await kapso.http.get("/functions")
    assert answer.json()["data"][0]["code"] == CODE


async def test_list_is_paginated_by_a_hundred(kapso: Kapso) -> None:
    """Pages are complete, do not overlap, and say how many there are; the page after the last one is empty."""
    slugs = fill(kapso, 201)
    pages = [await read(kapso, page=number) for number in (1, 2, 3, 4)]
    assert [slug for part, _ in pages for slug in part] == slugs
    assert [len(part) for part, _ in pages] == [100, 100, 1, 0]
    assert pages[1][1] == {"page": 2, "per_page": 100, "total_pages": 3, "total_count": 201}


@pytest.mark.parametrize("name", ["limit", "per_page"])
async def test_page_size_is_limited_to_a_hundred(kapso: Kapso, name: str) -> None:
    """``limit`` and ``per_page`` both set the size of a page."""
    slugs = fill(kapso, 150)
    part, meta = await read(kapso, page=2, **{name: 40})
    assert part == slugs[40:80]
    assert meta == {"page": 2, "per_page": 40, "total_pages": 4, "total_count": 150}
    assert len((await read(kapso, **{name: 1000}))[0]) == 100


@pytest.mark.parametrize("value", ["", "0", "-1", "two", "9" * 50, "²"])
async def test_invalid_page_numbers_and_sizes_are_ignored(kapso: Kapso, value: str) -> None:
    """A page or size that is not a number gives the first page in full size."""
    slugs = fill(kapso, 3)
    assert await read(kapso, page=value, limit=value, per_page=value) == (slugs, None)


async def test_list_omits_code_when_configured(kapso: Kapso) -> None:
    """A behaviour removes ``code`` from the list, not from the single record."""
    await kapso.behave(list_code=False)
    function_id = await kapso.create()
    listed = (await kapso.http.get("/functions")).json()["data"][0]
    record = await kapso.record(function_id)
    assert record.pop("code") == CODE
    assert listed == record


async def test_responses_are_wrapped_twice_when_configured(kapso: Kapso) -> None:
    """A behaviour wraps every envelope once more."""
    fill(kapso, 3)
    await kapso.behave(double_wrap=True, page_size=2)
    body = (await kapso.http.get("/functions")).json()
    assert [item["slug"] for item in body["data"]["data"]] == ["f0", "f1"]
    assert body["data"]["meta"]["total_count"] == 3
    record = (await kapso.http.get(f"/functions/{body['data']['data'][0]['id']}")).json()
    assert record["data"]["data"]["slug"] == "f0"


async def test_pagination_and_meta_are_missing_when_configured(kapso: Kapso) -> None:
    """Behaviours: pages without ``meta``, and a server without pagination."""
    slugs = fill(kapso, 5)
    await kapso.behave(page_size=2, list_meta=False)
    assert await read(kapso, page=3) == (slugs[4:], None)
    await kapso.behave(paging=False)
    assert await read(kapso, page=3) == (slugs, None)
