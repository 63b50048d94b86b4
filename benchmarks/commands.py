"""Measure single commands on a folder that is in sync, beside what others need for the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from benchmarks.options import Options
from benchmarks.others import kapso_environment, pinned, write_zone
from benchmarks.processes import Run, importing, interleaved, megabytes, program, run, script, seconds
from benchmarks.rows import Baseline, Limit, Row, Sample, Unit
from benchmarks.scene import Scene, copied, scene, slugs, write_functions

GROUP = "commands"
ALONE = "its libraries imported"

PUSHED = 100
"""Functions that Kapso's CLI pushes: it reads one page of the list, and would create again what is on the second."""

LIBRARIES = "asyncio, click, httpx, msgspec, regex, sqlite3, tree_sitter, yaml"
"""What a command cannot do without: HTTP, the manifest and its rules, the state, and the grammar of the code."""

FIRST_CALL = "start-up, and a look at the folder's state"
NO_URL = "its command line cannot be given another URL; the classes behind `kapso push` can, and are what runs here"


def rows(options: Options) -> list[Row]:
    """Return the rows of start-up, of commands that find everything in sync, and of Kapso's own CLI."""
    return [*_start_up(options), *_in_sync(options), *_kapso_cli(options)]


def _start_up(options: Options) -> list[Row]:
    found = interleaved(
        options.runs * 2, {"version": lambda: run(program("version")), "python": lambda: run([sys.executable, "-c", "pass"])}
    )
    beside = Baseline("python -c pass", seconds(found["python"]))
    return [Row(GROUP, "version", seconds(found["version"]), beside, Limit(0.1), "the interpreter's own start")]


