"""Leads the stack traces of an invocation back to the source, with the map of the code that ran, or not at all.

A map belongs to one code. So it must be known which code ran: the invocation is younger than the last deployment, which was of
code that a state folder of this machine has built. What is not certain is said, and the places stay those of the uploaded code.
"""

from __future__ import annotations

import asyncio
import enum
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from kapso_sync.build.sourcemap import BundleMap
from kapso_sync.build.stack_trace import CodeIndex, Frame, frames_in, own_frames, with_places
from kapso_sync.build.wrapping import BANNER
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, Location
from kapso_sync.model.desired import MODULE_TAIL
from kapso_sync.model.functions import (
    CODE,
    ConsoleLine,
    DeploymentStatus,
    InvocationRecord,
    RemoteFunction,
    code_hash,
    normal_code,
)
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.model.state import InventoryRecord
from kapso_sync.reconcile.plan.comparison import liveness
from kapso_sync.reconcile.plan.observed import stored_content
from kapso_sync.store.builds import StoredBuild, find_build
from kapso_sync.store.database import read_state, read_version


class Places(enum.StrEnum):
    """Where the places in an invocation's stack traces lie."""

    SOURCE = "source"
    """In the source's files, by the source map."""

    AS_WRITTEN = "as-written"
    """In the uploaded code, which is the source's file itself."""

    UPLOADED = "uploaded"
    """In the code that was uploaded, which was built from the source."""


@dataclass(frozen=True, slots=True)
class PlacedInvocation:
    """An invocation whose stack traces name ``places``; None: it names none. ``reason`` says why they are not in the source.

    ``first`` is the first place in the source that a trace names, if a source map led there.
    """

    record: InvocationRecord
    places: Places | None = None
    reason: str | None = None
    first: Location | None = None


class LocalBuilds:
    """What the state folders of this machine know of code; nothing is written, and no lock is taken.

    A source map is found by the code that it belongs to, so any state folder may have it.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def owned(self, function_id: str) -> InventoryRecord | None:
        """Return what was written last to a function, by the first folder that knows it."""
        records = (read_state(folder).owned.get(function_id) for folder in self._folders)
        return next((record for record in records if record is not None), None)

    def former_code(self, function_id: str) -> str | None:
        """Return the code that ran before the last write, or None if none is known."""
        versions = (read_version(folder, function_id) for folder in self._folders)
        return next((version.code for version in versions if version is not None), None)

    def build(self, hashes: set[str]) -> StoredBuild | None:
        """Return the build of the code with one of these hashes, one with a map if there is any."""
        wanted = {text.removeprefix("sha256:") for text in hashes}
        found = [build for folder in self._folders if (build := find_build(folder, wanted)) is not None]
        return next((build for build in found if build.source_map is not None), found[0] if found else None)


class Uncertain(Exception):
    """Why the places cannot be led back to the source."""


class InvocationPlacer:
    """Places the invocations of one function as it is now: ``function`` must have been read after the invocations were.

    ``edge`` is the time in which the code before a deployment may still answer, in seconds.
    """

    def __init__(self, function: RemoteFunction, builds: LocalBuilds, *, edge: float) -> None:
        self._function = function
        self._builds = builds
        self._edge = timedelta(seconds=edge)

    def place(self, record: InvocationRecord) -> PlacedInvocation:
        """Return the invocation with the places of its stack traces in the source, if it is certain which code ran."""
        own = own_frames(frames_in(texts_of(record)), self._function.slug)
        if not own:
            return PlacedInvocation(record)
        try:
            return self._code_that_ran(own, record.created_at).place(record, self._function.slug)
        except Uncertain as reason:
            return PlacedInvocation(record, Places.UPLOADED, str(reason))

    def _code_that_ran(self, own: Sequence[Frame], at: datetime | None) -> Code:
        """Return the one code that may have run and that all frames fit."""
        deployed = self._function.last_deployed_at
        if isinstance(self._current, Uncertain):
            raise self._current
        if at is None or deployed is None:
            raise Uncertain("Kapso does not say when it ran, or when the code was deployed")
        if at < deployed:
            raise Uncertain(f"it ran before the deployment of {_shown(deployed)}, so maybe with other code")
        possible = [self._current]
        if at <= deployed + self._edge:
            possible += [code for code in self._former if code.text != self._current.text]
        fitting = [code for code in possible if code.index.fits(own)]
        if len(fitting) > 1:
            seconds = f"{self._edge.total_seconds():g} s"
            raise Uncertain(f"it ran within {seconds} of a deployment, so maybe with the code before it")
        if not fitting:
            raise Uncertain("the places do not fit the code that is deployed: the runtime may add lines of its own")
        return fitting[0]

    @functools.cached_property
    def _owned(self) -> InventoryRecord | None:
        return self._builds.owned(self._function.id)

    @functools.cached_property
    def _former(self) -> Sequence[Code]:
        """What may have run before the last deployment: the code before our last write, and code that was rolled back."""
        found = []
        code = self._builds.former_code(self._function.id)
        if code is not None:
            found.append(self._built(spellings(code), code))
        if self._owned is not None and self._owned.quarantine is not None:
            found.append(self._built({self._owned.quarantine.code}, None))
        return found

    @functools.cached_property
    def _current(self) -> Code | Uncertain:
        """The code that runs now, or why it is not known."""
        try:
            return self._find_current()
        except Uncertain as reason:
            return reason

    def _find_current(self) -> Code:
        function, owned = self._function, self._owned
        content = stored_content(function, owned)
        judged = liveness(function, content, owned)
        running = content.get(CODE)
        if judged.reason is not None:
            live = owned.live if owned is not None else None
            if (
                live is None
                or live.deployed_at != function.last_deployed_at
                or function.status is not DeploymentStatus.DEPLOYED
            ):
                raise Uncertain(f"which code runs is not known: {judged.reason}")
            running = live.content.get(CODE)
        if function.code is not None and code_hash(function.code) == running:
            return self._built(spellings(function.code), function.code)
        return self._built({str(running)}, None)

    def _built(self, hashes: set[str], text: str | None) -> Code:
        build = self._builds.build(hashes)
        if build is not None:
            return Code(build.code, build.source_map)
        if text is None:
            raise Uncertain("the code that may have run was not built on this machine")
        return Code(text, None)


@dataclass(frozen=True)
class Code:
    """Code that may have run, and its source map, if this machine has it."""

    text: str
    source_map: str | None

    @property
    def as_written(self) -> bool:
        """Whether the code is the source's file itself."""
        return self.source_map is None and not self.text.startswith(BANNER)

    def place(self, record: InvocationRecord, slug: str) -> PlacedInvocation:
        """Return an invocation of this code with the places of its stack traces in the source; raises `Uncertain`."""
        own = own_frames(frames_in(texts_of(record)), slug)
        if not own:
            return PlacedInvocation(record)
        if self.as_written:
            return PlacedInvocation(record, Places.AS_WRITTEN)
        found = (self.map.original(frame.line, frame.column) for frame in own)
        first = next((place for place in found if place is not None), None)
        return PlacedInvocation(replaced(record, own[0].file, self.map.original), Places.SOURCE, first=first)

    @functools.cached_property
    def index(self) -> CodeIndex:
        """What tells whether a trace can be one of this code."""
        return CodeIndex(self.text)

    @functools.cached_property
    def map(self) -> BundleMap:
        """The source map; raises `Uncertain` if there is none."""
        if self.source_map is None:
            raise Uncertain("no state folder of this machine has the source map of the code that runs")
        try:
            return BundleMap(self.source_map)
        except ValueError:
            raise Uncertain("the source map of the code that runs is damaged") from None


