"""Every field of a manifest entry: its valid values, and the errors for invalid ones."""

from __future__ import annotations

import pytest

from kapso_sync.model.desired import (
    Check,
    CheckMethod,
    CheckSignature,
    EnvSecret,
    FileSecret,
    KeepSecret,
    PlainSecret,
    WatchPolicy,
)
from kapso_sync.model.functions import FunctionType
from kapso_sync.model.policies import Contract, DriftPolicy
from tests.manifest.folder import CODE, entry_of, problems_of, read, said_of


def test_every_manifest_field_is_read() -> None:
    """The manifest of the documentation, field by field."""
    entry = entry_of(
        "file: greet.js\nname: Greet\ndescription: Says hello.\nfunction_type: cloudflare_worker\n"
        "invoke_response_mode: wrapped\npublic_endpoint: true\nruntime_config: {timeout: 30, deep: [1, null]}\n"
        "contract: module\ndeploy: false\nprotected: true\ndrift: report\nmoved_from: old-greet\n"
        "secrets:\n  A: {env: A_VAR}\n  B: {file: tls/cert}\n  C: {value: '0.19'}\n"
        "checks:\n  - request: {ping: true}\n    expect: {status: 200, json: {ok: true}}\n"
    )
    assert (entry.slug, entry.file, entry.moved_from) == ("greet", "greet.js", ("old-greet",))
    assert entry.fields == {
        "name": "Greet",
        "description": "Says hello.",
        "function_type": "cloudflare_worker",
        "invoke_response_mode": "wrapped",
        "public_endpoint": True,
        "runtime_config": {"timeout": 30, "deep": [1, None]},
    }
    assert (entry.contract, entry.deploy, entry.protected, entry.drift) == (Contract.MODULE, False, True, DriftPolicy.REPORT)
    assert entry.function_type is FunctionType.CLOUDFLARE_WORKER
    assert entry.secrets == {"A": EnvSecret("A_VAR"), "B": FileSecret("tls/cert"), "C": PlainSecret("0.19")}
    assert entry.checks == (Check({"ping": True}, 200, {"ok": True}),)


def test_a_function_that_cannot_be_public_is_broken() -> None:
    """Kapso would refuse it, wherever the two keys stand: validate says so. The control: each of them alone is fine."""
    public = read("version: 1\ndefaults: {public_endpoint: true}\nfunctions:\n  greet: {function_type: supabase_function}\n")
    (problem,) = public.broken["greet"]
    assert str(problem) == (
        "manifest.yaml:2:29: functions.greet.public_endpoint: a supabase_function cannot be called without an API key"
    )
    for lines in ("function_type: supabase_function", "public_endpoint: true", "function_type: cloudflare_worker"):
        assert entry_of(lines).slug == "greet"


def test_a_value_is_quoted_only_behind_what_was_expected_of_it() -> None:
    """Keys that do not go together are no value; of a key the key is shown, not what stands behind it."""
    checks = "checks:\n  - expect: {{}}\n    {}"
    assert said_of("secrets: {A: {env: B, keep: true}, C: {value: x, json: true}}") == [
        "manifest.yaml:4:18: functions.greet.secrets.A: expected exactly one of env, file, dotenv, value and keep",
        "manifest.yaml:4:43: functions.greet.secrets.C: `json` goes with `env` or `file`",
    ]
    (twice,) = said_of(checks.format("headers: {X-A: a, x-a: b}"))
    assert twice.endswith(".checks[0]: the header `x-a` is given twice")
    (both,) = said_of(checks.format("request: 1\n    text: b"))
    assert both.endswith("expected `request` or `text`, and both are given")
    (cookie,) = said_of(checks.format("headers: {Cookie: 2020-01-01}"))
    assert cookie.endswith(', got "Cookie"')