def _in_sync(options: Options) -> list[Row]:
    count = options.functions
    with scene(options.scratch / "in-sync") as there:
        write_functions(there.functions, count)
        there.sync()
        found = _measured(options, there)
        before = len(there.calls())
        run(program("sync", str(there.functions)), there.environment())
        calls = len(there.calls()) - before
        first_calls = _first_calls(options, there)
    pages = -(-count // 100)
    beside = {name: Baseline(name, seconds(runs)) for name, runs in found.items()}
    plan, sync = found["plan"], found["sync"]
    stat, listing = beside["stat of the files"], beside["list of all pages"]
    return [
        Row(
            GROUP,
            f"plan, {count} functions",
            seconds(plan),
            listing,
            None,
            "start-up, the list of all pages, stat of the files",
        ),
        Row(GROUP, "… beside stat of the files", seconds(plan), stat, None, "it also reads them, and the manifest"),
        Row(
            GROUP,
            f"… beside {ALONE}",
            seconds(plan),
            beside[ALONE],
            None,
            "the code of kapso-sync itself is imported, too",
        ),
        Row(
            GROUP,
            "… memory",
            megabytes(plan),
            Baseline(ALONE, megabytes(found[ALONE])),
            Limit(65),
            "interpreter, libraries, and the code of both sides",
        ),
        Row(
            GROUP,
            "plan where nothing has changed since the last sync",
            seconds(found["plan again"]),
            listing,
            None,
            "the list of all pages, and every file is read; the rest is known",
        ),
        Row(GROUP, "… memory", megabytes(found["plan again"]), Baseline(ALONE, megabytes(found[ALONE]))),
        Row(GROUP, "… beside git status", seconds(plan), beside["git status"], None, "the same folder, committed; no network"),
        _octodns_row(options, plan, beside),
        Row(GROUP, "plan after an edit, to its first API call", first_calls["plan"], None, Limit(0.25), FIRST_CALL),
        Row(GROUP, "sync after an edit, to its first API call", first_calls["sync"], None, Limit(0.25), FIRST_CALL),
        Row(
            GROUP, "… of a plan that is made as a whole", first_calls["whole plan"], None, None, "everything is loaded by then"
        ),
        Row(
            GROUP,
            f"sync without a change, {count} functions",
            seconds(sync),
            beside["list, hash, compare"],
            Limit(1.4, of_ratio=True),
            "the same by hand in one process: no manifest, no ownership, no state",
        ),
        Row(GROUP, "… memory", megabytes(sync), Baseline("list, hash, compare", megabytes(found["list, hash, compare"]))),
        Row(
            GROUP,
            "… made as a whole",
            seconds(found["whole sync"]),
            beside["list, hash, compare"],
            None,
            "as after a change: manifest, ownership, state and plan",
        ),
        Row(
            GROUP,
            "… API calls",
            Sample.of([calls], Unit.COUNT),
            Baseline("pages of 100", Sample.of([pages], Unit.COUNT)),
            Limit(pages),
            "a page of the list each, and nothing else",
        ),
    ]


def _measured(options: Options, there: Scene) -> dict[str, list[Run]]:
    functions, environment = str(there.functions), there.environment()
    # The last pass brought the functions there, and this one finds them in sync.
    run(program("sync", functions), environment)
    repository = copied(there.functions, options.scratch / "status")
    actions = {
        "plan": lambda: run(program("plan", functions), there.whole()),
        "plan again": lambda: run(program("plan", functions), environment),
        "sync": lambda: run(program("sync", functions), environment),
        "list, hash, compare": lambda: run(script("list_hash_compare", functions, there.url, there.kapso.key)),
        "list of all pages": lambda: run(script("list_pages", there.url, there.kapso.key)),
        "stat of the files": lambda: run(script("stat_files", functions)),
        "git status": lambda: run(["git", "status", "--porcelain"], folder=repository),
        ALONE: lambda: run(importing(LIBRARIES)),
    }
    if not options.others.missing:
        config = write_zone(options.scratch / "octodns", options.functions)
        actions["octodns-sync"] = lambda: run(options.others.octodns_plan(config))
    found = interleaved(options.runs, actions)
    # After such a pass the next one is made as a whole, too, so these have to come last.
    whole = program("sync", functions, "--overwrite", slugs(1)[0])
    return {**found, **interleaved(options.runs, {"whole sync": lambda: run(whole, environment)})}


def _first_calls(options: Options, there: Scene) -> dict[str, Sample]:
    """Return the seconds from the start of commands to their first API call, by the time at which the emulator received it."""
    edited, functions, environment = there.functions / f"{slugs(1)[0]}.js", str(there.functions), there.environment()

    def first_call(command: str, environment: Mapping[str, str]) -> float:
        seen, started = len(there.calls()), datetime.now(UTC)
        subprocess.run(program(command, functions), env=environment, capture_output=True, check=True)
        return (there.calls()[seen].time - started).total_seconds()

    def after_an_edit(command: str) -> float:
        # The first sync deploys what was edited before, and the second one finds everything in sync.
        run(program("sync", functions), environment)
        run(program("sync", functions), environment)
        with edited.open("a", encoding="utf-8") as file:
            file.write("// edited\n")
        return first_call(command, environment)

    found = interleaved(
        options.runs,
        {
            "plan": lambda: after_an_edit("plan"),
            "sync": lambda: after_an_edit("sync"),
            "whole plan": lambda: first_call("plan", there.whole()),
        },
    )
    return {name: Sample.of(taken) for name, taken in found.items()}


def _octodns_row(options: Options, plan: list[Run], beside: dict[str, Baseline]) -> Row:
    name = f"… beside octoDNS, {options.functions} records"
    if options.others.missing:
        return Row(GROUP, name, skipped=options.others.missing)
    return Row(
        GROUP, name, seconds(plan), beside["octodns-sync"], None, "a plan without a change, from YAML to YAML; no network"
    )


def _kapso_cli(options: Options) -> list[Row]:
    name = f"the same {PUSHED} functions again, beside Kapso's CLI"
    if options.others.missing:
        return [Row(GROUP, name, skipped=options.others.missing)]
    home = options.scratch / "home"
    home.mkdir()
    with scene(options.scratch / "ours") as ours, scene(options.scratch / "theirs") as theirs:
        for there in (ours, theirs):
            write_functions(there.functions, PUSHED)
        ours.sync()
        push, environment = options.others.kapso_push(theirs.functions, theirs.url), kapso_environment(theirs, home)
        run(push, environment)
        before = len(ours.calls()), len(theirs.calls())
        found = interleaved(
            options.runs,
            {
                "ours": lambda: run(program("sync", str(ours.functions)), ours.environment()),
                "theirs": lambda: run(push, environment),
            },
        )
        calls = (len(ours.calls()) - before[0]) // options.runs, (len(theirs.calls()) - before[1]) // options.runs
    beside = f"kapso {pinned('kapso')}, push"
    return [
        Row(GROUP, name, seconds(found["ours"]), Baseline(beside, seconds(found["theirs"])), None, NO_URL),
        Row(
            GROUP,
            "… API calls",
            Sample.of([calls[0]], Unit.COUNT),
            Baseline(beside, Sample.of([calls[1]], Unit.COUNT)),
            None,
            "it lists, writes and deploys each function every time, one after the other, and awaits no deployment",
        ),
    ]
