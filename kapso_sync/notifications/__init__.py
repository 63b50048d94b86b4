"""Telling people who do not look: messages when a condition changes, and a status at each commit.

`standing` says what is wrong, `messages` puts into words how that changed, `verdicts` what a commit deserves, and `forges` how
each forge wants to hear it: all pure. `destinations` and `posting` reach the outside, `messenger` and `reporter` decide when.
"""