def test_an_omitted_field_is_not_managed() -> None:
    """Only the file name has a default."""
    for manifest in ("version: 1\nfunctions:\n  greet:\n", "version: 1\nfunctions: {greet: {}}\n"):
        (entry,) = read(manifest).entries
        assert (entry.file, entry.fields) == ("greet.js", {})
        assert (entry.contract, entry.deploy, entry.protected, entry.drift) == (Contract.AUTO, True, None, None)


def test_an_entry_overrides_the_defaults() -> None:
    """A mapping replaces the default's as a whole."""
    manifest = read(
        "version: 1\ndefaults: {public_endpoint: true, runtime_config: {a: 1}, protected: true}\n"
        "functions:\n  greet: {public_endpoint: false, runtime_config: {b: 2}}\n  other:\n",
        other=CODE,
    )
    greet, other = manifest.entries
    assert greet.fields == {"public_endpoint": False, "runtime_config": {"b": 2}}
    assert other.fields == {"public_endpoint": True, "runtime_config": {"a": 1}}
    assert (greet.protected, other.protected) == (True, True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("public_endpoint: yes", 'manifest.yaml:4:22: functions.greet.public_endpoint: expected true or false, got "yes"'),
        ("public_endpoint: 1", "manifest.yaml:4:22: functions.greet.public_endpoint: expected true or false, got 1"),
        ("name: 12", "manifest.yaml:4:11: functions.greet.name: expected text, got 12"),
        ("name: on", "manifest.yaml:4:11: functions.greet.name: not every YAML reader takes on for text"),
        ("name: 010", "manifest.yaml:4:11: functions.greet.name: not every YAML reader takes 010 for text"),
        ("name: 12:30:45", "manifest.yaml:4:11: functions.greet.name: not every YAML reader takes 12:30:45 for text"),
        ("name: 2026-01-01", "manifest.yaml:4:11: functions.greet.name: not every YAML reader takes 2026-01-01 for text"),
        ("name: ''", 'manifest.yaml:4:11: functions.greet.name: expected some text, got ""'),
        ("name:", "manifest.yaml:4:5: functions.greet.name: nothing is given"),
        ("name: [a]", "manifest.yaml:4:11: functions.greet.name: expected text, got a list"),
        ("runtime_config: 5", "manifest.yaml:4:21: functions.greet.runtime_config: expected a mapping, got 5"),
        ("function_type: worker", "manifest.yaml:4:20: functions.greet.function_type: expected cloudflare_worker or "),
        ("contract: scrip", "manifest.yaml:4:15: functions.greet.contract: expected auto, module or script, got "),
        ("drift: {a: 1}", "manifest.yaml:4:12: functions.greet.drift: expected correct or report, got a mapping"),
        ("moved_from: Old_Slug", "manifest.yaml:4:17: functions.greet.moved_from: expected a slug: lower-case letters, "),
        (
            "moved_from: [old, Older]",
            "manifest.yaml:4:23: functions.greet.moved_from[1]: expected a slug: lower-case letters, ",
        ),
        ("moved_from: 5", "manifest.yaml:4:17: functions.greet.moved_from: expected text or a list, got 5"),
        ("moved_from: [old, old]", "manifest.yaml:4:17: functions.greet.moved_from: `old` is given in line 4 as well"),
        ("moved_from: greet", "manifest.yaml:4:17: functions.greet.moved_from: it is the function's own slug"),
        ("protectd: true", "manifest.yaml:4:5: functions.greet.protectd: unknown key"),
        ("checks: {}", "manifest.yaml:4:13: functions.greet.checks: expected a list, got a mapping"),
        ("checks: [{request: {}}]", "manifest.yaml:4:14: functions.greet.checks[0].expect: "),
        (
            "checks: [{expect: {status: 20}}]",
            "manifest.yaml:4:32: functions.greet.checks[0].expect.status: expected at least 100",
        ),
        (
            f"checks: [{', '.join(['{expect: {status: 200}}'] * 21)}]",
            "manifest.yaml:4:13: functions.greet.checks: expected at most 20, got 21",
        ),
        (
            "watch: {for: 10}",
            "manifest.yaml:4:18: functions.greet.watch.for: expected a duration from 1s to 24h",
        ),
        (
            "watch: {for: 2d}",
            "manifest.yaml:4:18: functions.greet.watch.for: expected a duration from 1s to 24h",
        ),
        ("watch: {failures: 0}", "manifest.yaml:4:23: functions.greet.watch.failures: expected at least 1, got 0"),
        (
            "watch: {ratio: 50}",
            "manifest.yaml:4:20: functions.greet.watch.ratio: expected a percentage from 1% to ",
        ),
        (
            "watch: {ratio: 0%}",
            "manifest.yaml:4:20: functions.greet.watch.ratio: expected a percentage from 1% to ",
        ),
        (
            "watch: {for: ' 10m '}",
            'manifest.yaml:4:18: functions.greet.watch.for: expected a duration such as 300ms, 20s or 5m, got " 10m "',
        ),
        (
            'watch: {for: "10m\\n"}',
            "manifest.yaml:4:18: functions.greet.watch.for: expected a duration such as 300ms, 20s or 5m, got ",
        ),
        (
            "watch: {for: \u0661\u0660m}",
            "manifest.yaml:4:18: functions.greet.watch.for: expected a duration from 1s to 24h",
        ),
        ("watch: {ratio: ' 50% '}", "manifest.yaml:4:20: functions.greet.watch.ratio: expected a percentage such as 50%, got "),
        ("watch: {fr: 10m}", "manifest.yaml:4:13: functions.greet.watch.fr: unknown key"),
        ("watch: true", "manifest.yaml:4:12: functions.greet.watch: expected a mapping or false, got true"),
        (
            "checks: [{text: a, request: 1, expect: {}}]",
            "manifest.yaml:4:14: functions.greet.checks[0]: expected `request` or `text`, and both are given",
        ),
        (
            "checks: [{method: GET, request: 1, expect: {}}]",
            "manifest.yaml:4:14: functions.greet.checks[0]: expected no `request` and no `text` with `method: GET`",
        ),
        (
            "checks: [{method: HEAD, expect: {}}]",
            "manifest.yaml:4:23: functions.greet.checks[0].method: expected DELETE, GET, PATCH, ",
        ),
        (
            "checks: [{headers: {'X Y': a}, expect: {}}]",
            "manifest.yaml:4:25: functions.greet.checks[0].headers.X Y: expected a header's name: letters, digits and hyphens",
        ),
        (
            "checks: [{headers: {Content-Type: a}, expect: {}}]",
            "manifest.yaml:4:25: functions.greet.checks[0].headers.Content-Type: expected another header: this one belongs to",
        ),
        (
            'checks: [{headers: {X: "a\\nb"}, expect: {}}]',
            "manifest.yaml:4:28: functions.greet.checks[0].headers.X: expected a header's text: printable ASCII",
        ),
        (
            f"checks: [{{headers: {{{', '.join(f'X-{n}: a' for n in range(21))}}}, expect: {{}}}}]",
            "manifest.yaml:4:24: functions.greet.checks[0].headers: expected at most 20, got 21",
        ),
        (
            "checks: [{headers: {X-Sig: a}, sign: {header: x-sig, secret: A}, expect: {}}]",
            "manifest.yaml:4:14: functions.greet.checks[0]: the header `x-sig` is given twice",
        ),
        (
            "checks: [{sign: {header: cookie, secret: A}, expect: {}}]",
            "manifest.yaml:4:30: functions.greet.checks[0].sign.header: expected another header: this one belongs to",
        ),
        (
            "checks: [{sign: {header: X-Sig, secret: A}, expect: {}}]",
            "manifest.yaml:4:45: functions.greet.checks[0].sign.secret: the function has no secret `A`",
        ),
        ("secrets: {lower: {env: A}}", "manifest.yaml:4:15: functions.greet.secrets.lower: expected a secret's name"),
        ("secrets: {A: {env: a-b}}", "manifest.yaml:4:24: functions.greet.secrets.A.env: expected the name of an environment"),
        ("secrets: {A: x}", "manifest.yaml:4:18: functions.greet.secrets.A: expected a mapping"),
    ],
)
def test_an_invalid_value_error_has_place_key_and_expected_value(line: str, said: str) -> None:
    """In one line."""
    (problem,) = said_of(line)
    assert problem.startswith(said)


