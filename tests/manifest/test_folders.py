"""Where code comes from: files of entries, folders of the Kapso CLI, and unlisted files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kapso_sync.errors import ManifestInvalid
from kapso_sync.manifest import read_manifest, unlisted_files
from kapso_sync.model.source import Revision, SourceFile
from tests.manifest.folder import CODE, folder, problems_of, read

FUNCTION = "name: Greet\nslug: greet\nentrypoint: main.js\n"


def test_folders_of_the_kapso_cli_need_no_manifest() -> None:
    """Slug, code and fields come from ``function.yaml``; keys that Kapso ignores are a warning."""
    manifest = read_manifest(
        folder(
            {
                "greet/function.yaml": f"{FUNCTION}description: Says hello.\nruntime: nodejs\ntimeout: 30\nslgu: x\n",
                "greet/main.js": CODE,
                "greet/main.test.js": "not a function",
                "part/function.yaml": "name: Part\nruntime: nodejs\n",
                "part/index.js": CODE,
                "kind/function.yaml": "name: Kind\n",
                "kind/index.ts": CODE,
            }
        )
    )
    assert not manifest.present
    assert [(entry.slug, entry.file) for entry in manifest.entries] == [
        ("greet", "greet/main.js"),
        ("kind", "kind/index.ts"),
        ("part", "part/index.js"),
    ]
    assert manifest.entries[0].fields == {"name": "Greet", "description": "Says hello."}
    assert [notice.message for notice in manifest.notices] == [
        "`runtime` has no effect on Kapso, and in 1 more",
        "`timeout` has no effect on Kapso",
        "`slgu` is not known; did you mean `slug`?",
    ]


def test_a_manifest_entry_adds_keys_to_a_cli_folder() -> None:
    """Defaults apply to it, and an entry without ``file`` adds keys; code from both is refused."""
    files = {"greet/function.yaml": FUNCTION, "greet/main.js": CODE}
    head = "version: 1\ndefaults: {public_endpoint: false}\n"
    manifest = read_manifest(folder({**files, "manifest.yaml": f"{head}functions: {{greet: {{protected: true}}}}\n"}))
    (entry,) = manifest.entries
    assert (entry.file, entry.protected) == ("greet/main.js", True)
    assert entry.fields == {"name": "Greet", "public_endpoint": False}
    (alone,) = read_manifest(folder({**files, "manifest.yaml": head})).entries
    assert alone.fields == {"name": "Greet", "public_endpoint": False}
    with pytest.raises(ManifestInvalid, match=r"its code is given here and by greet/function\.yaml"):
        read_manifest(folder({**files, "x.js": CODE, "manifest.yaml": f"{head}functions: {{greet: {{file: x.js}}}}\n"}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "not valid YAML"),
        ("name: 5", "name: expected text, got 5"),
        ("slug: Not A Slug", "expected a slug"),
        ("entrypoint: ../../etc/passwd", "leads out of the folder"),
        ("entrypoint: /etc/passwd", "is absolute"),
        ("entrypoint: gone.js", "greet/gone.js does not exist"),
    ],
)
def test_a_broken_cli_folder_fails_only_its_function(text: str, said: str) -> None:
    """The others go on."""
    manifest = read_manifest(
        folder({"greet/function.yaml": text, "greet/index.js": CODE, "part/function.yaml": "name: Part", "part/index.js": CODE})
    )
    assert [entry.slug for entry in manifest.entries] == ["part"]
    (problems,) = manifest.broken.values()
    assert said in str(problems[0])


def test_two_cli_folders_with_one_slug_are_both_refused() -> None:
    """Choosing one would be a guess; a folder whose name is not a slug is refused too."""
    same = {"a/function.yaml": "slug: same", "a/index.js": CODE, "b/function.yaml": "slug: same", "b/index.js": CODE}
    manifest = read_manifest(folder({**same, "No Slug/function.yaml": "name: x", "No Slug/index.js": CODE}))
    assert not manifest.entries
    assert set(manifest.broken) == {"same", "No Slug"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../x.js", "leads out of the folder"),
        ("a/../../x.js", "leads out of the folder"),
        ("/etc/passwd", "is absolute"),
        ("C:/x.js", "is absolute"),
        ("a\\\\b.js", "has a backslash"),
        ("a\\tb.js", "has a control character"),
        (".", "names no file"),
        ("gone.js", "gone.js does not exist"),
    ],
)
def test_a_path_outside_the_folder_fails_only_its_function(path: str, said: str) -> None:
    """Absolute paths, parent folders and the like."""
    manifest = read(f'version: 1\nfunctions:\n  bad: {{file: "{path}"}}\n  greet:\n')
    assert [entry.slug for entry in manifest.entries] == ["greet"]
    assert said in str(manifest.broken["bad"][0])
    assert str(manifest.broken["bad"][0]).startswith("manifest.yaml:3:15: functions.bad")


def test_an_unreadable_file_fails_only_its_function() -> None:
    """Too large, a symlink out, a submodule: with the source's message."""
    link = SourceFile("bad.js", None, "is a symbolic link, which is not followed in a repository")
    manifest = read_manifest(
        folder({"manifest.yaml": "version: 1\nfunctions:\n  bad:\n  greet:\n", "bad.js": link, "greet.js": CODE})
    )
    assert "bad.js is a symbolic link" in str(manifest.broken["bad"][0])
    assert [entry.slug for entry in manifest.entries] == ["greet"]


