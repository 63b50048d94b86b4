"""Measure what building TypeScript costs: all of it, nothing of it, and one module that many functions share."""

from __future__ import annotations

from pathlib import Path

from benchmarks.options import Options
from benchmarks.others import ESBUILD_MISSING, find_esbuild
from benchmarks.processes import interleaved, program, run, seconds
from benchmarks.rows import Baseline, Limit, Row
from benchmarks.scene import scene, write_javascript_like, write_typescript

GROUP = "builds"


def rows(options: Options) -> list[Row]:
    """Return the rows of builds."""
    count, esbuild = options.built, find_esbuild()
    if esbuild is None:
        return [Row(GROUP, f"build {count} TypeScript functions", skipped=ESBUILD_MISSING)]
    folder = options.scratch / "builds"
    with scene(folder) as there, scene(folder / "javascript") as beside:
        functions, plain = there.functions, beside.functions
        write_typescript(functions, count)
        write_javascript_like(functions, plain, count)
        environment, everything = there.environment(), _esbuild(esbuild, functions, folder / "out")
        # `validate` keeps nothing of what it builds, so each run here is a first one.
        cold = interleaved(
            options.runs,
            {"ours": lambda: run(program("validate", str(functions)), environment), "esbuild": lambda: run(everything)},
        )
        there.sync()
        beside.sync()
        warm = interleaved(
            options.runs,
            {
                "typescript": lambda: run(program("validate", str(functions)), environment),
                "javascript": lambda: run(program("validate", str(plain)), beside.environment()),
            },
        )
        with (functions / "lib" / "rare.ts").open("a", encoding="utf-8") as file:
            file.write("export const more = 1;\n")
        users = [path for number, path in enumerate(sorted(functions.glob("*.ts"))) if number % 10 == 0]
        some = _esbuild(esbuild, functions, folder / "out", users)
        shared = interleaved(
            options.runs, {"ours": lambda: run(program("validate", str(functions)), environment), "esbuild": lambda: run(some)}
        )
    after_restart, plain_one = seconds(warm["typescript"]), Baseline("plain JavaScript", seconds(warm["javascript"]))
    return [
        Row(
            GROUP,
            f"build {count} TypeScript functions",
            seconds(cold["ours"]),
            Baseline("esbuild alone", seconds(cold["esbuild"])),
            Limit(5),
            "esbuild bundles them all in one process; nothing else is done",
        ),
        Row(GROUP, "… once more, after a restart", after_restart, plain_one, Limit(0.5), "a folder that needs no build"),
        Row(
            GROUP,
            "… beside JavaScript of the same size",
            after_restart,
            plain_one,
            Limit(1.05, of_ratio=True),
            "no more than what needs no build; 5 % for noise",
        ),
        Row(
            GROUP,
            "… a module changed that every tenth imports",
            seconds(shared["ours"]),
            Baseline("esbuild alone", seconds(shared["esbuild"])),
            Limit(2),
            "esbuild on those that import it",
        ),
    ]


def _esbuild(esbuild: Path, functions: Path, out: Path, files: list[Path] | None = None) -> list[str]:
    paths = sorted(functions.glob("*.ts")) if files is None else files
    return [str(esbuild), "--bundle", "--format=esm", f"--outdir={out}", "--log-level=error", *map(str, paths)]
