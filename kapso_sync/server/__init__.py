"""The daemon's HTTP server: health, metrics, status page and JSON, push webhooks, and requests to the daemon.

`app` is the Starlette application, `access` decides who may call what, `hooks` parses the pushes of every provider, `page`
renders the status page, and `serve` runs it in the daemon's loop. Everything that it needs is passed in, as a `DaemonControl`
(`control`): it imports the model and the errors alone.
"""
