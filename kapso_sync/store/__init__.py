"""The state folder. Losing it may cost calls, never a function: the truth is in git and on Kapso.

`database` holds the inventory and the journal in SQLite, `codec` their JSON. `backups` keeps copies of functions that were
overwritten or deleted, `builds` caches builds, and `history` records what was done and when. `secretkey` keeps the key of
digests, `api_facts` the observed behaviour of an API base, `daemon_files` the files that the daemon shares with its clients,
and `json_file` other small documents. `lock` keeps a second process out.
"""
