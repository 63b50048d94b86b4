"""Ownership marks in descriptions, and the addresses that owners and webhooks are compared by: one line each."""

from __future__ import annotations

from kapso_sync.model.ownership import (
    comparable_owner,
    is_marked,
    mark_for,
    split_description,
    without_digests,
    without_marks,
)
from kapso_sync.urls import is_loopback, parse_remote
from tests.fuzz.grammar import Draw
from tests.fuzz.promises import BrokenPromise
from tests.fuzz.target import Target

OWNER = "example.com/acme/flows"


def run(data: bytes) -> None:
    """Split the description, put our mark on its text, and find it again."""
    text = data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace") if _is_text(data) else data.decode("latin-1")
    own, mark = split_description(text)
    if without_marks(own) != own:
        raise BrokenPromise(f"a mark is left in {own!r}")
    if mark is None and own != text:
        raise BrokenPromise("a description without a mark is changed")
    without_digests(text)
    ours = mark_for(OWNER, "greet")
    whole = f"{own}{ours}"
    found, ours_again = split_description(whole)
    if ours_again is None or ours_again.owner != OWNER or not is_marked(whole, ours_again):
        raise BrokenPromise(f"our mark behind {own!r} is not found")
    if found != own:
        raise BrokenPromise(f"the text {own!r} does not come back: {found!r}")
    comparable_owner(text)
    is_loopback(text)
    try:
        parse_remote(text)
    except ValueError:
        return


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


PIECES = (
    "[kapso-sync:",
    "example.com/acme/flows",
    "#1a2b3c",
    "]",
    "[",
    " ",
    "\n",
    " protected",
    " 0123456789.01234567.89abcdef=",
    " -.-.-",
    " [kapso-sync:example.com/acme/flows#1a2b3c]",
    "[kapso-sync:a#000000 protected]",
    "Greets",
    "//",
    "@env",
    "ssh://",
    "git@",
    ":22",
    "%2e",
)


def make(draw: Draw) -> bytes:
    """Pieces of marks and of addresses in any order, also one mark inside another."""
    parts = [draw.pick(PIECES) if draw.chance(0.85) else draw.text() for _ in range(draw.random.randint(1, 9))]
    text = "".join(parts)
    if draw.chance(0.1):
        text *= draw.pick((2, 50, 2000))
    return text.encode("utf-8", "surrogatepass")


TARGETS = (Target("marks", run, make, tuple(piece.encode() for piece in PIECES), share=0.5),)
