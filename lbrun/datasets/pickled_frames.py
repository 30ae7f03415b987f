"""Stand-ins for what pandas writes into pickles, from 1.1 to 3: frames, series, indexes, string arrays.

A frame is a manager of blocks: each block holds the values of some columns, ``placement`` says which. The
manager's first axis has the columns' labels. What the versions changed are the modules' names, the way a
manager is written (state until 1.2, arguments since) and the strings (objects until 2, Arrow's in 3).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from lbrun.datasets.pickled_arrow import ARROW_STAND_INS, ArrowStrings
from lbrun.datasets.pickled_plain import Function, Name, StandIn

_RANGE_INDEX: Final = Name("pandas.RangeIndex")
_INDEX: Final = Name("pandas.Index")


def _unusual(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"a pandas object of an unknown make: {what}")


class _StringDtype(StandIn):
    """pandas.StringDtype: says how strings are stored, which their array tells as well."""

    __slots__ = ()

    def __init__(self, storage: object = None, na_value: object = None) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _StringArray(StandIn):
    """pandas.arrays.StringArray: an object array of texts and missing values."""

    __slots__ = ("values",)
    values: Sequence[object]

    def __setstate__(self, state: object) -> None:
        match state:
            case (_StringDtype(), np.ndarray() as values, *_) | (np.ndarray() as values, _StringDtype(), *_):
                self.values = _one_column(values)
            case _:
                raise _unusual("StringArray")


def _ndarray_backed(cls: object, checksum: object, state: object) -> _StringArray:
    """How Cython makes the arrays that pandas keeps in NumPy ones."""
    if cls is not _StringArray:
        raise _unusual("an array that is no StringArray")
    array = _StringArray()
    if state is not None:
        array.__setstate__(state)
    return array


class Index(StandIn):
    """pandas.Index: of a frame, the labels of its columns or of its rows."""

    __slots__ = ("_data",)
    _data: object

    @classmethod
    def make(cls, kind: object, state: object) -> Index:
        """pandas' _new_Index: the index class, and what its constructor takes."""
        index = cls()
        match state:
            case {"start": int() as start, "stop": int() as stop, "step": int() as step} if (
                kind is _RANGE_INDEX
            ):
                index._data = range(start, stop, step)
            case {"data": data} if kind is _INDEX:
                index._data = data
            case _:
                raise _unusual("an index")
        return index

    def labels(self) -> Sequence[object]:
        """The labels in their order."""
        return self._data if isinstance(self._data, range) else _one_column(self._data)


class _Block(NamedTuple):
    values: object
    placement: object


def _block(values: object, placement: object, ndim: object = None) -> _Block:
    """pandas' _unpickle_block."""
    return _Block(values, placement)


class _Manager(StandIn):
    """BlockManager and SingleBlockManager."""

    __slots__ = ("_axes", "_blocks")
    _axes: Sequence[object]
    _blocks: Sequence[_Block]

    def __new__(cls, blocks: object = (), axes: object = ()) -> _Manager:
        manager = super().__new__(cls)
        # a series comes with its one block, a frame with a tuple of them
        manager._take((blocks,) if isinstance(blocks, _Block) else blocks, axes)
        return manager

    def __init__(self, blocks: object = (), axes: object = ()) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        # until pandas 1.2: four items, of which the last has all that is needed, under the name of 0.14.1
        match state:
            case (_, _, _, {"0.14.1": {"axes": axes, "blocks": list() as blocks}}, *_):
                self._take([_Block(block["values"], block["mgr_locs"]) for block in blocks], axes)
            case _:
                raise _unusual("a manager of blocks")

    def _take(self, blocks: object, axes: object) -> None:
        axes = [axes] if isinstance(axes, Index) else axes
        if not (isinstance(blocks, list | tuple) and all(isinstance(block, _Block) for block in blocks)):
            raise _unusual("blocks")
        if not (isinstance(axes, list | tuple) and all(isinstance(axis, Index) for axis in axes)):
            raise _unusual("axes")
        self._blocks, self._axes = blocks, axes

    def labels(self) -> Sequence[object]:
        """The labels of the columns."""
        if not self._axes or not isinstance(self._axes[0], Index):
            raise _unusual("a manager without axes")
        return self._axes[0].labels()

    def columns(self, n_columns: int) -> list[Sequence[object]]:
        """The columns' values, in the order of their labels."""
        columns: dict[int, Sequence[object]] = {}
        for block in self._blocks:
            columns.update(zip(_places(block.placement, n_columns), _columns_of(block.values), strict=True))
        if len(columns) != n_columns or not all(0 <= place < n_columns for place in columns):
            raise _unusual("blocks that do not make up the columns")
        return [columns[place] for place in range(n_columns)]


