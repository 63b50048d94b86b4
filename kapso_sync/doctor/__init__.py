"""Examines the set-up: `setup` the local machine, `api_questions` what an API base does where its documentation is open.

The answers become the `ApiFacts` of the base, which `reconcile.plan` uses in place of guesses. `wiring.doctor` builds it, and
`cli.doctor` prints it.
"""