def test_a_watch_has_defaults_and_replaces_that_of_the_defaults() -> None:
    """As a whole; false is none."""
    manifest = read(
        "version: 1\ndefaults: {watch: {for: 1h30m, failures: 5, ratio: 20%}}\n"
        "functions: {greet: {watch: {failures: 1}}, none: {watch: false}, other: }\n",
        none=CODE,
        other=CODE,
    )
    assert {entry.slug: entry.watch for entry in manifest.entries} == {
        "greet": WatchPolicy(600.0, 1, 50),
        "none": None,
        "other": WatchPolicy(5400.0, 5, 20),
    }
    assert entry_of("file: greet.js").watch is None


def test_a_watch_of_a_draft_is_a_warning() -> None:
    """What is never deployed is never watched."""
    (notice,) = read("version: 1\nfunctions: {greet: {deploy: false, watch: {}}}\n").notices
    assert notice.message == "functions.greet.watch: it waits, since `deploy` is false"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{keep: true}", KeepSecret()),
        ("{env: X, json: true}", EnvSecret("X", json=True)),
        ("{file: x, json: true}", FileSecret("x", json=True)),
        ("{value: {iva: 0.19}}", PlainSecret({"iva": 0.19})),
        ("{value: '{}'}", PlainSecret("{}")),
        ("{value: 5}", PlainSecret("5")),
    ],
)
def test_secret_sources_are_read(source: str, expected: object) -> None:
    """From Kapso, as text, and as JSON; text that looks like JSON stays text."""
    manifest = read(f"version: 1\nfunctions:\n  greet:\n    secrets: {{A: {source}}}\n")
    assert manifest.entries[0].secrets == {"A": expected}


