"""Ask a daemon for its page and its status over one connection: ``probe_pages.py HOST:PORT SECONDS LEAST``.

Prints the seconds of each answer as JSON, by path. It asks every 10 ms, for the given seconds and at least LEAST times.
"""

import http.client
import json
import sys
import time

address, duration, least = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
connection = http.client.HTTPConnection(address, timeout=60)
times: dict[str, list[float]] = {"/": [], "/api/status": []}
begun = time.perf_counter()
while time.perf_counter() - begun < duration or len(times["/"]) < least:
    for path, found in times.items():
        started = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        found.append(time.perf_counter() - started)
        if answer.status != 200:
            sys.exit(f"{path} answered {answer.status}")
    time.sleep(0.01)
print(json.dumps(times))
