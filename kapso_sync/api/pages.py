"""Reads all pages of a list, several at the same time, within one limit of bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import field, replace
from typing import Self, TypeVar

from kapso_sync.aio import in_slices
from kapso_sync.api.envelope import parse_paging, parse_records
from kapso_sync.api.transport import ApiRequest, Transport
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import AnswerTooLarge, ApiGarbled, Call
from kapso_sync.model.json_values import Json, canonical_json
from kapso_sync.model.names import is_id

PAGE_SIZE = 100
"""Records to request in each page; larger pages are not documented."""

PAGES_AT_ONCE = 9
"""Pages of a list that are read at the same time, once the first one has said how many there are: with it, those of a thousand
functions."""

MAX_PAGES = 1000
MAX_RECORDS = 20_000
"""Most records of all pages: each of them is looked at in turn, while nothing else happens."""

_MIB = 1024 * 1024
MAX_LIST_BYTES = 48 * _MIB
"""Most bytes of all pages of the functions, code included. One page may hold all of it, which takes three times as much memory
while it is decoded: more would not fit into a container of 256 MiB.
"""

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class UnparsedList:
    """Kapso's whole list of functions as it was read: the records of all answers, and the digest of these answers."""

    records: list[Json] = field(repr=False)
    digest: str


def functions_request() -> ApiRequest:
    """Return the request for the list of functions."""
    return ApiRequest(Call("GET", "/functions"), "/functions", cut=True)


async def read_unparsed_list(transport: Transport) -> UnparsedList:
    """Return Kapso's list of functions, whose records nobody has looked at. Raises like `read_pages`."""
    budget = ByteBudget(MAX_LIST_BYTES)
    records = await read_pages(transport, functions_request(), budget, lambda record: record)
    return UnparsedList(records, budget.digest)


async def read_pages(
    transport: Transport,
    request: ApiRequest,
    budget: ByteBudget,
    parse: Callable[[Json], _Record],
    *,
    until_empty: bool = False,
) -> list[_Record]:
    """Return the parsed records of all pages; read them a second time if the list changed during the first time.

    Raises `ApiGarbled` when pages are missing or do not end: an incomplete list must never be used as the whole list.
    Raises `AnswerTooLarge` above the budget, and beyond `MAX_RECORDS`.
    """
    before = budget.left
    try:
        return await _read_once(transport, request, budget, parse, until_empty=until_empty)
    except _PageMoved:
        budget.restart(before)
        try:
            return await _read_once(transport, request, budget, parse, until_empty=until_empty)
        except _PageMoved as moved:
            raise ApiGarbled(f"{request.call}: {moved}", call=request.call, hint="the next pass reads the list again") from None


