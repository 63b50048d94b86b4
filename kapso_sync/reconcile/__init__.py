"""The reconciler: observe, plan, guard, execute.

`cycle` is the whole pass as one procedure. `planner`, `guard` and `settle` are pure: values in, values out. `executor` is the
only writer, `deployments` follows what it started, and `ports` says what they need of the world.
"""