def test_file_names_that_differ_by_case_or_unicode_form_only_are_refused() -> None:
    """Some file systems confuse them; a name in another case gets a hint."""
    manifest = read_manifest(
        folder(
            {
                "manifest.yaml": "version: 1\nfunctions:\n  greet:\n  other: {file: OTHER.js}\n",
                "greet.js": CODE,
                "Greet.js": CODE,
                "other.js": CODE,
            }
        )
    )
    assert "greet.js and Greet.js differ only by case or Unicode form" in str(manifest.broken["greet"][0])
    assert manifest.broken["other"][0].hint == "there is other.js: names are compared exactly"


def test_the_file_key_may_be_omitted_only_if_one_file_matches() -> None:
    """With several files or none it must be given."""
    both = read_manifest(folder({"manifest.yaml": "version: 1\nfunctions:\n  a:\n  b:\n", "a.js": CODE, "a.ts": CODE}))
    assert "both a.ts and a.js exist" in str(both.broken["a"][0])
    assert "neither b.ts nor b.js exists" in str(both.broken["b"][0])


def test_a_deleted_manifest_is_an_error() -> None:
    """Its absence would otherwise mean: delete every function."""
    files = folder({"greet/function.yaml": FUNCTION, "greet/main.js": CODE})
    assert read_manifest(files).entries
    with pytest.raises(ManifestInvalid, match="the manifest of the last revision is gone") as raised:
        read_manifest(files, expected=True)
    assert "kapso-sync init" not in str(raised.value.problems[0].hint), "nobody can write files into a commit"
    with pytest.raises(ManifestInvalid) as raised:
        read_manifest(replace(files, revision=Revision("folder:c0ffee")), expected=True)
    assert "kapso-sync init" in str(raised.value.problems[0].hint)
    with pytest.raises(ManifestInvalid, match=r"and no folder with a function\.yaml"):
        read_manifest(folder({"greet.js": CODE}))


def test_two_manifests_in_one_folder_are_refused() -> None:
    """Choosing one would be a guess."""
    with pytest.raises(ManifestInvalid, match=r"there are manifest\.yaml and manifest\.json"):
        read_manifest(folder({"manifest.yaml": "version: 1", "manifest.json": "{}"}))


def test_unlisted_code_files_are_a_warning() -> None:
    """One warning with their number; tests, type declarations, configuration and CLI folders are not unlisted."""
    names = [f"stray{number:02d}.js" for number in range(12)]
    files = dict.fromkeys(names, CODE) | {
        "greet.js": CODE,
        "greet.test.js": CODE,
        "types.d.ts": "",
        "vitest.config.ts": "",
        "cli/function.yaml": "name: x",
        "cli/index.js": CODE,
        "cli/helper.js": CODE,
        "data.json": "{}",
    }
    (notice,) = unlisted_files(folder(files), frozenset({"greet.js"}))
    assert notice.code == "unlisted-file"
    assert notice.message.startswith("12 code files are named by no entry: stray00.js, stray01.js")
    assert notice.message.endswith("stray09.js and 2 more")
    assert unlisted_files(folder({"greet.js": CODE}), frozenset({"greet.js"})) == ()


def test_an_empty_functions_key_means_no_functions() -> None:
    """The guard decides whether an empty source is allowed."""
    assert read("version: 1\nfunctions: {}\n").entries == ()
    assert read("version: 1\n").entries == ()
    assert problems_of("version: 1\nfunctions:\n")


def test_the_hint_for_a_missing_manifest_holds_one_that_works() -> None:
    """The text between the first backticks, saved as it stands, declares the function whose file the hint names."""
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(folder({"hello.txt": "no code"}))
    (problem,) = caught.value.problems
    assert problem.hint is not None
    _, smallest, rest = problem.hint.split("`", 2)
    assert "hello.js" in rest
    manifest = read_manifest(folder({"manifest.yaml": smallest, "hello.js": CODE}))
    assert [(entry.slug, entry.file) for entry in manifest.entries] == [("hello", "hello.js")]


@pytest.mark.parametrize("home", ["functions", "apps/shop/functions"])
def test_the_functions_folder_of_a_project_further_down_is_named(home: str) -> None:
    """Whoever names the root of a repository with several projects is told which folder declares functions."""
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(folder({f"{home}/manifest.yaml": "version: 1\nfunctions: {hello: {}}\n", f"{home}/hello.js": CODE}))
    (problem,) = caught.value.problems
    assert problem.hint == f"there is one in {home}: name that folder as the source"
