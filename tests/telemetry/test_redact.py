"""No secret leaves the program, in whatever spelling it tries to."""

from __future__ import annotations

import base64
import html
import json
import random
import re
import string
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapso_sync.credentials import MASK
from kapso_sync.telemetry.redact import BLOCK, MIN_PIECE, Redactor

secrets = st.text(st.characters(codec="utf-8"), max_size=40).map(lambda text: f"s3cr3t-{text}-end")
words = st.text(max_size=30)


def knowing(*values: str) -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.add(value)
    return redactor


@given(secrets, words, words)
def test_a_known_secret_is_redacted_in_every_spelling(secret: str, before: str, after: str) -> None:
    """As it is, in a URL, in JSON, as repr, in hex and in base64."""
    raw = secret.encode()
    spellings = [
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    ]
    redactor = knowing(secret)
    for spelling in spellings:
        assert spelling not in redactor.text(f"{before}\n{spelling}\n{after}")


long_secrets = st.integers().map(lambda seed: "".join(random.Random(seed).choices(f'{string.ascii_letters}"\n', k=2000)))


@settings(max_examples=6)
@given(long_secrets, st.integers(MIN_PIECE, 600), st.sampled_from(["begin", "end", "middle"]))
def test_a_piece_of_a_long_secret_is_redacted(secret: str, size: int, place: str) -> None:
    """A server quotes the first 512 characters, or the last: none of them goes out, also as JSON."""
    size = size + BLOCK if place == "middle" else size  # then it holds a whole block
    start = {"begin": 0, "end": len(secret) - size, "middle": (len(secret) - size) // 2}[place]
    piece = secret[start : start + size]
    redactor = knowing(secret)
    for spelling in (piece, json.dumps(piece)[1:-1]):
        clean = redactor.text(f"refused: <{spelling}> is too long").replace(MASK, "")
        assert (clean[:10], clean[-13:]) == ("refused: <", "> is too long")
        assert len(clean) < len("refused: <> is too long") + BLOCK


def test_half_of_a_short_secret_is_redacted() -> None:
    """And less than half of it stays, or ordinary words would go."""
    redactor = knowing("kapso_live_0123456789abcd")
    assert redactor.text("the key kapso_live_0123 is refused") == f"the key {MASK} is refused"
    assert redactor.text("the key kapso_live_ is refused") == "the key kapso_live_ is refused"


def test_a_secret_that_is_a_url_leaves_other_urls_alone() -> None:
    """They share their beginning."""
    redactor = knowing("https://hooks.example.com/services/T0123/B4567/abcdefgh")
    assert redactor.text("GET https://hooks.invalid/x and https://hook") == "GET https://hooks.invalid/x and https://hook"
    assert redactor.text("POST https://hooks.example.com/services/T0123") == f"POST {MASK}"


@given(st.recursive(words | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(words, inner)), secrets)
def test_a_secret_is_redacted_at_any_depth(value: object, secret: str) -> None:
    """Keys, values, lists in dictionaries: a log line is clean as a whole."""
    line = {"event": "x", secret: [value, {"inner": f"…{secret}…"}], "tuple": (secret,)}
    clean = knowing(secret)(None, "info", line)
    assert "s3cr3t" not in json.dumps(clean, ensure_ascii=False)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdefgh12345678",
        "https://user:hunter2hunter2@example.com/x.git",
        "https://ghp_abcdefghijklmnopqrstuvwxyz0123456789@github.com/x",
        "token ghp_abcdefghijklmnopqrstuvwxyz0123456789 refused",
        "sk_live_abcdefgh12345678",
        "AKIAIOSFODNN7EXAMPLE",
        "sb_secret_" + "aB3_" * 6,
        "AIza" + "Sy0-_" * 7,
        "SG." + "a1" * 11 + "." + "b2" * 21,
        "EAA" + "G0a" * 40,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "sig sha256=" + "0aF3" * 16 + " of another's request",
        "X-Hub-Signature: sha1=" + "0af3" * 10,
    ],
)
def test_credential_shaped_text_is_redacted(text: str) -> None:
    """Nobody told us of it, and still it does not go out."""
    assert MASK in Redactor().text(text)


