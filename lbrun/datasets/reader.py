"""From a data file to samples: choose the columns, read the cells, name the place of every mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lbrun.datasets import cells
from lbrun.datasets.api import DatasetSpec, InputKind, Sample
from lbrun.datasets.columns import choose_columns
from lbrun.datasets.file_format import open_table
from lbrun.datasets.table import Cell
from lbrun.errors import DatasetError

_CellReader = Callable[[Cell], Any]


def read_samples(spec: DatasetSpec) -> Iterator[Sample]:
    """Read the samples of a data file, in the file's order.

    Each sample has only what its `InputKind` asks for, and its row in the file as index. JSON Lines, CSV and
    Parquet are read piece by piece; JSON and pickle files have to be held whole while they are read.

    Raises DatasetError, naming file, row and column, where the file cannot be used: missing, of the wrong
    format, without rows or without a column that is needed; a value that is missing, empty or of the wrong
    type, token ids that are not integers within the vocabulary, an image that cannot be decoded.
    """
    table = open_table(spec.path, spec.file_format)
    columns = choose_columns(spec.path, spec.kind, spec.columns, table.columns) if table.columns else {}
    readers = _cell_readers(spec)
    plan = [(role, name, readers[role]) for role, name in columns.items()]
    names = [name for _, name, _ in plan]
    rows = table.rows(names) if plan else iter(())
    n_rows = 0
    for row, row_cells in enumerate(rows):
        if spec.limit is not None and row >= spec.limit:
            break
        values: dict[str, Any] = {}
        for (role, name, read), cell in zip(plan, row_cells, strict=True):
            try:
                values[role] = read(cell)
            except cells.CellError as error:
                raise DatasetError(str(error), path=spec.path, row=row, column=name) from error
        n_rows += 1
        yield _sample(spec.kind, row, values)
    if n_rows == 0:
        raise DatasetError("there are no rows in it", path=spec.path)


def _cell_readers(spec: DatasetSpec) -> dict[str, _CellReader]:
    match spec.kind:
        case InputKind.TOKEN_IDS:
            return {"token_ids": cells.TokenIdReader(spec.vocab_size)}
        case InputKind.TEXT:
            return {"text": cells.read_text}
        case InputKind.MESSAGES:
            return {"messages": cells.read_messages}
        case InputKind.PRODUCT:
            from lbrun.datasets.images import read_image

            return {
                "image": read_image,
                "title": cells.read_text,
                # shops leave descriptions out; a prompt can do without one, not without the rest
                "description": partial(cells.read_text, optional=True),
                "categories": partial(cells.read_categories, as_list=spec.categories_as_list),
            }


def _sample(kind: InputKind, row: int, values: dict[str, Any]) -> Sample:
    match kind:
        case InputKind.TOKEN_IDS:
            token_ids, n_input_tokens = values["token_ids"]
            return Sample(row, token_ids=token_ids, n_input_tokens=n_input_tokens)
        case InputKind.TEXT:
            return Sample(row, text=values["text"])
        case InputKind.MESSAGES:
            return Sample(row, messages=values["messages"])
        case InputKind.PRODUCT:
            return Sample(row, image=values.pop("image"), fields=values)
