"""A credential that somebody wrote into the manifest appears in no error about it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.errors import Problem
from kapso_sync.manifest.document import read_document
from tests.manifest.folder import problems_of

CANARY = "Zx9-hunter2-Qq71LmN0pp"
HEAD = "version: 1\nfunctions:\n  hello:\n"

WRITTEN = [
    "API_TOKEN: {}",
    "API_TOKEN: '{}'",
    "API_TOKEN: {{env: '{}'}}",
    "API_TOKEN: {{dotenv: {}}}",
    "API_TOKEN: {{file: [{}]}}",
    "API_TOKEN: {{env: [{}]}}",
    "API_TOKEN: {{vaule: {}}}",
    "API_TOKEN: {{env: A, value: {}}}",
    "API_TOKEN: {{keep: {}}}",
    "API_TOKEN: {{env: A, json: {}}}",
    "API_TOKEN: |\n  first\n  {}",
    "API_TOKEN: >-\n  {}\n  last",
    'API_TOKEN: "first\n  {}\n  last"',
    "API_TOKEN: first\n  {}",
    "API_TOKEN: [{}]",
    "API_TOKEN: &{} x",
    "API_TOKEN: *{}",
    "API_TOKEN: !{} x",
    "API_TOKEN: !{0}!{0} x",
    "API_TOKEN: &{} {{env: A}}",
    "API_TOKEN: 5  # {}",
    "API_TOKEN: {0}\nAPI_TOKEN: {0}",
    "api-token: {}",
    "API_TOKEN: {{env:'{}'}}",
    "API_TOKEN: {{env:{}}}",
    "API_TOKEN: {{{}}}",
    "{}: {{env: A}}",
    "- {}",
    "{}",
    "? API_TOKEN\n: {}",
    "API_TOKEN:{}",
    "API_TOKEN:{}\nOTHER: {{env: A}}",
    "API_TOKEN: {}: x",
    "API_TOKEN: x: {}",
    'API_TOKEN: "{}',
    "API_TOKEN: '{}' x",
    "API_TOKEN: {{env: {}",
    "API_TOKEN: {{env: {}]}}",
    "API_TOKEN: %{}",
    "API_TOKEN: @{}",
    "API_TOKEN: {}\n\tB: x",
    "API_TOKEN: {}\n- x",
    'API_TOKEN: "first\n  {}: b\n  "c',
]
"""What somebody may write below `secrets`, at the place of the braces a credential; the end of the table is no YAML."""


def told(problem: Problem) -> str:
    """Everything that a problem says."""
    return "\n".join([str(problem), problem.hint or "", problem.frame or ""])


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize(
    "around",
    [
        f"{HEAD}    secrets:\nHERE\n    colour: red\n",
        f"{HEAD}    secrets:\nHERE\n    name: &a x\n",
        "version: 1\ndefaults:\n    secrets:\nHERE\n    colour: red\nfunctions: {hello: }\n",
        "version: 1\nfunctions:\n  hello:\nenvironments:\n e:\n  functions:\n   hello:\n    secrets:\nHERE\n    colour: red\n",
        f"{HEAD}    secrets:\nSHALLOW\n    colour: red\n",
        f"{HEAD}    secret:\nHERE\n    colour: red\n",
    ],
)
def test_no_problem_quotes_what_is_below_secrets(written: str, around: str) -> None:
    """Of a function, of the defaults, of an environment; at the right indentation or not; in YAML and what is none."""
    lines = written.format(CANARY).split("\n")
    if "SHALLOW" in around and not lines[0].startswith("API_TOKEN"):
        return
    deep, shallow = ("\n".join(" " * indent + line for line in lines) for indent in (6, 4))
    problems = problems_of(around.replace("HERE", deep).replace("SHALLOW", shallow))
    assert problems
    for problem in problems:
        assert CANARY not in told(problem)


@pytest.mark.parametrize("written", WRITTEN[:10] + WRITTEN[14:18] + WRITTEN[28:32])
def test_no_problem_quotes_what_is_below_secrets_on_the_same_line(written: str) -> None:
    """Another mistake of the line shows it, before or behind."""
    text = f"version: 1\nfunctions: {{hello: {{color: red, secrets: {{{written.format(CANARY)}}}, colour: red}}}}\n"
    problems = problems_of(text)
    assert problems
    for problem in problems:
        assert CANARY not in told(problem)


@pytest.mark.parametrize("broken", ['"colour": 1}', '"x" "y"}', '"colour": NaN}', '"colour": "\t\x01"}', '"colour": &a 1}'])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("source", [CANARY, {"env": CANARY}, {"vaule": CANARY}])
def test_no_problem_of_json_quotes_what_is_below_secrets(broken: str, indent: int | None, source: object) -> None:
    """On one line as well as on many; at the end an object that is broken in several ways."""
    manifest = {"version": 1, "functions": {"hello": {"secrets": {"API_TOKEN": source}, "x": "BROKEN"}}}
    text = json.dumps(manifest, indent=indent)
    for made in (text, re.sub(r'"x": "BROKEN"\s*}', lambda _: broken, text)):
        problems = problems_of(made, "manifest.json")
        assert problems
        for problem in problems:
            assert CANARY not in told(problem)


@given(st.data())
def test_no_problem_quotes_a_secret_of_a_file_with_any_mistake(data: st.DataObject) -> None:
    """Whatever is missing, doubled or added anywhere before the secret's value or behind it."""
    style = data.draw(st.sampled_from(["{}", "'{}'", "{{env: {}}}", "|\n        x\n        {}"]))
    text = f"{HEAD}    name: Hello\n    secrets:\n      API_TOKEN: {style.format(CANARY)}\n    minify: yes\n  other:\n"
    place = data.draw(st.integers(0, len(text)).filter(lambda n: not 0 < n - text.index(CANARY) < len(CANARY)))
    added = data.draw(
        st.sampled_from(["\n", " ", "\t", ":", ": ", "'", '"', "{", "}", "[", "]", "&", "*", "!", "|", "#", "- ", "\x01"])
    )
    document = read_document("manifest.yaml", (text[:place] + added + text[place:]).encode())
    for problem in [*document.problems, *problems_of(document.text)]:
        assert CANARY not in told(problem)


def test_other_values_and_their_lines_are_quoted() -> None:
    """Else the tests above would hold for errors that say nothing; a name may hold the word."""
    (first, second) = problems_of(f"{HEAD}    public_endpoint: {CANARY}\n    secrets: {{A: x}}\n")
    assert told(first).count(CANARY) == 2
    assert second.frame == "   5 |     secrets: {A: [redacted]}\n" + " " * 24 + "^"
    (broken,) = problems_of(f"{HEAD}    secrets:\n      A: {{env: A}}\n    description: {CANARY}: x\n")
    assert CANARY in told(broken)
    (policy,) = problems_of(f"version: 1\ndefaults: {{secrets_policy: {CANARY}}}\n")
    assert CANARY in told(policy)
