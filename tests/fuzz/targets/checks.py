"""Answers that a check of the manifest is compared with: an archive of the check and of the function's answer."""

from __future__ import annotations

from kapso_sync.manifest.schema import CheckModel
from kapso_sync.model.desired import Check
from kapso_sync.model.functions import Invocation
from kapso_sync.reconcile.apply.checks import Failure, check_mismatch, failed_invocation_id, shown_answer
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw, dumps
from tests.fuzz.kit import model_of, printed
from tests.fuzz.target import Target


def run(data: bytes) -> None:
    """Compare the answer, wrapped and not, and print what is missing."""
    files = dict(unpack(data))
    model = model_of(CheckModel, files.get("check", b"{}"))
    if model is None:
        return
    expect = model.expect
    check = Check(model.request, expect.status, expect.json_, expect.text, expect.matches)
    for status in (200, 500, check.status or 201):
        answer = Invocation(status, "application/json", files.get("answer", b"").decode("utf-8", "replace"))
        failed_invocation_id(answer)
        for wrapped in (False, True):
            missing = check_mismatch(check, answer, wrapped=wrapped)
            if missing is not None:
                failure = Failure(1, missing, str(shown_answer(answer, str)))
                printed(lambda console, text=str(failure): console.error(text), lines=1)  # type: ignore[misc]


PATTERNS = (
    "a+",
    "(a+)+$",
    "(a|a)*b",
    "(?:a?){30}a{30}",
    "(?:x{1,1000}){1,1000}",
    "((((a{1,99}){1,99}){1,99}){1,99})",
    "(?R)?",
    "(?<=a*)b",
    "(?:.*a){20}",
    "(a){e<=9}",
    "(?b)(?:aaaaaaaaaaaaaaaaaaaa){e}",
    "\\p{L}+",
    "[[a-z]--[aeiou]]",
    "\\N{LATIN SMALL LETTER A}",
    "\\L<words>",
    "(?V1)[a||b]",
    "(" * 200 + ")" * 200,
    "[" * 500,
    "(?:" * 300,
    "\ud800",
)


def make(draw: Draw) -> bytes:
    """An expectation, and an answer that mostly meets it."""
    body = draw.json()
    expect = draw.pick(
        (
            {"json": body},
            {"json": draw.json()},
            {"text": draw.text() or "a"},
            {"matches": draw.pick((*PATTERNS, draw.text() or "a"))},
            {"status": 200, "json": {"a": body}},
            {},
        )
    )
    answer = draw.pick(
        (
            body,
            {"a": body, "b": 1},
            {"data": body},
            {"data": {"a": body}},
            {"error": "x", "invocation_id": draw.pick(("i", 1, None, draw.text()))},
            draw.json(),
        )
    )
    text = (
        dumps(answer, ascii_only=draw.chance(0.5))
        if draw.chance(0.7)
        else (draw.text() + "a" * draw.pick((0, 40, 5000))).encode("utf-8", "surrogatepass")
    )
    return pack({"check": dumps({"expect": expect, "request": draw.json()}), "answer": text})


TOKENS = (*(pattern.encode("utf-8", "surrogatepass") for pattern in PATTERNS), b'"data":', b'"invocation_id":', b'"expect":')
TARGETS = (Target("checks", run, make, TOKENS, cpu=20.0),)
