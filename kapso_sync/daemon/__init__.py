"""The reconciliation daemon: it queues triggers, runs one pass at a time, and restarts background tasks that fail.

`service` runs the daemon from start to stop. `triggers` is the queue of requests for a pass, and `loop` runs the passes.
`backoff` delays functions that keep failing. `schedule` (intervals) and `watcher` (file events) request passes. `supervisor`
restarts background tasks. `settings_reload` reads the settings again at SIGHUP, and `suspension` pauses and resumes the
daemon. `control` is what the HTTP server calls. `systemd` is the sd_notify client, and `unused_functions` looks for functions
that nothing uses.

Where several replicas share a Kubernetes Lease, `lease` elects the one that writes, `lease_api` talks to the API server,
`lease_notes` is what replicas write for each other, and `replica` is this process's part in it.

The package uses `model` and `retry`, `store` for files of the state folder, and `reconcile` for the request of a pass. The
package `wiring` passes in everything else.
"""