@pytest.mark.parametrize("name", ["X-API-Key", "api_key", "Authorization", "password", "client_secret", "git_token", "Cookie"])
def test_fields_that_are_named_like_secrets_are_masked(name: str) -> None:
    """Whatever their value looks like."""
    assert Redactor()(None, "info", {"headers": {name: "plain"}}) == {"headers": {name: MASK}}


def test_ordinary_text_is_not_redacted() -> None:
    """Redaction that eats slugs and ids would make logs useless."""
    text = "created process-webhook 0b9f4c52-6f0e-4a35-9d53-1a0f1c1f2a11 at https://app.kapso.ai/api/v1, sha256:" + "ab" * 32
    text += ", sha256=" + "ab" * 31
    assert knowing("kapso-emulator-key").text(text) == text


def test_short_secrets_are_not_redacted() -> None:
    """A secret of three letters would be found in every other word."""
    assert knowing("cat", "").text("concatenate") == "concatenate"


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("Tr0ub4dor&3<xyz", "Tr0ub4dor&amp;3&lt;xyz"),
        ("pa(s s)wo'r d!77*Kx", "pa(s%20s)wo'r%20d!77*Kx"),
        ("sk/live/abcdefgh+xyz", "sk%2flive%2fabcdefgh%2bxyz"),
        ("abcdefgh-ijklmnop-qrst", "ABCDEFGH-IJKLMNOP-QRST"),
    ],
)
def test_a_secret_is_redacted_as_web_pages_and_browsers_spell_it(secret: str, shown: str) -> None:
    assert knowing(secret).text(f"<{shown}>") == f"<{MASK}>"


@given(secrets, st.text(max_size=8), st.text(max_size=8))
def test_base64_of_a_secret_with_neighbours_is_redacted(secret: str, before: str, after: str) -> None:
    """As in the header of HTTP Basic authentication: at most a few letters at its ends stay."""
    whole = base64.b64encode(f"{before}{secret}{after}".encode()).decode()
    clean = knowing(secret).text(whole)
    assert MASK in clean
    assert len(clean.replace(MASK, "")) <= len(whole) - len(base64.b64encode(secret.encode()).decode().rstrip("=")) + 8


TOKEN = "Kx93hT0qLw7Zb2Vn8RyPc5Ms1DfGj4Ua6EoI"


@pytest.mark.parametrize(
    "shown",
    [
        f"{TOKEN[:14]}...{TOKEN[-14:]}",
        f"{TOKEN[:8]}…{TOKEN[-8:]}",
        f"{TOKEN[:4]}****************{TOKEN[-12:]}",
        f"{TOKEN[:12]}[...]{TOKEN[-4:]}",
    ],
)
def test_both_ends_of_a_shortened_secret_are_redacted(shown: str) -> None:
    """As servers quote values that are too long; ends that give away little stay, since they tell people which key it is."""
    redactor = knowing(TOKEN, f"{TOKEN[:4]}-another-secret-{TOKEN[-4:]}")
    assert redactor.text(f"the value {shown} is wrong") == f"the value {MASK} is wrong"
    assert redactor.text(f"the key {TOKEN[:4]}…{TOKEN[-4:]}") == f"the key {TOKEN[:4]}…{TOKEN[-4:]}"


@pytest.mark.parametrize("width", [5, 20, 60, 76])
@pytest.mark.parametrize("gap", ["\n", "\r\n", "\n    ", " "])
def test_a_secret_that_is_broken_into_lines_is_redacted(width: int, gap: str) -> None:
    """As Ruby and MIME write base64, YAML indents a block, and mail wraps a line."""
    secret = "\n".join((TOKEN, TOKEN[::-1], TOKEN.swapcase()))
    redactor = knowing(secret, TOKEN.lower())
    for spelling in (base64.b64encode(secret.encode()).decode(), secret.encode().hex().upper(), TOKEN.lower(), secret):
        broken = gap.join(spelling[at : at + width] for at in range(0, len(spelling), width))
        clean = "".join(redactor.text(f"refused: {broken} !").split())
        assert re.sub(rf"(?:{re.escape(MASK)})+=*", "", clean) == "refused:!"


