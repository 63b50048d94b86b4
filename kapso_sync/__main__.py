"""The entry point: ``kapso-sync`` and ``python -m kapso_sync``."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    # Modules are no garbage, and to look for some while they are loaded takes a tenth of a start; `run_loop` collects again.
    gc.disable()
    # httpx loads a command line of its own, with rich and pygments, wherever those are installed; nothing here calls it.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    # uvicorn can watch the files of its application, for which it loads watchfiles; a daemon on git watches no files.
    sys.modules["uvicorn.supervisors.watchfilesreload"] = None  # type: ignore[assignment]
    # In a git hook these name the hook's repository, and would lead every git below us to it.
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]
    from kapso_sync.cli.app import run_command_line
    from kapso_sync.cli.output import use_safe_streams
    from kapso_sync.cli.plain import print_traceback

    use_safe_streams()
    sys.excepthook = print_traceback
    code = run_command_line(sys.argv[1:])
    # The interpreter looks for garbage once more before it ends, and all of it goes with the process.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
