"""One manifest for several environments: what is in force in each, and errors in any of them."""

from __future__ import annotations

import pytest

from kapso_sync.errors import ManifestInvalid
from kapso_sync.manifest import read_manifest
from kapso_sync.model.desired import EnvSecret, FileSecret, Manifest
from kapso_sync.model.source import Revision, Snapshot, SourceFile
from tests.manifest.folder import problems_of

CODE = b"async function handler() { return new Response('a'); }\n"

MANIFEST = """\
version: 1
defaults:
  public_endpoint: false
  runtime_config: {timeout: 30, region: eu}
  secrets: {API_KEY: {env: API_KEY}, CERT: {file: cert}}
functions:
  greet: {description: Greets., name: Greet}
  part: {public_endpoint: true}
  report: {deploy: false}
environments:
  staging:
    defaults:
      public_endpoint: true
      runtime_config: {timeout: 5}
    functions:
      greet:
        name: Greet (staging)
        secrets: {API_KEY: {env: STAGING_API_KEY}}
      part: {public_endpoint: false}
      report: false
      probe: {file: probes/probe.js}
  production: {}
"""


def read(text: str, environment: str | None, *extra: tuple[str, bytes]) -> Manifest:
    names = ("greet.js", "part.js", "report.js", "probes/probe.js")
    contents = {"manifest.yaml": text.encode(), **dict.fromkeys(names, CODE), **dict(extra)}
    files = {path: SourceFile(path, content) for path, content in contents.items()}
    return read_manifest(Snapshot("test", Revision("c0ffee"), files=files), environment=environment)


def test_an_environment_overrides_the_manifest() -> None:
    """Its defaults override the defaults, its keys the keys; a function's own key overrides all defaults."""
    greet, part, probe = read(MANIFEST, "staging").entries
    assert greet.fields == {
        "name": "Greet (staging)",
        "description": "Greets.",
        "public_endpoint": True,
        "runtime_config": {"timeout": 5},
    }
    assert (part.fields["public_endpoint"], probe.file) == (False, "probes/probe.js")


def test_secrets_of_an_environment_are_merged_by_name() -> None:
    """Another source for one secret changes no other secret."""
    greet, part, _ = read(MANIFEST, "staging").entries
    assert greet.secrets == {"API_KEY": EnvSecret("STAGING_API_KEY"), "CERT": FileSecret("cert")}
    assert part.secrets == {"API_KEY": EnvSecret("API_KEY"), "CERT": FileSecret("cert")}
    none = MANIFEST.replace("name: Greet}", "name: Greet, secrets: {}}")
    (greet,) = [entry for entry in read(none, "staging").entries if entry.slug == "greet"]
    assert greet.secrets == {"API_KEY": EnvSecret("STAGING_API_KEY")}


@pytest.mark.parametrize("environment", ["production", None])
def test_environments_are_separate_from_each_other(environment: str | None) -> None:
    """An empty environment, or none, is the manifest as it is; files that another environment names are not unlisted."""
    manifest = read(MANIFEST, environment)
    assert [entry.slug for entry in manifest.entries] == ["greet", "part", "report"]
    assert manifest.entries[0].fields["runtime_config"] == {"timeout": 30, "region": "eu"}
    assert {entry.file for entry in manifest.elsewhere} == {"greet.js", "part.js", "report.js", "probes/probe.js"}


def test_a_file_that_is_missing_in_any_environment_is_no_file_to_look_into() -> None:
    """Where it is wanted, that is the function's own problem; the others are read, built and used as ever."""
    text = "version: 1\nfunctions: {gone: {file: gone.js}, greet: {}}\nenvironments: {production: {}}\n"
    manifest = read(text, None)
    assert [problem.code for problem in manifest.broken["gone"]] == ["missing-file"]
    assert {entry.file for entry in (*manifest.entries, *manifest.elsewhere)} == {"greet.js"}


