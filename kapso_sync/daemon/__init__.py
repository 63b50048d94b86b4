"""The service that never ends: triggers that ask for a pass, one pass at a time, and tasks that are restarted.

`service` is the daemon's life, and `control` what people ask of it through the server. `triggers` collects requests, `loop`
answers them with passes, `backoff` delays functions that keep failing. `schedule` and `watcher` request passes by time and by
file events, `supervisor` restarts tasks, `suspension` and `settings_reload` do what people ask for, `systemd` notifies systemd,
`unused_functions` and `process_memory` run beside the passes. What a pass does is the business of `kapso_sync.reconcile`.
"""
