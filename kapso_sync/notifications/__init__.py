"""Tells people who do not watch the status: messages when an issue opens or closes, and a status at each commit.

`issues` finds what is wrong and `messages` writes it (both pure); `notifier` sends it to the `destinations` with Apprise.
`commit_status` decides a commit's status and `forges` knows each forge's request (both pure); `commit_status_reporter` sets it
through `commit_status_client`. `worker` runs notifier and reporter after each change of the status.
"""
