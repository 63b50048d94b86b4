"""The daemon's HTTP server: health, metrics, the page and its JSON, push webhooks, and requests to the daemon.

`app` is the Starlette application, `access` decides who may call what, `hooks` parses the pushes of every provider, and `serve`
runs it in the daemon's loop. Everything that it needs is passed in, as a `DaemonControl` (`control`): it imports the model and
the errors alone.

Of the page, `views` answers, `sessions` keeps who has signed in, `page` renders the front page with its `listing` and `chart`,
`function_page` the views of one function, `forms` what is filled in, and `markup` what they share. `rendering` renders again
only what has changed.
"""
