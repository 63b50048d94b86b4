"""The command line: parses arguments, calls the program, prints, and returns the exit code.

`app` declares the commands; each has a module. `runner` runs a command and turns every error into an exit code, `render` prints
for people, and `json_documents` for programs. Everything heavy is imported inside the commands: `kapso-sync version` must
answer at once.
"""
