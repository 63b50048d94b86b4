"""Pulls: writes functions of Kapso into a functions folder.

`procedure` runs a pull or a restore, `planner` decides which files to write, and `folder_editor` edits the folder in memory.
The same reader and builder as in a pass verify the result before `cli.pull` writes a file.
"""
