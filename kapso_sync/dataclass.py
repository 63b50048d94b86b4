"""Defines the decorator of our dataclasses: the standard library's, with methods that are compiled when they are first used.

`dataclasses.dataclass` writes the methods of a class as source text, and Python compiles that at every start. A command loads
three hundred such classes and makes objects of fifty: the others took a third of its start, and 3 MB of a daemon. With slots, a
class is made twice, and Python 3.11 keeps the first one for ever: its methods and ``__weakref__`` refer to it.

Fields, slots, defaults and ``__match_args__`` are there at once, and so is what `dataclasses.replace`, `asdict`, msgspec and
mypy go by. A method that is not there yet is an object in the class which compiles it:

    >>> vars(Point)["__init__"]
    <kapso_sync.dataclass._LateMethod object at 0x7f…>
    >>> Point(1, 2)
    Point(x=1, y=2)
    >>> vars(Point)["__init__"]
    <function Point.__init__ at 0x7f…>
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

__all__ = ["dataclass"]

_T = TypeVar("_T")

_ORDER = ("__lt__", "__le__", "__gt__", "__ge__")


def _dataclass(  # noqa: PLR0913 - the options of the standard library's
    cls: type[_T] | None = None,
    /,
    *,
    frozen: bool = False,
    slots: bool = False,
    kw_only: bool = False,
    eq: bool = True,
    order: bool = False,
    weakref_slot: bool = False,
) -> type[_T] | Callable[[type[_T]], type[_T]]:
    """Make a class a dataclass, as `dataclasses.dataclass` does with these options; raises TypeError for an `InitVar`.

    What nobody here needs is missing: a frozen object with slots can be neither pickled nor copied, a subclass of a frozen
    class takes no attributes either, and ``__dataclass_params__`` does not tell how the class was made.
    """

    def made(plain: type[_T]) -> type[_T]:
        if any("InitVar" in str(kind) for kind in inspect.get_annotations(plain).values()):
            raise TypeError(f"{plain.__name__} has an InitVar, which __init__ would not take")
        given = set(vars(plain))
        if vars(plain).get("__hash__") is None:  # Python sets it where a class defines its equality alone
            given.discard("__hash__")
        complete = dataclasses.dataclass(
            init=False, repr=False, eq=False, kw_only=kw_only, slots=slots, weakref_slot=weakref_slot
        )(plain)
        if slots and not weakref_slot and "__weakref__" in vars(complete):
            del complete.__weakref__  # type: ignore[attr-defined] # that of `plain`, which would never go
        late = ["__init__", "__repr__", *(["__eq__"] if eq else ()), *(_ORDER if order else ())]
        methods: dict[str, object] = {name: _LateMethod(complete, name, frozen=frozen) for name in late}
        if eq:
            methods["__hash__"] = _LateMethod(complete, "__hash__", frozen=frozen) if frozen else None
        if frozen:
            methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
        for name, method in methods.items():
            if name not in given:
                setattr(complete, name, method)
        return complete

    return made if cls is None else made(cls)


class _LateMethod:
    """Stands for a method of a dataclass until that is looked up, and then replaces itself with it."""

    __slots__ = ("_cls", "_frozen", "_name")

    def __init__(self, cls: type, name: str, *, frozen: bool) -> None:
        self._cls = cls
        self._name = name
        self._frozen = frozen

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        method = _compiled(self._cls, self._name, frozen=self._frozen)
        setattr(self._cls, self._name, method)
        return method.__get__(instance, owner)


def _compiled(cls: Any, name: str, *, frozen: bool) -> Any:
    """Return a method as the standard library compiles it, for a class that has the same fields and no other method."""
    namespace = {"__module__": cls.__module__, "__doc__": cls.__name__}
    if hasattr(cls, "__post_init__"):
        namespace["__post_init__"] = cls.__post_init__
    like = dataclasses.make_dataclass(
        cls.__name__,
        [(field.name, field.type, field) for field in dataclasses.fields(cls)],
        namespace=namespace,
        init=name == "__init__",
        repr=name == "__repr__",
        eq=name in ("__eq__", "__hash__", *_ORDER),
        order=name in _ORDER,
        unsafe_hash=name == "__hash__",
        frozen=frozen and name == "__init__",
    )
    method = vars(like)[name]
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    return method


def _refuse_to_set(_self: object, name: str, _value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass
