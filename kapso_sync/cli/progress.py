"""A progress bar on a terminal while deployments run; elsewhere nothing, since the log says it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from kapso_sync.model import events


class Progress:
    """A listener that counts deployments; the bar appears with the first one and vanishes at the end."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Bars(*columns, console=console, transient=True) if console.is_terminal else None
        self._started: set[str] = set()
        self._ended: set[str] = set()

    @property
    def visible(self) -> bool:
        """Tell whether somebody sees the bar."""
        return self._bars is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def listen(self, event: events.Event) -> None:
        """Take notice of deployments."""
        if self._bars is None:
            return
        if isinstance(event, events.DeployStarted):
            self._started.add(event.slug)
        elif isinstance(event, events.DeploySucceeded | events.DeployFailed | events.DeployTimedOut):
            self._started.add(event.slug)
            self._ended.add(event.slug)
        else:
            return
        if not self._bars.tasks:
            self._bars.add_task("deploying", total=None)
            self._bars.start()
        self._bars.update(self._bars.tasks[0].id, completed=len(self._ended), total=len(self._started))
