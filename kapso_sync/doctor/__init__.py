"""Examines the set-up: `setup` checks the local machine, `api_questions` asks an API base what its documentation leaves open.

The answers become the `ApiFacts` of the base, which `reconcile.plan` uses in place of guesses. `wiring.doctor` builds it, and
`cli.doctor` prints it.
"""
