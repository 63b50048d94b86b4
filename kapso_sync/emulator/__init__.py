"""Emulator of Kapso's Functions API on loopback, for tests, for the demo and for trying kapso-sync out.

A request goes through `middleware` to `routes`, which change the emulated project in `world`.

* `server` starts an emulator, `serving` runs it on a socket, and `options` has its options, switches and errors.
* `access` refuses foreign hosts, web pages, and control requests without the token.
* `middleware` checks, logs and counts each request, with `requestlog`, `limiter` (rate limit) and `faults` (fault rules).
* `routes` is the Functions API, and `control` the control API below ``/_emulator/``; `deps` has the objects both share.
* `answers` builds the HTTP answers, and `wire` sends them: whole, in pieces, late, or not at all.
* `world` is the emulated project (without HTTP), with `records`, `deployments`, `storage` and `clock`.
* `runtime` is the interface to the program that compiles and runs code; `syntax` checks code without it.
* `masking` keeps the values of secrets out of what is shown; `values` reads and writes JSON.

The package imports no other part of the program, and the core imports nothing from it.
"""
