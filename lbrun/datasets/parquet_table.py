"""Parquet, read by batches within its row groups, and only the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lbrun.datasets.likeness import likeness
from lbrun.datasets.table import Cell
from lbrun.errors import DatasetError

_BATCH_ROWS = 256  # of images, some 10 to 100 MB


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file. Lists of integers become NumPy arrays, all else Python objects."""

    path: Path

    @cached_property
    def columns(self) -> Sequence[str]:
        """The names of the top-level columns."""
        return [str(name) for name in self._file.schema_arrow.names]

    def rows(self, names: Sequence[str]) -> Iterator[Sequence[Cell]]:
        """Row by row; None for nulls."""
        row = 0
        try:
            for batch in self._file.iter_batches(_BATCH_ROWS, columns=list(names), use_threads=False):
                columns = [_cells(batch.column(name)) for name in names]
                yield from zip(*columns, strict=True)
                row += batch.num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DatasetError(f"cannot be read from here on: {error}", path=self.path, row=row) from error

    @cached_property
    def _file(self) -> Any:
        try:
            return pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError, ValueError) as error:
            seems = likeness(self.path)
            if "Parquet" in seems:
                told = f"a Parquet file that is cut short or damaged: {error}"
            else:
                told = f"not a Parquet file: {error}{seems}"
            raise DatasetError(told, path=self.path) from error


def _cells(column: Any) -> Sequence[Cell]:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_integer(
        kind.value_type
    ):
        objects: Sequence[Cell] = column.to_pylist()
        return objects
    if column.null_count or column.values.null_count:
        # a null row, or a null among the ids: an error in the making, which the slow way tells precisely
        nulled: Sequence[Cell] = column.to_pylist()
        return nulled
    values = column.values.to_numpy()
    offsets = column.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise(offsets.tolist())]
