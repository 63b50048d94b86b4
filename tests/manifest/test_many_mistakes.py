"""A small file with tens of thousands of mistakes costs neither minutes nor gigabytes, and says the first ones."""

from __future__ import annotations

import time

import pytest

from kapso_sync.errors import MAX_PROBLEMS, ManifestInvalid
from kapso_sync.manifest import read_manifest
from kapso_sync.manifest.schema import MAX_ENVIRONMENTS
from tests.manifest.folder import folder, problems_of, read


def test_the_first_mistakes_are_shown_and_the_others_counted() -> None:
    """On one line as well as on many, and none of them quotes the whole line."""
    keys = [f"k{number}: 1" for number in range(3000)]
    for text in (f"{{version: 1, {', '.join(keys)}}}", "version: 1\n" + "".join(f"{key}\n" for key in keys)):
        problems = problems_of(text)
        assert len(problems) == MAX_PROBLEMS + 1
        assert problems[0].message == "k0: unknown key"
        assert problems[-1].message == "and 2900 more mistakes, which are not shown"
        assert max(len(problem.frame or "") for problem in problems) < 500
        with pytest.raises(ManifestInvalid, match="and 2999 more"):
            read(text)


def test_a_mistake_far_to_the_right_is_shown_with_its_surroundings() -> None:
    """The caret stands below it."""
    line = "{version: 1, functions: {greet: {description: '" + "x" * 1000 + "', colour: red}}}"
    (problem,) = problems_of(line)
    assert problem.frame is not None
    shown, caret = problem.frame.split("\n")
    assert shown[caret.index("^") :].startswith("colour: red")


def test_a_function_folder_counts_its_mistakes_too() -> None:
    """A ``function.yaml`` has the same limit, and fails only its own function."""
    manifest = read_manifest(folder({"greet/function.yaml": "".join(f"&a{n} k{n}: 1\n" for n in range(300))}))
    assert len(manifest.broken["greet"]) == MAX_PROBLEMS + 1


def test_a_manifest_has_a_limited_number_of_environments() -> None:
    """Whichever holds, all of them are checked, each against the whole manifest."""
    few, many = ("".join(f"  e{number}: {{}}\n" for number in range(count)) for count in (MAX_ENVIRONMENTS, 5000))
    start = "version: 1\nfunctions:\n  greet:\nenvironments:\n"
    assert problems_of(start + few) == ()
    (problem,) = problems_of(start + many)
    assert problem.message == f"environments: expected at most {MAX_ENVIRONMENTS}, got 5000"


def test_many_entries_without_their_files_are_looked_up_once_each() -> None:
    """Names that differ only by case are still recognised among thousands of files."""
    files = {f"f{number}.js": "" for number in range(2000)}
    entries = "".join(f"  k{number}: {{file: F{number}.js}}\n" for number in range(2000))
    snapshot = folder({"manifest.yaml": f"version: 1\nfunctions:\n{entries}", **files})
    started = time.process_time()
    manifest = read_manifest(snapshot)
    assert manifest.broken["k7"][0].hint == "there is f7.js: names are compared exactly"
    assert time.process_time() - started < 10


def test_a_path_that_no_file_system_takes_is_refused_at_once() -> None:
    """Each folder above a missing file is looked up; the path itself may be most of the manifest."""
    text = "version: 1\nfunctions:\n  greet: {file: " + "a/" * 200_000 + "b.js}\n"
    started = time.process_time()
    manifest = read_manifest(folder({"manifest.yaml": text}))
    (problem,) = manifest.broken["greet"]
    assert problem.message.endswith("is longer than 4096 characters")
    assert len(problem.message) < 500
    assert time.process_time() - started < 10


def test_a_mistake_of_yaml_hides_no_other_one() -> None:
    """Where it stands nothing else is said; everywhere else all is told at once, in order."""
    text = (
        "version: 1\n"
        "functions:\n"
        "  hello:\n"
        "    minify: yes\n"
        "    protectd: true\n"
        "    <<: {a: 1}\n"
        "    name: &anchor 5\n"
        "    name: again\n"
        "    checks: {expect: 1}\n"
    )
    said = [f"{problem.location}: {problem.code}" for problem in problems_of(text)]
    assert said == [
        "manifest.yaml:4:13: value",
        "manifest.yaml:5:5: unknown-key",
        "manifest.yaml:6:5: merge",
        "manifest.yaml:7:11: anchor",
        "manifest.yaml:8:5: duplicate-key",
        "manifest.yaml:9:13: value",
    ]
    cut = problems_of(text + "  broken: {")
    assert [problem.code for problem in cut][-1] == "syntax"
    assert "unknown-key" not in [problem.code for problem in cut], "what is not read to its end is not judged"
