"""Defines the decorator of our dataclasses: the standard library's, with methods that are shared and not compiled.

`dataclasses.dataclass` writes ``__init__``, ``__repr__``, ``__eq__``, ``__hash__``, ``__setattr__`` and ``__delattr__`` of each
class as source text, which Python compiles at every start: half a millisecond a class, and a third of the start of a command
that needs three hundred of them. Here the standard library only finds the fields, and the methods go by those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

__all__ = ["dataclass"]

T = TypeVar("T")

_set = object.__setattr__


def _dataclass(
    cls: type[T] | None = None,
    /,
    *,
    frozen: bool = False,
    slots: bool = False,
    kw_only: bool = False,
    eq: bool = True,
    weakref_slot: bool = False,
) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a dataclass; the options, and what the class does, are those of `dataclasses.dataclass`.

    Methods that the class defines itself are kept.
    """

    def made(plain: type[T]) -> type[T]:
        result = dataclasses.dataclass(
            init=False, repr=False, eq=False, kw_only=kw_only, slots=slots, weakref_slot=weakref_slot
        )(plain)
        fields = dataclasses.fields(result)  # type: ignore[arg-type] # mypy does not see the dataclass
        methods: dict[str, Any] = {
            "__init__": _init(fields, has_more=hasattr(result, "__post_init__")),
            "__repr__": _repr(fields),
        }
        if eq:
            values = _getter(fields)
            methods |= {"__eq__": _eq(values), "__hash__": _hash(values) if frozen else None}
        if frozen:
            methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
        for name, method in methods.items():
            if name not in vars(plain):
                setattr(result, name, method)
        return result

    return made if cls is None else made(cls)


def _init(fields: Iterable[Field[Any]], *, has_more: bool) -> Callable[..., None]:
    given = [field for field in fields if field.init]
    names = {field.name for field in given}
    positional = [field.name for field in given if not field.kw_only]
    defaults = {field.name: field.default for field in given if field.default is not MISSING}
    factories = [(field.name, field.default_factory) for field in given if field.default_factory is not MISSING]

    def __init__(self: Any, *args: object, **named: object) -> None:  # noqa: N807 - it becomes a method
        values = {**defaults, **named}
        if args:
            placed = dict(zip(positional, args, strict=False))
            if len(placed) < len(args) or not placed.keys().isdisjoint(named):
                raise TypeError(f"{type(self).__name__} got too many arguments")
            values |= placed
        for name, factory in factories:
            if name not in values:
                values[name] = factory()
        if values.keys() != names:
            raise TypeError(f"{type(self).__name__} lacks, or does not have: {', '.join(sorted(values.keys() ^ names))}")
        for name, value in values.items():
            _set(self, name, value)
        if has_more:
            self.__post_init__()

    return __init__


def _repr(fields: Iterable[Field[Any]]) -> Callable[[Any], str]:
    names = [field.name for field in fields if field.repr]

    def __repr__(self: Any) -> str:  # noqa: N807
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return __repr__


def _getter(fields: Iterable[Field[Any]]) -> Callable[[Any], object]:
    """Return a function that returns what is compared of an object."""
    names = [field.name for field in fields if field.compare]
    return attrgetter(*names) if names else lambda _: None


def _eq(values: Callable[[Any], object]) -> Callable[[Any, object], bool]:
    def __eq__(self: Any, other: object) -> bool:  # noqa: N807
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    return __eq__


def _hash(values: Callable[[Any], object]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(values(self))

    return __hash__


def _refuse_to_set(_self: object, name: str, _value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass
