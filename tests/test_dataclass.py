"""Our dataclasses behave as the standard library's do: every method is held against it, on the same fields."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import msgspec
import pytest

from kapso_sync.dataclass import dataclass as ours

BOTH = pytest.mark.parametrize("decorator", [dataclass, ours], ids=["theirs", "ours"])

FORMS = [
    {"frozen": True, "slots": True},
    {"frozen": True, "slots": True, "order": True},
    {"frozen": True, "kw_only": True},
    {"slots": True},
    {},
    {"frozen": True, "slots": True, "eq": False},
]


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

        names: dict[str, int] = field(default_factory=dict, compare=False)
        last: tuple[str, ...] = field(default=(), kw_only=True)
        double: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "double", 2 * self.count)

    return base, decorator(**options)(Derived)


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_both_decorators_say_the_same_of_objects(options: dict[str, bool]) -> None:
    """Representation, equality, order, hash, fields, copies, signature and dictionaries are the same."""
    said = []
    for decorator in (dataclass, ours):
        base, derived = declared(decorator, **options)
        one = derived(slug="a", count=1, last=("z",))
        same, other = derived(slug="a", count=1, hidden="y", last=("z",)), derived(slug="b")
        said.append(
            (
                repr(one).rpartition(".")[2],
                one == same,
                one == other,
                one == base(slug="a", count=1),
                one == "a",
                one < other if options.get("order") else None,
                sorted([other, one], key=lambda item: (item.slug, item)) == [one, other] if options.get("order") else None,
                [(item.name, item.init, item.kw_only) for item in dataclasses.fields(derived)],
                dataclasses.asdict(dataclasses.replace(one, count=5)),
                derived.__match_args__,
                str(inspect.signature(derived)),
                derived.__init__.__qualname__.rpartition(".")[2],
                derived.__hash__ is None,
                hash(one) == hash(same) if options.get("frozen") else None,
                "__dict__" in dir(one),
                one.names is other.names,
            )
        )
    assert said[0] == said[1]


@BOTH
@pytest.mark.parametrize("slots", [True, False])
def test_a_frozen_object_never_changes(decorator: Callable[..., Any], slots: bool) -> None:
    """A field can be neither set nor deleted."""
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


@BOTH
def test_methods_of_the_class_itself_are_kept(decorator: Callable[..., Any]) -> None:
    """A class that defines its own equality still has a hash of its fields if it is frozen."""

    class Own:  # noqa: PLW1641 - that is what it is about
        slug: str

        def __repr__(self) -> str:
            return "mine"

        def __eq__(self, other: object) -> bool:
            return True

    made = decorator(frozen=True, slots=True)(Own)
    assert repr(made("a")) == "mine"
    assert made("a") == made("b")
    assert hash(made("a")) != hash(made("b"))


@ours(frozen=True, slots=True)
class Kept:
    """What msgspec is to read."""

    slug: str
    names: tuple[str, ...] = ()
    inner: Kept | None = None


def test_msgspec_reads_and_writes_ours() -> None:
    """It reads the manifest, and the state folder."""
    kept = Kept("a", ("b",), Kept("c"))
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Kept) == kept


def test_a_method_is_compiled_when_it_is_first_used() -> None:
    """The classes that a command loads and never uses cost it little."""
    _, derived = declared(ours, frozen=True, slots=True)
    assert not [name for name in ("__init__", "__repr__", "__eq__", "__hash__") if inspect.isfunction(vars(derived)[name])]
    one = derived("a")
    assert [name for name in ("__init__", "__repr__", "__eq__", "__hash__") if inspect.isfunction(vars(derived)[name])] == [
        "__init__"
    ]
    compiled = vars(derived)["__init__"]
    assert (derived("a") == one, vars(derived)["__init__"]) == (True, compiled)


def test_threads_may_use_a_class_first_at_the_same_time() -> None:
    """Each gets a whole object."""
    _, derived = declared(ours, frozen=True, slots=True)
    start, made = threading.Barrier(8), []

    def make(number: int) -> None:
        start.wait()
        made.append(derived("a", number))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item.double for item in made) == [2 * number for number in range(8)]


def test_the_class_without_slots_is_gone() -> None:
    """Python 3.11 keeps the class that one with slots has replaced: one type in three of a daemon's own."""

    class Plain:
        slug: str

    replaced = weakref.ref(Plain)
    made: Any = ours(frozen=True, slots=True)(Plain)
    del Plain
    gc.collect()
    assert (replaced(), made("a").slug) == (None, "a")


USES_EACH_CLASS = """
import dataclasses, gc, importlib, pkgutil, kapso_sync
for module in pkgutil.walk_packages(kapso_sync.__path__, "kapso_sync."):
    if not module.name.startswith(("kapso_sync.__main__", "kapso_sync.emulator")):
        importlib.import_module(module.name)
kinds = [kind for kind in gc.get_objects() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
ours = [kind for kind in kinds if kind.__module__.startswith("kapso_sync.") and "emulator" not in kind.__module__]
for kind in ours:
    for name in ("__init__", "__repr__", "__eq__", "__hash__"):
        getattr(kind, name)
print(len(ours) > 200)
"""


def test_each_method_of_each_dataclass_compiles() -> None:
    """What would be an error when a module is loaded is not left for the first use."""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", USES_EACH_CLASS], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("True\n", "", 0)


def test_an_init_var_is_refused() -> None:
    """The constructor is made of the fields, and an InitVar is none of them."""
    with pytest.raises(TypeError, match="Point has an InitVar"):

        @ours
        class Point:
            x: int
            origin: dataclasses.InitVar[int]
