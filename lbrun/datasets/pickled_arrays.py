"""Stand-ins for what NumPy writes into pickles: dtypes, arrays and scalars.

Arrays of numbers, texts, bytes and Python objects are read; structured and date types are not.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from lbrun.datasets.pickled_plain import Function, Name, StandIn

_NDARRAY: Final = Name("numpy.ndarray")
_CODE = re.compile(r"[?biufcOSU]\d*", re.ASCII)


class Dtype(StandIn):
    """numpy.dtype: a type code when it is made, the byte order by its state."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"arrays of dtype {code!r} are not read")
        self._code = "O" if code.startswith("O") else code
        self._order = "="

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
                self._order = "=" if order == "|" else str(order)
            case _:
                raise pickle.UnpicklingError("structured, nested and date types are not read")

    def resolve(self) -> np.dtype[Any]:
        """The dtype, made by NumPy from code and order alone: a file cannot set any of its flags."""
        return np.dtype(self._order + self._code)


class Array(np.ndarray[Any, np.dtype[Any]]):
    """An array that checks the state which a pickle gives it before NumPy sees it."""

    def __setstate__(self, state: object) -> None:
        match state:
            case (
                int() as version,
                tuple() as shape,
                Dtype() as dtype,
                bool() as fortran,
                bytes() | list() as data,
            ):
                checked: Any = (version, *_checked(shape, dtype, data), fortran, data)
                super().__setstate__(checked)
            case _:
                raise pickle.UnpicklingError("an array with a state that NumPy does not write")


def _checked(shape: tuple[object, ...], dtype: Dtype, data: bytes | bytearray | list[Any]) -> tuple[Any, Any]:
    """Shape and dtype, if the data is exactly what an array of them takes."""
    resolved = dtype.resolve()
    if not all(isinstance(length, int) and length >= 0 for length in shape):
        raise pickle.UnpicklingError(f"an array of shape {shape}")
    n_items = math.prod(shape)  # type: ignore[arg-type]
    n_expected = n_items if resolved.hasobject else n_items * resolved.itemsize
    if isinstance(data, list) is not resolved.hasobject or len(data) != n_expected:
        raise pickle.UnpicklingError("an array whose data does not match its shape")
    return shape, resolved


def _reconstruct(cls: object, shape: object, code: object) -> Array:
    """numpy.core.multiarray._reconstruct: an empty array, whose state follows."""
    if cls is not _NDARRAY:
        raise pickle.UnpicklingError(f"arrays of the class {cls!r} are not read")
    return Array((0,), np.dtype("b"))


def _from_buffer(data: object, dtype: object, shape: object, order: object, axes: object = None) -> Any:
    """numpy.core.numeric._frombuffer: a whole array, in protocol 5."""
    if not (isinstance(data, bytes | bytearray) and isinstance(dtype, Dtype) and isinstance(shape, tuple)):
        raise pickle.UnpicklingError("an array with arguments that NumPy does not write")
    if order not in ("C", "F") or axes is not None:
        raise pickle.UnpicklingError("an array whose axes are in an unusual order is not read")
    if dtype.resolve().hasobject:
        raise pickle.UnpicklingError("an array of objects cannot come from a buffer")
    lengths, resolved = _checked(shape, dtype, data)
    return np.frombuffer(data, resolved).reshape(lengths, order="F" if order == "F" else "C")


def _scalar(dtype: object, data: object = None) -> object:
    """numpy.core.multiarray.scalar: one value, which becomes a Python one."""
    if not (isinstance(dtype, Dtype) and isinstance(data, bytes)):
        raise pickle.UnpicklingError("a scalar with arguments that NumPy does not write")
    _, resolved = _checked((1,), dtype, data)
    return np.frombuffer(data, resolved)[0].item()


STAND_INS: Mapping[tuple[str, str], object] = MappingProxyType(
    {
        ("numpy", "dtype"): Dtype,
        ("numpy", "ndarray"): _NDARRAY,
        # NumPy 2 moved numpy.core to numpy._core
        **{
            (f"numpy.{core}.{module}", name): Function(function)
            for core in ("core", "_core")
            for module, name, function in (
                ("multiarray", "_reconstruct", _reconstruct),
                ("multiarray", "scalar", _scalar),
                ("numeric", "_frombuffer", _from_buffer),
            )
        },
    }
)
