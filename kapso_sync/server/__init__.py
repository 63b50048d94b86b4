"""The daemon's HTTP server: health, metrics, status page and JSON, push webhook, and what people ask of it.

`app` is the Starlette application, `access` decides who may see what, `body` reads what is sent, `hooks` understands pushes of
every provider, `page` renders the status page with `rows` and `words`, `serve` runs it all in our own loop. Everything it knows
is passed in: of ours it imports the model and the errors alone.
"""
