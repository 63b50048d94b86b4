"""Applying a plan: write functions to Kapso, deploy them, check them, and roll back failures.

- `executor`: carries out a whole plan, in parallel; decides the order and when to stop.
- `function`: applies one function: write, deploy, set secrets, check, roll back.
- `writer`: sends creates, updates and deletions; backs up and journals first.
- `deployer`: starts deployments, and repeats a failed one.
- `deployment_poller`: waits for all running deployments with one list call per poll.
- `checks`: runs the checks of the manifest after a deployment.
- `secrets`: sets and removes secrets, and lists them after a deployment.
- `slug_parking`: moves functions to temporary slugs, for renames and swaps.
- `rollout_gate`: stops a pass after a failed canary or too many failures.
- `function_users`: looks up what uses the functions that are to be deleted.

The package uses the steps of `kapso_sync.reconcile.plan`, the API and the state folder through `kapso_sync.model.ports`, and
reports through `kapso_sync.model.events`.
"""
