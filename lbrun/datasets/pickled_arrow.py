"""Stand-ins for what pyarrow writes into pickles: the string arrays that pandas 3 keeps its texts in."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from lbrun.datasets.pickled_plain import Function, StandIn

_STRING_TYPES = ("string", "large_string")


class _StringType(NamedTuple):
    alias: str


class _Buffer(NamedTuple):
    data: bytes | bytearray


class _Chunk(NamedTuple):
    """An array, as Arrow lays it out: which values are there, where each one's text ends, all texts."""

    type: _StringType
    length: int
    offset: int
    buffers: Sequence[Any]


class ArrowStrings(StandIn):
    """pandas.arrays.ArrowStringArray."""

    __slots__ = ("_chunks",)
    _chunks: Sequence[_Chunk]

    def __setstate__(self, state: object) -> None:
        match state:
            case {"_pa_array": array} | {"_data": array}:  # _data until pandas 2.0
                self._chunks = _chunked([array] if isinstance(array, _Chunk) else array)
            case _:
                raise pickle.UnpicklingError("an Arrow string array of an unknown make")

    def texts(self) -> Sequence[object]:
        """The texts, None where one is missing."""
        return [text for chunk in self._chunks for text in _texts(chunk)]


def _texts(chunk: _Chunk) -> list[object]:
    import pyarrow as pa

    buffers = [None if buffer is None else pa.py_buffer(buffer.data) for buffer in chunk.buffers]
    kind = pa.large_string() if chunk.type.alias == "large_string" else pa.string()
    array: Any = pa.Array.from_buffers(kind, chunk.length, buffers, offset=chunk.offset)
    # Arrow takes offsets on trust: without this a file could read the process's memory, or end it.
    array.validate(full=True)
    texts: list[object] = array.to_pylist()
    return texts


def _type_for_alias(alias: object) -> _StringType:
    if alias not in _STRING_TYPES:
        raise pickle.UnpicklingError(f"Arrow arrays of type {alias!r} are not read")
    return _StringType(str(alias))


def _buffer(data: object) -> _Buffer:
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an Arrow buffer without bytes")
    return _Buffer(data)


def _restore_array(data: object) -> _Chunk:
    """pyarrow.lib._restore_array: type, length, null count, offset, buffers, children, dictionary."""
    match data:
        case (_StringType() as kind, int() as length, int(), int() as offset, [_, _, _] as buffers, [], None):
            if length >= 0 and offset >= 0 and all(b is None or isinstance(b, _Buffer) for b in buffers):
                return _Chunk(kind, length, offset, buffers)
    raise pickle.UnpicklingError("an Arrow array of an unknown make")


def _chunked(chunks: object, kind: object = None) -> Sequence[_Chunk]:
    """pyarrow.chunked_array: arrays one behind the other."""
    if not (isinstance(chunks, list | tuple) and all(isinstance(chunk, _Chunk) for chunk in chunks)):
        raise pickle.UnpicklingError("Arrow chunks of an unknown make")
    return chunks


ARROW_STAND_INS: Mapping[tuple[str, str], object] = MappingProxyType(
    {
        ("pyarrow.lib", name): Function(function)
        for name, function in (
            ("type_for_alias", _type_for_alias),
            ("py_buffer", _buffer),
            ("_restore_array", _restore_array),
            ("chunked_array", _chunked),
        )
    }
)