def test_an_environment_can_exclude_or_change_a_cli_folder() -> None:
    """Folders of the Kapso CLI are functions like any other."""
    folders = [(f"{slug}/function.yaml", f"slug: {slug}\nname: {slug}\n".encode()) for slug in ("one", "two")]
    folders += [(f"{slug}/index.js", CODE) for slug in ("one", "two")]
    text = "version: 1\nenvironments:\n  staging:\n    functions:\n      one: null\n      two: {name: Other}\n"
    (two,) = read(text, "staging", *folders).entries
    assert (two.slug, two.file, two.fields) == ("two", "two/index.js", {"name": "Other"})
    assert [entry.slug for entry in read(text, None, *folders).entries] == ["one", "two"]


def test_an_unknown_environment_error_lists_the_known_ones() -> None:
    """Without environments in the manifest the name is only a part of the owner."""
    with pytest.raises(ManifestInvalid) as raised:
        read(MANIFEST, "stagin")
    assert str(raised.value.problems[0]) == "manifest.yaml:10:1: there is no environment `stagin`; known: staging, production"
    assert len(read(MANIFEST.partition("environments:")[0], "stagin").entries) == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "report: false",
            "reprot: false",
            "20:7: environments.staging.functions.reprot: there is no such function to leave out",
        ),
        (
            "part: {public_endpoint: false",
            "part: {pubic_endpoint: false",
            "19:14: environments.staging.functions.part.pubic_endpoint: unknown key",
        ),
        (
            "report: false",
            "report: yes",
            '20:15: environments.staging.functions.report: expected a mapping or false, got "yes"',
        ),
        (
            "report: false",
            "report: true",
            "20:15: environments.staging.functions.report: expected a mapping or false, got true",
        ),
        ("production: {}", "Pro duction: {}", "22:3: environments.Pro duction: expected an environment's name"),
        ("production: {}", "production:", "22:3: environments.production: expected a mapping, got nothing"),
        (
            "name: Greet (staging)",
            "moved_from: greet",
            "17:21: functions.greet.moved_from: it is the function's own slug (in the environment staging)",
        ),
        (
            "public_endpoint: true\n      runtime",
            "rollout: {canary: report}\n      runtime",
            "13:25: defaults.rollout.canary: there is no function `report` (in the environment staging)",
        ),
    ],
)
@pytest.mark.parametrize("environment", [None, "staging"])
def test_an_error_in_one_environment_is_reported_for_all(old: str, new: str, said: str, environment: str | None) -> None:
    """With its place, whichever one is chosen: a pull request must not break production unseen."""
    assert MANIFEST.count(old) == 1
    with pytest.raises(ManifestInvalid) as raised:
        read(MANIFEST.replace(old, new), environment)
    assert str(raised.value.problems[0]).startswith(f"manifest.yaml:{said}")


def test_a_missing_file_is_reported_at_the_environments_value() -> None:
    """The place is that of the value in force."""
    manifest = read(MANIFEST.replace("probes/probe.js", "probes/prope.js"), "staging")
    assert str(manifest.broken["probe"][0]).startswith("manifest.yaml:21:21: functions.probe: probes/prope.js does not exist")
    assert not read(MANIFEST.replace("probes/probe.js", "probes/prope.js"), "production").broken


def test_a_function_that_is_left_out_of_an_environment_is_written_false() -> None:
    """`no` is text to us; the hint says what leaves a function out. The control: the same word elsewhere gets another hint."""
    text = "version: 1\nfunctions:\n  greet: {}\nenvironments:\n  live:\n    functions:\n      greet: no\n"
    (problem,) = problems_of(text)
    assert (str(problem.location), problem.hint) == ("manifest.yaml:7:14", "write false, without quotes")
    (problem,) = problems_of("version: 1\nfunctions:\n  greet: no\n")
    assert problem.hint == "write `{file: …}`, with the path of its code"
