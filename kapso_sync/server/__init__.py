"""The daemon's HTTP server: health, metrics, status page and JSON, push webhook, and what people ask of it.

`app` is the Starlette application, `hooks` reads pushes of every provider, `access` decides who may see what, `page` renders
the status page, `serve` runs it all in our own loop. Everything it knows is passed in: of ours it imports the model alone.
"""
