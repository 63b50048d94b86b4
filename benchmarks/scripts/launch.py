"""Run a command and print what it cost, as JSON: ``launch.py COMMAND ARGUMENT…``.

Linux counts the memory of a process from before it became another program (``exec``): a child that a large process starts
reports at least the size of that process. So this small one starts what is measured.
"""

import os
import sys
import time

started = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - started
print(
    f'{{"code": {os.waitstatus_to_exitcode(status)}, "seconds": {seconds}, "cpu": {usage.ru_utime + usage.ru_stime}, '
    f'"megabytes": {usage.ru_maxrss / 1024}}}'
)
