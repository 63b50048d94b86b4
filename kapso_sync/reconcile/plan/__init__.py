"""Decides what a pass does. Every module is pure: values in, values out, no I/O, no loop, no clock.

`planner` makes the plan and `guard` blocks what looks like a disaster. `observed` holds what Kapso showed, `intents` resolves
writes whose answer was lost, `comparison` compares one function three ways, and `steps` turns a comparison into a step.
`renames`, `deletion_grace`, `similarity` and `function_usage` decide about functions that move or leave; `secrets` and
`code_style` decide what is sent; `warnings` collects what people should know. The package `apply`, beside this one, carries the
plan out.
"""
