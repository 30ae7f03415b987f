"""Reading a pickle without running what it says.

A pickle is a program that may import and call anything. Here it can name only what `ALLOWED` lists, exact
pairs of module and name, and not even those are imported: each stands for a small class or function of
our own that takes the same arguments and reads the same state (`pickled_arrays` and `pickled_frames`). So
nothing that a file names is ever executed, frames of any pandas version can be read, and pandas is not
needed to do so.

Why stand-ins and not the real things: `numpy.dtype.__setstate__` lets a file declare bytes to be object
pointers, pyarrow trusts the offsets it is given, and the state of a plain function would be set on the
function itself, that is for the whole process.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lbrun.datasets import pickled_arrays, pickled_frames, pickled_plain
from lbrun.datasets.likeness import likeness
from lbrun.errors import DatasetError

ALLOWED: Mapping[tuple[str, str], Any] = MappingProxyType(
    {**pickled_plain.STAND_INS, **pickled_arrays.STAND_INS, **pickled_frames.STAND_INS}
)
"""(module, name) as a pickle spells them -> what stands for it."""


def load(path: Path) -> object:
    """The object in a pickle file: plain data, NumPy arrays, and frames, series and indexes as stand-ins.

    Raises DatasetError, naming the refused global, for a pickle that needs anything else, and for a file that
    is no complete pickle.
    """
    # A class registered by number would come out of copyreg's cache without passing `find_class`.
    copyreg.clear_extension_cache()
    with path.open("rb") as file:
        try:
            return _Unpickler(file).load()
        except _RefusedGlobal as error:
            raise DatasetError(
                f"the pickle asks for {error.name}, which is refused: a pickle can run any code, so only "
                "plain data, NumPy arrays and pandas frames are read; save it as Parquet or JSON instead",
                path=path,
            ) from None
        except Exception as error:
            # the opcodes of a broken or hostile file raise anything: EOFError, KeyError, IndexError, ...
            reason = str(error) or type(error).__name__
            raise DatasetError(f"not a readable pickle: {reason}{likeness(path)}", path=path) from error


class _RefusedGlobal(pickle.UnpicklingError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Unpickler(pickle.Unpickler):
    """Looks names up in `ALLOWED` only. Dotted names ("a.b") are not taken apart: no such key is there."""

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise _RefusedGlobal(f"{module}.{name}") from None
