"""The command line: parse, call, print, exit code. Nothing else.

`app` declares the commands, `runner` runs one and turns every way out into an exit code, `render` and `documents` say what came
of it to people and to programs. Everything heavy is imported inside the commands: `kapso-sync version` must answer at once.
"""
