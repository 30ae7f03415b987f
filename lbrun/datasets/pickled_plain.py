"""Stand-ins in pickles: the common base, and those for Python's own types."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn


class StandIn:
    """Base of everything that a name in a pickle can stand for.

    ``__setstate__`` is what keeps a pickle from changing a stand-in's attributes: without it the unpickler
    would set whatever the file says. On a class it is called without an instance, and so fails as well.
    """

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        self._refuse_state()

    def _refuse_state(self) -> NoReturn:
        raise pickle.UnpicklingError(f"{type(self).__name__} takes no state")


class Name(StandIn):
    """A class that pickles only mention, as an argument: it can be compared and nothing else."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


class Function(StandIn):
    """A function that pickles call. The function itself is out of their reach."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        """Call the function with what the pickle gives it."""
        return self._function(*args)


OBJECT: Final = Name("object")


def _reconstruct(cls: object, base: object, state: object) -> object:
    """copyreg._reconstructor: how protocols 0 and 1 make an instance; its state follows."""
    if not (isinstance(cls, type) and issubclass(cls, StandIn) and base is OBJECT and state is None):
        raise pickle.UnpicklingError("copyreg._reconstructor with arguments that no data needs")
    return cls.__new__(cls)


def _encode(text: object, encoding: object) -> bytes:
    """_codecs.encode: how protocols 0 to 2 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("_codecs.encode with arguments that no data needs")
    return text.encode("latin1")


def _bytes() -> bytes:
    """bytes(): how protocols 0 to 2 write empty bytes."""
    return b""


def _bytearray(data: object = b"") -> bytearray:
    # bytearray(n) would be n bytes of memory for a few in the file
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("bytearray with arguments that no data needs")
    return bytearray(data)


def _slice(start: object, stop: object, step: object) -> slice:
    for bound in (start, stop, step):
        if not (bound is None or isinstance(bound, int)):
            raise pickle.UnpicklingError("slice with arguments that no data needs")
    return slice(start, stop, step)


def _set(items: object = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise pickle.UnpicklingError("set with arguments that no data needs")
    return set(items)


def _frozenset(items: object = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _ordered_dict(items: object = ()) -> dict[Any, Any]:
    if not isinstance(items, list | tuple):
        raise pickle.UnpicklingError("OrderedDict with arguments that no data needs")
    return dict(items)


_BUILTINS: dict[str, object] = {
    "object": OBJECT,
    "bytes": Function(_bytes),
    "bytearray": Function(_bytearray),
    "slice": Function(_slice),
    "set": Function(_set),
    "frozenset": Function(_frozenset),
}

STAND_INS: Mapping[tuple[str, str], object] = MappingProxyType(
    {
        # protocols 0 to 2 spell the names as Python 2 did
        **{("builtins", name): stand_in for name, stand_in in _BUILTINS.items()},
        **{("__builtin__", name): stand_in for name, stand_in in _BUILTINS.items()},
        ("copyreg", "_reconstructor"): Function(_reconstruct),
        ("copy_reg", "_reconstructor"): Function(_reconstruct),
        ("_codecs", "encode"): Function(_encode),
        ("collections", "OrderedDict"): Function(_ordered_dict),
    }
)
