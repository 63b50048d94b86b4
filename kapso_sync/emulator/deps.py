"""What the API and the control API of one emulator share, and how a deployment is started."""

from __future__ import annotations

from dataclasses import dataclass

from kapso_sync.emulator.clock import Clock
from kapso_sync.emulator.faults import Faults
from kapso_sync.emulator.limiter import FixedWindow
from kapso_sync.emulator.records import CLOUDFLARE, Deployment, Function
from kapso_sync.emulator.requestlog import RequestLog
from kapso_sync.emulator.runtime import Runtime
from kapso_sync.emulator.wire import Hangs
from kapso_sync.emulator.world import EmulatedProject


class Deployer:
    """Begins deployments. ``runtime`` None: only the code's syntax is looked at."""

    def __init__(self, world: EmulatedProject, runtime: Runtime | None) -> None:
        self._world = world
        self.runtime = runtime

    async def deploy(
        self, function: Function, *, delay: float | None = None, failure: str | None = None, ends: bool = True
    ) -> Deployment:
        """Begin a deployment as `World.deploy` does, and return once it is known whether the code starts.

        It takes the code and fields of this moment, and its place among other deployments of the function.
        """
        runtime = self.runtime if function.function_type == CLOUDFLARE else None
        deployment = self._world.deploy(function, delay=delay, failure=failure, ends=ends, held=runtime is not None)
        if runtime is not None:
            verdict = None if deployment.failure else await runtime.check(function.slug, deployment.code)
            self._world.release(deployment, verdict)
        return deployment


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
