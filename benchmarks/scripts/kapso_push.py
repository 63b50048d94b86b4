"""Push a folder of functions with the classes of Kapso's own CLI: ``kapso_push.py FOLDER URL``; the key is KAPSO_API_KEY.

Its command line has no option for the API's base URL, so ``kapso push`` itself can only talk to app.kapso.ai. The classes
behind that command take the URL; this does what the command does after its look at the settings.
"""

import sys
from pathlib import Path

from kapso.cli.commands.push import PushService, collect_local_functions  # type: ignore[import-not-found]
from kapso.cli.services.api_service import ApiService  # type: ignore[import-not-found]
from rich.console import Console

service = PushService(ApiService(api_url=sys.argv[2]), Console())
for function in collect_local_functions(Path(sys.argv[1])):
    result = service.push_function(function)
    if not result.success:
        sys.exit(f"{function.name}: {result.error_message}")
