"""Errors and warnings about a value name its line and column, in manifests and in ``function.yaml``."""

from __future__ import annotations

import pytest

from kapso_sync.errors import Problem
from kapso_sync.manifest import read_manifest
from kapso_sync.model.desired import Manifest
from kapso_sync.model.source import SourceFile
from tests.manifest.folder import CODE, folder

SUBMODULE = SourceFile("vendor", None, "is a submodule, which is not followed")
LINK = SourceFile("shared", None, "is a symbolic link, which is not followed in a repository")


def the_problem(manifest: Manifest, slug: str) -> Problem:
    (problem,) = manifest.broken[slug]
    return problem


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("../greet.js", "functions.greet.file: '../greet.js' leads out of the folder"),
        ("/srv/greet.js", "functions.greet.file: '/srv/greet.js' is absolute"),
        ("lib/gone.js", "functions.greet: lib/gone.js does not exist"),
        ("Greet.js", "functions.greet: Greet.js does not exist"),
        ("big.js", "functions.greet: big.js is 2 MiB"),
        ("words.wasm", "functions.greet: words.wasm is of a kind that is not read"),
        ("data/rates.csv", "functions.greet: data/rates.csv is of a kind that is not read"),
        ("lib", "functions.greet: lib is a folder"),
        ("vendor/greet.js", "functions.greet: vendor/greet.js is not read: vendor is a submodule, which is not followed"),
        ("shared/a/b.js", "functions.greet: shared/a/b.js is not read: shared is a symbolic link"),
        ("node_modules/x/index.js", "functions.greet: node_modules/x/index.js is not read, since node_modules is left out"),
        (".build/greet.js", "functions.greet: .build/greet.js is not read, since .build is left out"),
    ],
)
def test_a_file_that_cannot_be_used_is_reported_at_its_value(file: str, said: str) -> None:
    """Not at the entry's key, two lines above it; and what is there is not said to be absent."""
    files: dict[str, str | bytes | SourceFile] = {
        "manifest.yaml": f"version: 1\nfunctions:\n  greet:\n    name: Greet\n    file:   {file}\n",
        "greet.js": CODE,
        "lib/a.js": CODE,
        "big.js": SourceFile("big.js", None, "is 2 MiB; the limit for a code file is 1 MiB"),
        "vendor": SUBMODULE,
        "shared": LINK,
    }
    problem = the_problem(read_manifest(folder(files, ["words.wasm", "data/rates.csv"])), "greet")
    assert str(problem).startswith(f"manifest.yaml:5:13: {said}")
    assert problem.frame == f"   5 |     file:   {file}\n{' ' * 19}^"


@pytest.mark.parametrize(
    ("entrypoint", "said"), [("../x.js", "leads out of the folder"), ("main.js", "greet/main.js does not exist")]
)
def test_an_entrypoint_that_cannot_be_used_is_reported_at_its_value(entrypoint: str, said: str) -> None:
    """In the folder's own file, whether the manifest adds keys to the folder or not."""
    files = {"greet/function.yaml": f"name: Greet\nentrypoint: {entrypoint}\n", "greet/index.js": CODE}
    with_keys = {**files, "manifest.yaml": "version: 1\nfunctions:\n  greet: {protected: true}\n"}
    for given in (files, with_keys):
        problem = the_problem(read_manifest(folder(given)), "greet")
        assert str(problem).startswith("greet/function.yaml:2:13: ")
        assert said in problem.message


def test_two_folders_of_one_slug_are_reported_at_the_slug() -> None:
    """The second file is the one that a person has just copied."""
    files = {f"{name}/function.yaml": "name: x\nslug: greet\n" for name in ("a", "b")} | {
        "a/index.js": CODE,
        "b/index.js": CODE,
    }
    assert str(the_problem(read_manifest(folder(files)), "greet")).startswith("b/function.yaml:2:7: two folders")


MANIFEST = """version: 1
defaults:
  runtime_config:
    nodeVersion: 20
  secrets:
    SHARED: {env: SHARED}
functions:
  greet:
    description: >-
      Says hello. [kapso-sync:acme/flows#000000]
    deploy: false
    secrets:
      OWN: {file: own}
      KEY: {value: sk_live_abcdefghijklmnop}
"""


def test_secrets_have_the_place_of_their_value_also_where_the_defaults_name_them() -> None:
    """A missing value is reported there."""
    own = read_manifest(folder({"manifest.yaml": MANIFEST, "greet.js": CODE})).entries[0].secret_locations
    assert {name: str(place) for name, place in own.items()} == {
        "OWN": "manifest.yaml:13:12",
        "KEY": "manifest.yaml:14:12",
    }
    inherited = MANIFEST.partition("    secrets:\n      OWN")[0]
    (entry,) = read_manifest(folder({"manifest.yaml": inherited, "greet.js": CODE})).entries
    assert {name: str(place) for name, place in entry.secret_locations.items()} == {"SHARED": "manifest.yaml:6:13"}


def test_warnings_about_values_have_the_place_of_the_value() -> None:
    """The description's mark, a key of the defaults, a credential, and secrets that wait."""
    manifest = read_manifest(folder({"manifest.yaml": MANIFEST, "greet.js": CODE}))
    assert {notice.code: str(notice.location) for notice in manifest.notices} == {
        "mark-in-text": "manifest.yaml:9:18",
        "camel-case": "manifest.yaml:4:18",
        "not-applied": "manifest.yaml:13:7",
        "credential-value": "manifest.yaml:14:12",
    }
