"""Which format a data file has, and how to open it."""

from __future__ import annotations

from pathlib import Path

from lbrun.datasets.table import Table
from lbrun.errors import DatasetError

FILE_FORMATS = ("json", "jsonl", "csv", "parquet", "pickle")
"""The formats that `DatasetSpec.file_format` may name, besides ``auto``."""

_SUFFIXES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".pkl": "pickle",
    ".pickle": "pickle",
}


def open_table(path: Path, file_format: str) -> Table:
    """Open a data file.

    file_format: one of `FILE_FORMATS`, or ``auto`` to go by the file's name.
    Raises DatasetError for a file that is missing, unreadable, empty, or of no known format.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise DatasetError("there is no such file; check dataset.path", path=path) from None
    except IsADirectoryError:
        raise DatasetError("is a directory; dataset.path names one file", path=path) from None
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", path=path) from error
    if not head:
        raise DatasetError("the file is empty", path=path)
    return _open(path, _format_of(path, file_format))


def _format_of(path: Path, file_format: str) -> str:
    if file_format == "auto":
        try:
            return _SUFFIXES[path.suffix.lower()]
        except KeyError:
            raise DatasetError(
                f"its name does not tell its format; set dataset.file_format to {_choice()}", path=path
            ) from None
    if file_format not in FILE_FORMATS:
        raise DatasetError(
            f"there is no format {file_format!r}; set dataset.file_format to auto, {_choice()}", path=path
        )
    return file_format


def _choice() -> str:
    return ", ".join(FILE_FORMATS[:-1]) + " or " + FILE_FORMATS[-1]


def _open(path: Path, file_format: str) -> Table:
    # Each reader is imported when it is needed: pyarrow alone takes longer to import than most files to read.
    match file_format:
        case "json":
            from lbrun.datasets.json_table import open_json

            return open_json(path)
        case "jsonl":
            from lbrun.datasets.json_table import JsonLinesTable

            return JsonLinesTable(path)
        case "csv":
            from lbrun.datasets.csv_table import CsvTable

            return CsvTable(path)
        case "parquet":
            from lbrun.datasets.parquet_table import ParquetTable

            return ParquetTable(path)
        case _:
            from lbrun.datasets.pickle_table import open_pickle

            return open_pickle(path)