@pytest.mark.parametrize(
    "line",
    [
        "secrets: {A: {}}",
        "secrets: {A: {env: X, file: y}}",
        "secrets: {A: {keep: true, env: X}}",
        "secrets: {A: {keep: false}}",
        "secrets: {A: {value: x, json: true}}",
    ],
)
def test_a_secret_without_a_source_or_with_two_is_refused(line: str) -> None:
    """Choosing one would be a guess."""
    assert said_of(line)


@pytest.mark.parametrize(
    ("word", "meant"), [("protectd", "protected"), ("runtime-config", "runtime_config"), ("descripton", "description")]
)
def test_a_misspelt_key_gets_a_suggestion(word: str, meant: str) -> None:
    """A key that is like no other gets the list of known keys."""
    (problem,) = problems_of(f"version: 1\nfunctions:\n  greet:\n    {word}: x\n")
    assert problem.hint == f"did you mean `{meant}`?"
    (problem,) = problems_of("version: 1\nfunctions:\n  greet:\n    zzz: x\n")
    assert str(problem.hint).startswith("known here: description, function_type")


@pytest.mark.parametrize(
    ("functions", "hint"),
    [
        (
            "{greet: {secrets: {API_TOKEN: sk_live_0123}}}",
            "write `{env: API_TOKEN}`, and replace a credential that git has seen",
        ),
        ("{greet: {secrets: {DEBUG: true}}}", "write `{value: true}` for plain configuration"),
        ("{greet: {secrets: [API_TOKEN]}}", "write each name with the place of its value: `NAME: {env: NAME}`"),
        ("{greet: {secrets: {api-token: {env: A}}}}", "did you mean `API_TOKEN`?"),
        ("{greet: {checks: [{expect: 200}]}}", "write `{status: 200}`"),
        ("{greet: {checks: [{expect: hi}]}}", "write `{text: …}`, with a part of the answer"),
        ("{greet: {checks: {expect: {}}}}", "checks are a list: begin each with `- `"),
        ("{greet: {watch: true}}", "write `{}` for a watch with the defaults"),
        ("{greet: {watch: no}}", "write false, without quotes"),
        ("{greet: {watch: yes}}", "write `{}` for a watch with the defaults"),
        ("{greet: {runtime_config: {a: .5}}}", 'write 0.5, or quote it, if it is text: ".5"'),
        ("{greet: {runtime_config: {a: +5}}}", 'write 5, or quote it, if it is text: "+5"'),
        ("{greet: {runtime_config: {a: Yes}}}", 'write true, or quote it, if it is text: "Yes"'),
        ("{greet: {runtime_config: {a: 010}}}", 'quote it: "010"'),
        ("{greet: {description: .5}}", 'quote it: ".5"'),
        ("{greet: {checks: [{expect: {}, timeout: .5}]}}", "write 0.5"),
        ("{greet: {watch: {failures: '5'}}}", "write 5"),
        ("{greet: , file: greet.js}", "indent `file` below the function that it belongs to"),
        ("{greet: , deploy: false}", "indent `deploy` below the function that it belongs to"),
        ("{greet: , public_endpoint: true}", "indent `public_endpoint` below the function that it belongs to"),
        ("{greet: , secrets: {A: {env: A}}}", "indent `secrets` below the function that it belongs to"),
        ("{greet: {API_TOKEN: {env: A}}}", "a secret stands below `secrets`, and is indented deeper"),
        ("{greet: greet.js}", "write `{file: …}`, with the path of its code"),
        ("{Greet_Me: {file: greet.js}}", "did you mean `greet-me`?"),
        ("[greet]", "write each function as a key, such as `greet:`, with its own keys below"),
        ("{greet: {runtime_config: 5}}", None),
    ],
)
def test_a_value_of_another_shape_gets_a_hint_how_it_is_written(functions: str, hint: str | None) -> None:
    """The commonest first mistakes, above all a secret's value in the manifest."""
    assert problems_of(f"version: 1\nfunctions: {functions}\n")[0].hint == hint


