"""Notifies people who do not watch the status: messages when an issue opens or closes, and a status at each commit.

`issues` finds the open issues and `messages` writes about them (both pure); `notifier` sends that to the `destinations` with
Apprise. `commit_status` decides a commit's status and `forges` knows each forge's request (both pure); `commit_status_reporter`
sets it through `commit_status_client`. Both use an `outbox`, and `worker` runs both after each change of the status.
"""
