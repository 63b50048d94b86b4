"""Carries a plan out; nothing else in the program writes to Kapso.

`executor` runs the steps of a plan, and `function` one step from the write to the last check. `writer` writes a record,
`deployer` deploys it, `deployment_poller` waits for deployments, `secrets` sets secrets, `checks` runs checks. `slug_parking`
makes room in swaps, `rollout_gate` stops a rollout, `function_users` finds the users of functions to delete. The package `plan`
has decided before what each step means.
"""