def test_the_hint_for_a_secret_does_not_offer_a_name_that_is_none() -> None:
    """Its name has a problem of its own."""
    first, second = problems_of("version: 1\nfunctions: {greet: {secrets: {a-b: yes}}}\n")
    assert first.hint == "did you mean `A_B`?"
    assert second.hint == "write `{env: NAME}`, and replace a credential that git has seen"


def test_all_manifest_problems_are_reported_at_once_in_order() -> None:
    """Nobody has to run the program once for each."""
    problems = problems_of(
        "version: 2\nfunktions: {}\nfunctions:\n  Greet:\n  greet:\n    deploy: maybe\n    name: 7\n"
        "  other: {file: ../x.js, zzz: 1}\n"
    )
    assert [(p.location.line, p.location.column) for p in problems if p.location] == sorted(
        (p.location.line, p.location.column) for p in problems if p.location
    )
    assert {problem.code for problem in problems} >= {"version", "unknown-key", "value"}
    assert len(problems) >= 6
    assert problems[0].frame == "   1 | version: 2\n                ^"


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        ("", "add `version: 1`"),
        *((f"version: {text}\n", "write `version: 1`") for text in ("'1'", "1.0", "true", "yes", "0", "", "{}")),
        ("version: 99\n", "a newer kapso-sync may know it"),
    ],
)
def test_an_unknown_manifest_version_is_refused(version: str, hint: str) -> None:
    """A later version may have another meaning."""
    assert problems_of(f"{version}functions: {{greet: {{}}}}\n")[0].hint == hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("...\n---\nversion: 1\n", "keep the first, remove `---`"),
        ("...\nversion: 1\n", "keep the first, remove `...`"),
        ("functions:\n  greet:\n    description: a: b\n", "quote a text that holds `: `, and indent a key as those beside it"),
    ],
)
def test_a_text_that_is_no_yaml_gets_a_hint_how_it_is_mended(text: str, hint: str) -> None:
    """The commonest mistake, above all: a colon in a text without quotes."""
    assert problems_of(f"version: 1\n{text}")[-1].hint == hint


