"""The service that never stops: triggers that only say "look again", one pass at a time, and tasks that are restarted.

`bell` takes triggers, `loop` answers them with passes, `backoff` spaces out what keeps failing, `schedule` and `watcher` ring
on their own, `supervisor` keeps tasks alive and ends them, `notify` talks to systemd. Nothing here does a pass's work.
"""
