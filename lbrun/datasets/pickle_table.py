"""Pickle files: pandas frames, lists of records, or columns by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lbrun.datasets import safe_pickle
from lbrun.datasets.pickled_frames import Frame, Index, Series
from lbrun.datasets.table import Cell, ColumnTable, RecordTable, Table
from lbrun.errors import DatasetError


def open_pickle(path: Path) -> Table:
    """Open a pickle that holds a frame, a series, a list of records, or columns by name.

    Raises DatasetError for everything else, and for what `safe_pickle` refuses.
    """
    content = safe_pickle.load(path)
    try:
        return _table(path, content)
    except DatasetError:
        raise
    except Exception as error:
        # frames are put together from parts that the file describes; a hostile description may break anything
        raise DatasetError(f"a pickle whose content does not fit together: {error}", path=path) from error


def _table(path: Path, content: object) -> Table:
    match content:
        case Frame():
            return ColumnTable(path, *content.columns())
        case Series():
            return ColumnTable(path, [content.name], [content.values()])
        case list() | tuple():
            return RecordTable(path, content)
        case np.ndarray(ndim=1):
            return RecordTable(path, content.tolist())
        case {"data": list() as records} if all(isinstance(record, dict) for record in records):
            return RecordTable(path, records)
        case dict():
            columns = [_column(path, str(name), values) for name, values in content.items()]
            return ColumnTable(path, [str(name) for name in content], columns)
    raise DatasetError(
        f"holds {_article(content)}; a frame, a list of records or columns by name are needed", path=path
    )


def _column(path: Path, name: str, values: object) -> Sequence[Cell]:
    match values:
        case list() | tuple():
            return values
        case np.ndarray(ndim=1):
            return values  # type: ignore[return-value]
        case Series():
            return values.values()
        case Index():
            return values.labels()
    raise DatasetError(f"holds {_article(values)}, not a list of values", path=path, column=name)


def _article(content: object) -> str:
    return "nothing" if content is None else f"a single {type(content).__name__}"