def test_a_duplicate_name_or_moved_from_is_refused_with_both_lines() -> None:
    """Two functions cannot have been one, and one name for two is confusing."""
    first, second = problems_of(
        "version: 1\nfunctions:\n  a: {name: Same, moved_from: old}\n  b: {name: Same, moved_from: old}\n"
    )
    assert str(first) == "manifest.yaml:4:13: functions.b.name: `Same` is given in line 3 as well"
    assert str(second) == "manifest.yaml:4:31: functions.b.moved_from: `old` is given in line 3 as well"


def test_keys_without_effect_are_a_warning() -> None:
    """Without a deployment neither secrets nor checks have an effect; a warning about a credential does not show it."""
    manifest = read(
        "version: 1\nfunctions:\n  greet:\n    secrets: {KEY: {value: sk_live_abcdefgh12345678}}\n"
        "    deploy: false\n    checks: [{request: {}, expect: {status: 200}}]\n"
    )
    assert [notice.code for notice in manifest.notices] == ["not-applied", "not-applied", "credential-value"]
    assert "sk_live" not in " ".join(notice.message for notice in manifest.notices)


def test_an_entry_without_its_file_keeps_moved_from() -> None:
    """The former slug is known even while the code is missing, so nothing is deleted meanwhile."""
    manifest = read("version: 1\nfunctions:\n  a: {moved_from: old}\n  b:\n")
    assert (set(manifest.broken), manifest.moved_from) == ({"a", "b"}, {"a": ("old",)})


def test_a_check_reads_method_headers_text_and_signature() -> None:
    """The text is the body; a check without these keys sends its JSON as ever."""
    entry = entry_of(
        "secrets: {KEY: {env: KEY}}\n"
        "checks:\n"
        "  - text: 'a=b'\n    method: PUT\n    headers: {X-Source: shop}\n"
        "    sign: {header: X-Sig, secret: KEY, prefix: 'sha256='}\n    expect: {status: 202}\n"
        "  - expect: {}\n"
    )
    signed = CheckSignature("X-Sig", "KEY", "sha256=")
    wanted = Check(None, 202, method=CheckMethod.PUT, headers=(("X-Source", "shop"),), body="a=b", sign=signed)
    assert entry.checks == (wanted, Check(None))


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("{keep: true}", "the value of `KEY` is on Kapso alone"),
        ("{env: KEY, json: true}", "`KEY` is JSON, and a signature needs a text"),
        ("{value: {a: 1}}", "`KEY` is JSON, and a signature needs a text"),
    ],
)
def test_a_check_is_signed_with_a_text_that_the_manifest_gives(secret: str, said: str) -> None:
    """Also where secrets and checks come from the defaults; a control with a text is valid."""
    checks = "checks: [{sign: {header: X-Sig, secret: KEY}, expect: {}}]"
    (problem,) = said_of(f"secrets: {{KEY: {secret}}}\n{checks}")
    assert problem.startswith(f"manifest.yaml:5:45: functions.greet.checks[0].sign.secret: {said}")
    shared = f"version: 1\ndefaults:\n  secrets: {{KEY: {secret}}}\n  {checks}\nfunctions: {{greet: {{}}}}\n"
    (inherited,) = problems_of(shared)
    assert str(inherited).startswith(f"manifest.yaml:4:43: functions.greet.checks[0].sign.secret: {said}")
    assert entry_of(f"secrets: {{KEY: {{env: KEY}}}}\n{checks}").checks[0].sign is not None


def test_a_check_that_kapso_cannot_pass_on_is_a_warning() -> None:
    """Kapso invokes with POST. A control: a check with POST is none."""
    manifest = read("version: 1\nfunctions:\n  greet:\n    checks: [{method: GET, expect: {}}, {expect: {}}]\n")
    (notice,) = manifest.notices
    assert (notice.code, str(notice.location)) == ("check-not-sent", "manifest.yaml:4:23")
