"""Planning: compare git with Kapso and compute one step for each function; no I/O.

- `planner`: makes the plan, one step for each function.
- `observed`: Kapso's list and the state of this pass; decides which owner a function has.
- `intents`: resolves writes whose result was not confirmed.
- `comparison`: three-way comparison of one function, diffs, and whether the stored code is live.
- `renames`: decides which function takes which slug (``moved_from``).
- `secrets`: computes which secrets to set, change and remove.
- `code_style`: chooses between script code and module code.
- `similarity`: measures how many lines two pieces of code share.
- `deletion_grace`: records how long functions are missing from git, and finds possible renames.
- `function_usage`: decides whether a used function may be deleted.
- `guard`: blocks deletions and recreations that look like a mistake.
- `warnings`: makes the notices of a plan.

The package uses `kapso_sync.model`. `kapso_sync.reconcile.apply` carries the plan out.
"""
