"""Files whose names are nearly those of a manifest or a ``function.yaml``: a warning, and no deletion meanwhile."""

from __future__ import annotations

import pytest

from kapso_sync.errors import ManifestInvalid
from kapso_sync.manifest import read_manifest
from tests.manifest.folder import CODE, folder

GOOD = {"good/function.yaml": "name: Good\n", "good/index.js": CODE}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("greet/function.yml", "did you mean function.yaml?"),
        ("greet/Function.yaml", "did you mean function.yaml?"),
        ("greet/FUNCTION.YAML", "did you mean function.yaml?"),
        ("greet/functions.yaml", "did you mean function.yaml?"),
        ("greet/fuction.yaml", "did you mean function.yaml?"),
        ("greet/function.ymal", "did you mean function.yaml?"),
        ("greet/function.yaml.txt", "did you mean function.yaml?"),
        ("greet/function.json", "did you mean function.yaml?"),
        ("greet/function", "did you mean function.yaml?"),
        ("function.yaml", "counts in a folder of its own"),
        ("function.yml", "counts in a folder of its own"),
        ("group/greet/function.yaml", "counts in a folder directly below the functions folder"),
        ("a/b/c/function.yml", "counts in a folder directly below the functions folder"),
        ("Manifest.yaml", "did you mean manifest.yaml?"),
        ("MANIFEST.YML", "did you mean manifest.yml?"),
        ("manifests.yaml", "did you mean manifest.yaml?"),
        ("manifset.yaml", "did you mean manifest.yaml?"),
        ("manifest.yaml.txt", "did you mean manifest.yaml?"),
        ("manifest.toml", "did you mean manifest.yaml?"),
        ("manifest", "did you mean manifest.yaml?"),
        ("functions.yaml", "did you mean manifest.yaml?"),
    ],
)
@pytest.mark.parametrize("kind", ["read", "of another kind"])
def test_a_nearly_right_name_is_a_warning_and_may_declare_a_function(path: str, meant: str, kind: str) -> None:
    """Whether the file is text that code may import, or of a kind that is never read."""
    files = {**GOOD, **({path: "name: x\n"} if kind == "read" else {})}
    manifest = read_manifest(folder(files, [path] if kind != "read" else []))
    (notice,) = [notice for notice in manifest.notices if notice.code == "misnamed-file"]
    assert notice.message.startswith(f"{path} is not read: ")
    assert meant in notice.message
    assert manifest.misnamed == (notice.message,)
    assert [entry.slug for entry in manifest.entries] == ["good"]


@pytest.mark.parametrize(
    "path",
    [
        "greet/config.yaml",
        "greet/function.yaml.bak",
        "greet/function.test.yaml",
        "greet/my-function.yaml",
        "good/fixtures/function.yaml",
        "good/fixtures/function.yml",
        "assets/manifest.json",
        "manifest.example.yaml",
        "main.yaml",
        "function.js",
        "functions.json",
    ],
)
def test_other_names_are_none_of_ours(path: str) -> None:
    """Backups, other tools' files, and what belongs to a function that is read."""
    manifest = read_manifest(folder({**GOOD, path: "x"}))
    assert not [notice for notice in manifest.notices if notice.code == "misnamed-file"]
    assert manifest.misnamed == ()


def test_a_second_file_beside_the_right_one_is_a_warning_alone() -> None:
    """What it may declare is declared already, so nothing waits for it."""
    manifest = read_manifest(
        folder({**GOOD, "good/function.yml": "name: x\n", "manifest.yaml": "version: 1\n", "Manifest.yaml": "version: 1\n"})
    )
    assert len([notice for notice in manifest.notices if notice.code == "misnamed-file"]) == 2
    assert manifest.misnamed == ()


def test_a_file_beside_code_that_the_manifest_names_declares_nothing() -> None:
    """Another tool's description of the same function, in a folder as deep as anybody likes."""
    code = "functions:\n  greet: {file: azure/greet/index.js}\n"
    files = {"manifest.yaml": f"version: 1\n{code}", "azure/greet/index.js": CODE, "azure/greet/function.json": "{}"}
    manifest = read_manifest(folder(files))
    assert not [notice for notice in manifest.notices if notice.code == "misnamed-file"]
    others = read_manifest(folder({**files, "azure/part/function.json": "{}"}))
    assert [notice.message for notice in others.notices if notice.code == "misnamed-file"] == [*others.misnamed]


@pytest.mark.parametrize("expected", [True, False])
def test_without_a_manifest_the_error_names_the_misnamed_one(*, expected: bool) -> None:
    """It is renamed, so the hint must not be to write another."""
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(folder({"Manifest.yaml": "version: 1\n", "greet.js": CODE}), expected=expected)
    (problem,) = caught.value.problems
    assert "Manifest.yaml is not one: did you mean manifest.yaml?" in problem.message
    assert problem.hint == "rename it to manifest.yaml"
