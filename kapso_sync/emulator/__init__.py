"""The other side of the wire: Kapso's Functions API on loopback, for tests, for the demo and for trying things out.

`options` says what one can ask for and `server` runs it. A request passes `gate` (log, rate limit, faults) to `routes` (the
Functions API), which acts on `world` (functions, secrets, deployments, workflows; pure of HTTP). `control` is the door behind
the API. Nothing here imports the rest of the program, and nothing of the core imports this.
"""
