"""From a snapshot to what git wants: the manifest read, each entry's code checked and built."""