async def place_all(
    api: FunctionsApi,
    function: tuple[str, str],
    records: Sequence[InvocationRecord],
    placer: Callable[[RemoteFunction], InvocationPlacer],
) -> Sequence[PlacedInvocation]:
    """Return the invocations of a function, given by id and slug, with their places.

    Where a trace names any, the function is read first, since it may have been deployed since; nothing else costs a call.
    """
    function_id, slug = function
    if not any(names_places(record, slug) for record in records):
        return [PlacedInvocation(record) for record in records]
    try:
        now = await api.get_function(function_id)
    except ApiError as error:
        reason = f"which code is deployed cannot be read: {error.message}"
        return [unplaced(record, slug, reason) for record in records]
    known = placer(now)
    return await asyncio.to_thread(lambda: [known.place(record) for record in records])


def unplaced(record: InvocationRecord, slug: str, reason: str) -> PlacedInvocation:
    """Return an invocation whose places cannot be led back for a reason that has nothing to do with it."""
    own = own_frames(frames_in(texts_of(record)), slug)
    return PlacedInvocation(record, Places.UPLOADED, reason) if own else PlacedInvocation(record)


def names_places(record: InvocationRecord, slug: str) -> bool:
    """Return whether an invocation has a stack trace with places in the function's code."""
    return bool(own_frames(frames_in(texts_of(record)), slug))


def spellings(code: str) -> set[str]:
    """Return the hashes of a code as it is and as we build it.

    A server may change line ends, and those at the end; and what makes a module of a script was added after the build.
    """
    text = normal_code(code)
    return {
        code_hash(code),
        *(code_hash(f"{each}\n") for each in (text, normal_code(text.removesuffix(normal_code(MODULE_TAIL))))),
    }


def texts_of(record: InvocationRecord) -> Iterator[str]:
    """Yield the texts of an invocation that may hold stack traces."""
    yield record.error or ""
    for line in record.console:
        yield line.message
        yield line.stack or ""


def replaced(record: InvocationRecord, file: str, place: Callable[[int, int], Location | None]) -> InvocationRecord:
    """Return an invocation in which the frames of one file name the places that ``place`` returns."""

    def text(given: str) -> str:
        return with_places(given, file, place)

    def line(given: ConsoleLine) -> ConsoleLine:
        return replace(given, message=text(given.message), stack=None if given.stack is None else text(given.stack))

    return replace(record, error=None if record.error is None else text(record.error), console=tuple(map(line, record.console)))


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
