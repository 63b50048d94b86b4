"""Our dataclasses behave as the standard library's do: every method is held against it, on the same fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import pytest
from pydantic import TypeAdapter

from kapso_sync.dataclass import dataclass as ours

BOTH = pytest.mark.parametrize("decorator", [dataclass, ours], ids=["theirs", "ours"])


def declared(decorator: Callable[..., Any], **options: bool) -> tuple[Any, Any]:
    """Return a base and a class that inherits from it, each made a dataclass by ``decorator``."""

    class Base:
        """A base."""

        slug: str
        count: int = 0
        hidden: str = field(default="x", repr=False, compare=False)

    base = decorator(**options)(Base)

    class Derived(base):  # type: ignore[valid-type,misc]
        """A class with a default of its own for each object, and a field that it sets itself."""

        names: dict[str, int] = field(default_factory=dict)
        last: tuple[str, ...] = field(default=(), kw_only=True)
        double: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "double", 2 * self.count)

    return base, decorator(**options)(Derived)


FORMS = [
    {"frozen": True, "slots": True},
    {"frozen": True},
    {"slots": True},
    {},
    {"frozen": True, "slots": True, "eq": False},
]


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_both_decorators_say_the_same_of_objects(options: dict[str, bool]) -> None:
    """Representation, equality, hash, fields, copies and dictionaries are the same."""
    said = []
    for decorator in (dataclass, ours):
        base, derived = declared(decorator, **options)
        one, same, other = derived("a", 1, last=("z",)), derived(slug="a", count=1, hidden="y", last=("z",)), derived("b")
        said.append(
            (
                repr(one).rpartition(".")[2],
                one == same,
                one == other,
                one == base("a", 1),
                one == "a",
                [(item.name, item.init, item.kw_only) for item in dataclasses.fields(derived)],
                dataclasses.asdict(dataclasses.replace(one, count=5)),
                derived.__match_args__,
                derived.__hash__ is None,
                hash(base("a", 1)) == hash(base("a", 1, "y")) if options.get("frozen") else None,
                "__dict__" in dir(one),
                one.names is other.names,
            )
        )
    assert said[0] == said[1]


@BOTH
@pytest.mark.parametrize("slots", [True, False])
def test_a_frozen_object_never_changes(decorator: Callable[..., Any], slots: bool) -> None:
    """Neither a field nor anything else of it can be set or deleted."""
    _, derived = declared(decorator, frozen=True, slots=slots)
    one = derived("a")
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'count'"):
        one.count = 3
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'count'"):
        del one.count
    assert one.count == 0


@BOTH
@pytest.mark.parametrize(
    ("arguments", "named"),
    [((), {}), (("a",), {"slug": "b"}), (("a",), {"other": 1}), (("a", 1, "h", {}, ()), {}), (("a",), {"double": 1})],
    ids=["missing", "twice", "unknown", "too many", "not to be given"],
)
def test_wrong_arguments_are_refused(
    decorator: Callable[..., Any], arguments: tuple[object, ...], named: dict[str, object]
) -> None:
    """An object never lacks a field, and has no other ones."""
    _, derived = declared(decorator, frozen=True, slots=True)
    assert derived("a").slug == "a"
    with pytest.raises(TypeError):
        derived(*arguments, **named)


@ours(frozen=True, slots=True)
class Kept:
    """What pydantic is to read."""

    slug: str
    names: tuple[str, ...] = ()
    inner: Kept | None = None


def test_pydantic_reads_and_writes_ours() -> None:
    """The state folder is read and written by it."""
    adapter = TypeAdapter(Kept)
    kept = Kept("a", ("b",), Kept("c"))
    assert adapter.validate_json(adapter.dump_json(kept)) == kept
