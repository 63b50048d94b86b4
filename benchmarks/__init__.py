"""Measure what kapso-sync costs, beside what bounds each figure; ``make bench`` runs it.

A *group* measures rows that share a set-up: `commands`, `growth`, `builds`, `daemon`, `deployments`, `rate`, `idle`. A *row* is
one figure with its spread, what it is compared with, its limit, and what bounds it (`rows`). `report` prints them. Everything
runs on loopback against the emulator, in processes of their own, since users pay for start-up and memory too.
"""
