"""The parts of one emulator that more than one of its doors works with."""

from __future__ import annotations

from dataclasses import dataclass

from kapso_sync.emulator.clock import Clock
from kapso_sync.emulator.deployer import Deployer
from kapso_sync.emulator.faults import Faults
from kapso_sync.emulator.limiter import FixedWindow
from kapso_sync.emulator.requestlog import RequestLog
from kapso_sync.emulator.wire import Hangs
from kapso_sync.emulator.world import EmulatedProject


@dataclass(frozen=True, slots=True)
class EmulatorDeps:
    """What is there, what was asked, what goes wrong, how much is allowed, and how code goes live."""

    world: EmulatedProject
    faults: Faults
    limiter: FixedWindow
    log: RequestLog
    hangs: Hangs
    clock: Clock
    deployer: Deployer
