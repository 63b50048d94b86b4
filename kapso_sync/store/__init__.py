"""The state folder: memory that survives, and never the truth. Losing it may cost calls, never a function.

`database` holds the inventory and the journal in SQLite, `codec` their JSON, `backups` copies of what was overwritten or
deleted, `builds` what was built of which files, `secretkey` the key of digests, `notes` what people were told, `history` what
was done and when, `lock` keeps a second process out.
"""
