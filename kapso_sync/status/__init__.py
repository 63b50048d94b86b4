"""Keeps the daemon's status, for people and programs.

`tracker` listens to events and follows passes, `conditions` computes a function's conditions (pure), `event_text` describes an
event in words, and `function_views` collects what the state folder knows of one function. `server` shows the status,
`telemetry.metrics` counts it, and `notifications` compares it with the messages that were sent.
"""
