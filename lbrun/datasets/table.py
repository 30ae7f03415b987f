"""What every file format offers: named columns, and rows of cells.

A cell is what the format makes of a value at no cost: a Python object, a NumPy array, or a piece of JSON
that nobody has decoded yet (`msgspec.Raw`). `lbrun.datasets.cells` reads them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lbrun.errors import DatasetError

Cell = object


class Table(Protocol):
    """A data file, opened."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of all columns, in the file's order."""

    def rows(self, names: Sequence[str]) -> Iterator[Sequence[Cell]]:
        """The cells of these columns, row by row. Raises DatasetError where the file breaks off."""


@dataclass(frozen=True, slots=True)
class RecordTable:
    """Rows that are mappings, in memory. The first row says which columns there are."""

    path: Path
    records: Sequence[object]

    @property
    def columns(self) -> Sequence[str]:
        """The keys of the first record."""
        return [str(key) for key in self._record(0)] if len(self.records) else []

    def rows(self, names: Sequence[str]) -> Iterator[Sequence[Cell]]:
        """One row a record; None where a record lacks a key."""
        for row in range(len(self.records)):
            record = self._record(row)
            yield [record.get(name) for name in names]

    def _record(self, row: int) -> Mapping[object, object]:
        record = self.records[row]
        if not isinstance(record, Mapping):
            raise DatasetError(f"is {type(record).__name__}, not a record", path=self.path, row=row)
        return record


@dataclass(frozen=True, slots=True)
class ColumnTable:
    """Columns in memory, all of one length.

    labels and values belong together by position, since nothing keeps a file from naming two columns alike.
    """

    path: Path
    labels: Sequence[str]
    values: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        lengths = {label: len(column) for label, column in zip(self.labels, self.values, strict=True)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{label!r} has {length}" for label, length in lengths.items())
            raise DatasetError(f"its columns differ in length: {told}", path=self.path)

    @property
    def columns(self) -> Sequence[str]:
        """The labels, in the file's order."""
        return self.labels

    def rows(self, names: Sequence[str]) -> Iterator[Sequence[Cell]]:
        """Cut through the columns, row by row."""
        return zip(*(self.values[self.labels.index(name)] for name in names), strict=True)