def test_words_that_only_look_like_a_secret_without_their_spaces_stay() -> None:
    """A short secret may be found in the letters of ordinary words."""
    assert knowing("valueone").text("the value one is set, valueone too") == f"the value one is set, {MASK} too"


def test_a_secret_is_redacted_where_a_piece_of_it_is_found_as_well() -> None:
    """The middle of this one is the same in lower case."""
    secret = "ABCDEFGH-0123456789-0123456789-IJKLMNOP"
    assert knowing(secret).text(f"<{secret.lower()}>") == f"<{MASK}>"


def php(value: object) -> str:
    """Return JSON as PHP writes it."""
    return json.dumps(value).replace("/", "\\/")


def unicode_escapes(value: str) -> str:
    units = value.encode("utf-16-be").hex().upper()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


SPELL: dict[str, Callable[[str], str]] = {
    "json": json.dumps,
    "php": php,
    "php in json": lambda value: json.dumps(php({"value": value})),
    "json in json in json": lambda value: json.dumps(json.dumps(json.dumps(value))),
    "rails": lambda value: json.dumps(value).replace("<", "\\u003c").replace("&", "\\u0026").replace(">", "\\u003e"),
    "rails in json": lambda value: json.dumps(json.dumps(value).replace("<", "\\u003C").replace("&", "\\u0026")),
    "unicode escapes": unicode_escapes,
    "repr": repr,
    "url": lambda value: quote(value, safe=""),
    "url in url": lambda value: quote(quote(value, safe=""), safe=""),
    "form": quote_plus,
    "json in url": lambda value: quote(json.dumps({"value": value})),
    "json in url in lower case": lambda value: re.sub("%..", lambda found: found[0].lower(), quote(json.dumps(value))),
    "html": html.escape,
    "html of ruby": lambda value: html.escape(value).replace("&#x27;", "&#39;"),
    "xml": lambda value: html.escape(value, quote=False),
    "xml of json": lambda value: html.escape(json.dumps(value)),
    "character references": lambda value: "".join(f"&#{ord(character)};" for character in value),
    "base64 of json": lambda value: base64.b64encode(json.dumps({"value": value}).encode()).decode(),
    "base64 of php": lambda value: base64.b64encode(php({"value": value}).encode()).decode(),
    "base64 in php": lambda value: php(base64.b64encode(value.encode()).decode()),
}


@pytest.mark.parametrize("name", SPELL)
@pytest.mark.parametrize("secret", ["p&ss'w\"rd<\\1>/\n", "aB/c+d/E/f9=x/", 'D\\name %41 \N{GRINNING FACE}\N{PILE OF POO}/"-é'])
def test_a_secret_is_redacted_as_an_answer_inside_of_an_answer_spells_it(secret: str, name: str) -> None:
    """Escaped by any rule, and by several one after the other; what only its escapes have in common with it stays."""
    shown = SPELL[name](secret)
    clean = knowing(secret).text(f"the value {shown}!")
    assert MASK in clean
    assert len(clean.replace(MASK, "")) <= len("the value !") + max(0, len(shown) - len(SPELL[name](""))) // 4 + len(
        SPELL[name]("")
    )
    assert knowing(secret).text(f"the value {SPELL[name]('another/value of <nobody>')}!").count(MASK) == 0


@given(secrets, st.lists(st.sampled_from([name for name in SPELL if not name.startswith("base64")]), min_size=1, max_size=3))
def test_a_secret_is_redacted_whatever_escapes_follow_each_other(secret: str, names: list[str]) -> None:
    """Its first and last letters are those of no escape, so nothing of it is to be seen."""
    shown = secret
    for name in names:
        shown = SPELL[name](shown)
    clean = knowing(secret).text(f"the value {shown}!")
    assert MASK in clean
    assert "s3cr3t" not in clean