async def read_within(transport: Transport, request: ApiRequest, budget: ByteBudget, share: int = 1) -> Json:
    """Return an answer that is one of several with a limit in common; raises `AnswerTooLarge` above it.

    It may take what is left of the limit, divided by ``share``.
    """
    try:
        value, body = await transport.json_and_bytes(replace(request, max_bytes=max(1, budget.left // share)))
    except AnswerTooLarge as error:
        if share > 1 or budget.left == budget.limit:
            raise
        raise AnswerTooLarge(f"{request.call} answered with more than {budget.limit // _MIB} MiB", call=request.call) from error
    budget.take(body)
    return value


async def _read_once(
    transport: Transport,
    request: ApiRequest,
    budget: ByteBudget,
    parse: Callable[[Json], _Record],
    *,
    until_empty: bool,
) -> list[_Record]:
    """Read pages until the answers say that there are no more; those that the first one announces are read together.

    A page is parsed while the next ones are on their way. If the answers do not say, the list ends with a page shorter than
    we asked for; with ``until_empty`` it ends with an empty or a repeated page, since a server may give shorter pages than
    we ask for.
    """
    call = request.call
    records: list[_Record] = []
    seen: set[str] = set()
    announced = 1
    async with _PagesAhead(transport, request, budget) as ahead:
        for number in range(1, MAX_PAGES + 1):
            value = await ahead.answer(number, announced)
            page, paging = parse_records(value, call), parse_paging(value)
            if number == 1:
                announced = paging.last_page(len(page))
            if len(records) + len(page) > MAX_RECORDS:
                raise AnswerTooLarge(f"{call} answered with more than {MAX_RECORDS:,} records", call=call)
            identities = [_identity(record) for record in page]
            fresh = [record for record, identity in zip(page, identities, strict=True) if identity not in seen]
            missing = 0 if paging.total is None else paging.total - len(records) - len(fresh)
            if page and not fresh and missing <= 0:
                return records
            if len(fresh) < len(page):
                raise _PageMoved(f"page {number} repeats records of an earlier one")
            records += await in_slices(_parsed(fresh, parse))
            seen.update(identities)
            more = paging.more(number)
            if more is None and paging.total is None:
                more = bool(page) if until_empty else len(page) >= PAGE_SIZE
            if missing <= 0 and not more:
                return records
            if not page:
                raise _PageMoved(f"page {number} is empty, and more was announced")
    raise ApiGarbled(f"{call}: more than {MAX_PAGES} pages", call=call)


class _PageMoved(Exception):
    """The list changed while its pages were read, or a page is missing."""


class _PagesAhead:
    """Reads the pages of a list, several at the same time."""

    def __init__(self, transport: Transport, request: ApiRequest, budget: ByteBudget) -> None:
        self._transport = transport
        self._request = request
        self._budget = budget
        self._reading: deque[asyncio.Task[Json]] = deque()
        self._alone = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for every page, before an error is raised: to cancel a request would cost the pool a connection."""
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            for task in self._reading:
                task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def answer(self, number: int, last: int) -> Json:
        """Return the answer of the next page, which is ``number``; those after it are read meanwhile, as far as ``last``.

        Together they take no more memory than one: each may have its share of what is left. A larger one is read again, alone.
        """
        if not self._reading:
            count = max(1, min(last - number + 1, PAGES_AT_ONCE))
            self._alone = count == 1
            self._reading.extend(asyncio.ensure_future(self._read(number + each, count)) for each in range(count))
        try:
            return await self._reading.popleft()
        except AnswerTooLarge:
            if self._alone:
                raise
            await asyncio.gather(*self._reading, return_exceptions=True)
            return await self._read(number, 1)

    async def _read(self, number: int, share: int) -> Json:
        query = {"page": str(number), "per_page": str(PAGE_SIZE), "limit": str(PAGE_SIZE)}
        return await read_within(self._transport, replace(self._request, query=query), self._budget, share)


def _parsed(records: Iterable[Json], parse: Callable[[Json], _Record]) -> Generator[None, None, list[_Record]]:
    """Return the parsed records, and pause after each."""
    found = []
    for record in records:
        found.append(parse(record))
        yield
    return found


class ByteBudget:
    """The bytes that may still be read of several answers together, and how many answers there were.

    ``digest`` is that of all of them in any order, since the same pages hold the same records.
    """

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit
        self._digests: list[bytes] = []

    @property
    def answers(self) -> int:
        """The number of answers."""
        return len(self._digests)

    @property
    def digest(self) -> str:
        """The digest of all answers, in hexadecimal digits."""
        return hashlib.blake2b(b"".join(sorted(self._digests)), digest_size=16).hexdigest()

    def take(self, body: bytes) -> None:
        """Count an answer."""
        self.left -= len(body)
        self._digests.append(hashlib.blake2b(body).digest())

    def restart(self, left: int) -> None:
        """Forget the answers so far; ``left`` is what was left before them."""
        self.left = left
        self._digests.clear()


def _identity(record: Json) -> str:
    """Return what tells a record from those of other pages: its id, or all of it where it has none that can be."""
    if isinstance(record, dict) and is_id(record.get("id")):
        return str(record["id"])
    return hashlib.sha256(canonical_json(record).encode("utf-8", "surrogatepass")).hexdigest()