class Frame(StandIn):
    """pandas.DataFrame."""

    __slots__ = ("_manager",)
    _manager: _Manager

    def __setstate__(self, state: object) -> None:
        self._manager = _manager_of(state)

    def columns(self) -> tuple[list[str], list[Sequence[object]]]:
        """Labels and values of the columns."""
        labels = self._manager.labels()
        # first the values: they are as many as the file is long, while labels can be a range of any length
        values = self._manager.columns(len(labels))
        return [str(label) for label in labels], values


class Series(StandIn):
    """pandas.Series."""

    __slots__ = ("_manager", "name")
    _manager: _Manager
    name: str

    def __setstate__(self, state: object) -> None:
        self._manager = _manager_of(state)
        name = state.get("_name", state.get("name")) if isinstance(state, dict) else None
        self.name = str(name)

    def values(self) -> Sequence[object]:
        """The values in their order."""
        match self._manager._blocks:
            case [_Block(values=values)]:
                return _one_column(values)
        raise _unusual("a series")


def _manager_of(state: object) -> _Manager:
    match state:
        case {"_mgr": _Manager() as manager} | {"_data": _Manager() as manager}:  # _data until pandas 1.0
            return manager
    raise _unusual("a frame or series")


def _places(placement: object, n_columns: int) -> Sequence[int]:
    if isinstance(placement, slice):
        return range(n_columns)[placement]
    if isinstance(placement, np.ndarray) and placement.ndim == 1 and placement.dtype.kind in "iu":
        places: list[int] = placement.tolist()
        return places
    raise _unusual("the placement of a block")


def _columns_of(values: object) -> list[Sequence[object]]:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return list(values)
    return [_one_column(values)]  # an array of strings is a block of its own


def _one_column(values: object) -> Sequence[object]:
    match values:
        case np.ndarray(ndim=1):
            column: Any = values
            return column  # type: ignore[no-any-return]
        case _StringArray():
            return values.values
        case ArrowStrings():
            return values.texts()
        case Index():
            return values.labels()
    raise _unusual("values")


_CLASSES: dict[str, object] = {
    "pandas.core.frame.DataFrame": Frame,
    "pandas.core.series.Series": Series,
    "pandas.core.internals.managers.BlockManager": _Manager,
    "pandas.core.internals.managers.SingleBlockManager": _Manager,
    "pandas._libs.internals._unpickle_block": Function(_block),
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": Function(_ndarray_backed),
    "pandas.core.indexes.base._new_Index": Function(Index.make),
    "pandas.core.indexes.base.Index": _INDEX,
    "pandas.core.indexes.range.RangeIndex": _RANGE_INDEX,
    "pandas.core.indexes.numeric.Int64Index": _INDEX,  # these three: until pandas 1.5
    "pandas.core.indexes.numeric.UInt64Index": _INDEX,
    "pandas.core.indexes.numeric.Float64Index": _INDEX,
    "pandas.core.arrays.string_.StringArray": _StringArray,
    "pandas.core.arrays.string_.StringDtype": _StringDtype,
    "pandas.core.arrays.string_arrow.ArrowStringArray": ArrowStrings,
    "pandas.core.arrays.string_arrow.ArrowStringArrayNumpySemantics": ArrowStrings,
    "pandas._libs.missing.NA": None,
    # pandas 3 calls its public classes by their public names
    "pandas.DataFrame": Frame,
    "pandas.Series": Series,
    "pandas.Index": _INDEX,
    "pandas.RangeIndex": _RANGE_INDEX,
    "pandas.NA": None,
    "pandas.StringDtype": _StringDtype,
    "pandas.arrays.StringArray": _StringArray,
    "pandas.arrays.ArrowStringArray": ArrowStrings,
}

STAND_INS: Mapping[tuple[str, str], object] = MappingProxyType(
    {
        **{tuple(name.rsplit(".", 1)): stand_in for name, stand_in in _CLASSES.items()},  # type: ignore[misc]
        **ARROW_STAND_INS,
    }
)
