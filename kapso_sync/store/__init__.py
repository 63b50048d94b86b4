"""The state folder: memory that survives, and never the truth. Losing it may cost calls, never a function.

`database` holds the inventory and the journal in SQLite, `codec` their JSON. `backups` keeps copies of what was overwritten or
deleted, `builds` what was built of which files, `history` what was done and when. `secretkey` keeps the key of digests,
`api_facts` what an API base does, `daemon_files` what the daemon and its clients share, `json_file` other small documents.
`location` names the folder, and `lock` keeps a second process out.
"""
