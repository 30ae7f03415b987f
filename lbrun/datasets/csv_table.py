"""CSV, read row by row."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lbrun.datasets.likeness import likeness
from lbrun.datasets.table import Cell
from lbrun.errors import DatasetError


@dataclass(frozen=True)
class CsvTable:
    """Comma-separated UTF-8 text, with a line of column names. Lists stand in their cells as JSON."""

    path: Path

    @cached_property
    def columns(self) -> Sequence[str]:
        """The names in the first line."""
        return next(self._lines(), [])

    def rows(self, names: Sequence[str]) -> Iterator[Sequence[Cell]]:
        """The cells as they are written; an empty one is an empty text."""
        lines = self._lines()
        header = next(lines)
        places = [header.index(name) for name in names]
        for row, cells in enumerate(lines):
            if len(cells) != len(header):
                raise DatasetError(
                    f"has {len(cells)} cells, the header has {len(header)}", path=self.path, row=row
                )
            yield [cells[place] for place in places]

    def _lines(self) -> Iterator[list[str]]:
        # The csv module refuses cells beyond 128 KiB, which prompts and images exceed; the limit is its only
        # setting that is global, and raising it harms nobody.
        csv.field_size_limit(sys.maxsize)
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                for cells in reader:
                    if cells:
                        yield cells
            except (csv.Error, UnicodeError) as error:
                raise DatasetError(
                    f"not CSV in UTF-8, near line {max(reader.line_num, 1)}: {error}{likeness(self.path)}",
                    path=self.path,
                ) from error
