"""``run``: the daemon."""

from __future__ import annotations

import gc
import sys

from kapso_sync.aio import run_loop
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.workerd import start_locally
from kapso_sync.process_memory import use_one_heap
from kapso_sync.settings import Settings
from kapso_sync.wiring.daemon import make_daemon
from kapso_sync.wiring.notifications import check_notification_settings

THREAD_TURN = 0.001
"""Seconds after which a thread that computes lets others run; Python's own 5 ms add up to more than a page takes."""


def run(context: CommandContext) -> int:
    """Run the daemon until a signal; raises `KapsoSyncError` for errors that stop it at once."""

    def load() -> Settings:
        settings = context.load_settings()
        settings.key()
        check_notification_settings(settings)
        return settings

    async def work() -> int:
        console = context.stderr()
        return await make_daemon(
            load, console.log_stream(), context.advice_for_daemon, start_locally, colour=console.colour
        ).run()

    # What takes long is computed beside the event loop, which then answers within a few turns: a page takes about four.
    sys.setswitchinterval(THREAD_TURN)
    use_one_heap()
    gc.collect()  # what loading left behind; later, it is never looked at
    return run_loop(work())