@pytest.mark.parametrize(
    "shown", ['{"pin": 48151623421}', "pin 48151623421 is wrong", json.dumps(json.dumps({"pin": 48151623421}))]
)
def test_a_number_that_is_a_secret_is_redacted(shown: str) -> None:
    assert "48151623421" not in knowing("48151623421").text(shown)


def test_a_number_that_is_a_secret_is_redacted_in_a_document() -> None:
    """Where a JSON document is not text yet; other numbers stay numbers."""
    redactor = knowing("48151623421")
    assert redactor.document({"pin": 48151623421, "count": [481516, 1.5, True, None]}) == {
        "pin": MASK,
        "count": [481516, 1.5, True, None],
    }


def test_a_secret_with_blanks_around_it_is_redacted_without_them() -> None:
    """Servers trim what they are sent; what is left of a short one could be any word."""
    assert knowing("  hunter2 ").text("value hunter2 is too weak") == f"value {MASK} is too weak"
    assert knowing("\thunter2\n").text("value hunter2 is too weak") == f"value {MASK} is too weak"
    assert knowing("  hunt   ").text("you hunt here") == "you hunt here"


def test_what_stands_around_an_escaped_secret_stays() -> None:
    """The place is found in the text as it was, not as it is without escapes."""
    shown = knowing("aB/c+d/E").text('{"a":"\\u00e9 %41 &lt;","b":"aB\\/c+d\\/E","c":"\\"&amp;\\\\"}')
    assert shown == '{"a":"\\u00e9 %41 &lt;","b":"' + MASK + '","c":"\\"&amp;\\\\"}'


def test_short_values_are_not_found_in_the_escapes_of_other_text() -> None:
    """An escape may be a letter of a secret; its own letters are not, and a value that is too short stays in every spelling."""
    assert knowing("cat", "1234", "a/b").text(php("cat 1234 a/b \u00e9")) == php("cat 1234 a/b \u00e9")
    assert knowing("u00e9u00e9").text(r"\u00e9\u00e9 stays") == r"\u00e9\u00e9 stays"


@pytest.mark.history
def test_a_megabyte_of_any_text_is_redacted_in_seconds() -> None:
    """Diffs are that large, and are redacted where nothing else runs meanwhile; the last word is a secret, as the control."""
    chance = random.Random(1)
    letters = f'{string.ascii_letters}{string.digits}\\/"\n&'
    secrets = ["".join(chance.choices(letters[: 62 if number < 10 else None], k=40)) for number in range(20)]
    redactor = knowing(*secrets)
    for piece in ("a", " a", "eyJ", f"{secrets[0][:11]} ", "\\", "\\n", "\\u0041", "%41 ", "%25", "&lt; ", "&amp;amp;"):
        text = piece * (1024 * 1024 // len(piece))
        started = time.process_time()
        shown = redactor.text(f"{text} {secrets[1]}")
        assert time.process_time() - started < 5.0, piece  # half a second, where no other process shares the core
        assert shown.endswith(f" {MASK}")


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("p%40ss1", "https://host/?password=p%2540ss1", "https://host/?password="),
        ("R&amp;D7", "<p>R&amp;amp;D7</p>", "<p>"),
        ('nE/w"pass+1!xy', r'{"user":"CORP\\nE/w\"pass+1!xy"}', r'{"user":"CORP\\'),
        ("t0p/s3cret&x", "login=CORP%5Ct0p%2Fs3cret%26x", "login=CORP%5C"),
        ('b7f/9"kd&Qz', r'{"path": "C:\\b7f/9\"kd&Qz"}', r'{"path": "C:\\'),
        ('u1234"rest-of-it', r'{"v": "\\u1234\"rest-of-it"}', r'{"v": "\\'),
        ('100%"sure%', r"100%\"sure%41", ""),
    ],
)
def test_an_escaped_secret_is_redacted_whatever_stands_beside_it(secret: str, text: str, shown: str) -> None:
    """A neighbour may make another escape of its first or last sign; and one that is short without escapes is looked for."""
    redactor = Redactor()
    redactor.add(secret)
    assert redactor.text(text).startswith(f"{shown}[redacted]")
