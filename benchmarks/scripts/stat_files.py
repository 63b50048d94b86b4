"""Ask for the status of every file of a folder, and nothing else: ``stat_files.py FOLDER``."""

import os
import sys

for entry in os.scandir(sys.argv[1]):
    entry.stat()
