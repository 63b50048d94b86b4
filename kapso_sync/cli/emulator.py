"""``kapso-sync emulator``: serves a local Kapso for experiments."""

from __future__ import annotations

import functools
import json
import shlex
from pathlib import Path

from kapso_sync.aio import run_loop
from kapso_sync.cli.console import stdout_console
from kapso_sync.cli.workerd import HOW_TO_GET_IT, Workerd, find_workerd
from kapso_sync.dataclass import dataclass
from kapso_sync.emulator.access import TOKEN_HEADER
from kapso_sync.emulator.options import Behaviour, EmulatorError, EmulatorOptions, random_token
from kapso_sync.emulator.server import Emulator
from kapso_sync.emulator.server import serve as serve_emulator
from kapso_sync.errors import ConfigError, ExitCode


@dataclass(frozen=True, slots=True)
class EmulatorArgs:
    """The options of the command; ``runtime``: auto, off, or the path of a workerd.

    ``world`` holds ``NAME=VALUE`` of switches, or paths of JSON files with an object of them. ``control_token`` None: a random
    one, new for each process.
    """

    port: int
    data: Path | None
    faults: Path | None
    rate_limit: int
    window: float
    deploy_delay: float
    quota: int | None
    runtime: str
    world: tuple[str, ...] = ()
    control_token: str | None = None


def serve(serving: EmulatorArgs) -> int:
    """Serve until a signal comes; the first lines say how to use it. Raises `ConfigError`."""
    workerd = find_workerd(serving.runtime)
    try:
        options = EmulatorOptions(
            port=serving.port,
            data=serving.data,
            faults=serving.faults,
            rate_limit=serving.rate_limit,
            window=serving.window,
            deploy_delay=serving.deploy_delay,
            quota=serving.quota,
            workerd=workerd.path if workerd else None,
            network=True,
            behaviour=_world(serving.world),
            control_token=random_token() if serving.control_token is None else serving.control_token,
        )
        run_loop(serve_emulator(options, functools.partial(_announce, _runs(serving.runtime, workerd))))
    except EmulatorError as error:
        raise ConfigError(str(error), hint=error.hint) from error
    return int(ExitCode.OK)


def _world(words: tuple[str, ...]) -> Behaviour:
    """Return the world that the words and files describe, the later ones winning; raises EmulatorError."""
    world = Behaviour()
    for word in words:
        if "=" in word:
            world = world.changed_by_words([word])
            continue
        try:
            switches = json.loads(Path(word).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EmulatorError(f"--world {word}: neither NAME=VALUE nor a JSON file that can be read: {error}") from error
        if not isinstance(switches, dict):
            raise EmulatorError(f"--world {word}: expected a JSON object of switches")
        world = world.changed(switches)
    return world


def _runs(wanted: str, workerd: Workerd | None) -> str:
    if workerd is not None:
        return f"Functions run, on workerd {workerd.version} ({workerd.path})."
    if wanted == "off":
        return "Functions are deployed and not run: --runtime off."
    return f"Functions are deployed but not run: workerd is not installed. To run them: {HOW_TO_GET_IT}"


def _announce(runs: str, emulator: Emulator) -> None:
    console = stdout_console()
    console.line(f"The Kapso emulator listens on {emulator.url}. In another terminal:")
    console.verbatim(f"export KAPSO_API_BASE_URL={emulator.base('/api/v1')} KAPSO_API_KEY={emulator.key}", indent=2)
    console.verbatim("kapso-sync sync ./functions", indent=2)
    token = shlex.quote(f"{TOKEN_HEADER}: {emulator.control_token}")
    curl = f"curl --header {token} {emulator.url}/_emulator/requests"
    console.verbatim(f"{curl}   # what it saw; /_emulator/state: what it holds", indent=2)
    console.line(runs)
    console.flush()
