"""What the daemon knows of its functions, for people and programs: `tracker` keeps it, `event_text` says events in words."""
