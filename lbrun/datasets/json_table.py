"""JSON and JSON Lines. Values stay raw until their cell is read: only what is needed is ever decoded."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec import Raw

from lbrun.datasets.cells import JSON_ERRORS
from lbrun.datasets.likeness import likeness
from lbrun.datasets.table import Cell, ColumnTable, RecordTable, Table
from lbrun.errors import DatasetError

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"

_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_names = msgspec.json.Decoder(list[str]).decode


def open_json(path: Path) -> Table:
    """Open a JSON file, in any of the shapes in which tables are usually written:

    - a list of records, ``[{"tok_input": [...]}, ...]``, as cnn_eval.json is
    - the same within an object, ``{"data": [{...}, ...]}``
    - an object of columns, each a list or an object of values by row label (pandas' default)
    - pandas' ``split``: ``{"columns": [...], "data": [[...], ...]}``

    Raises DatasetError for anything else.
    """
    document = _mapped(path)
    try:
        match document[:1]:
            case b"[":
                return JsonRecords(path, _decode_list(document))
            case b"{":
                return _open_object(path, _decode_object(document))
            case _:
                raise DatasetError(f"not a JSON list or object{likeness(path)}", path=path)
    except JSON_ERRORS as error:
        hint = ""
        if "trailing characters" in str(error):
            hint = "; if it has one record a line, set dataset.file_format to jsonl"
        raise DatasetError(f"not JSON: {error}{likeness(path)}{hint}", path=path) from error


@dataclass(frozen=True)
class JsonRecords:
    """A list of JSON objects, each still raw."""

    path: Path
    records: Sequence[Raw]

    @cached_property
    def columns(self) -> Sequence[str]:
        """The keys of the first record."""
        return list(_record(self.path, 0, self.records[0])) if self.records else []

    def rows(self, names: Sequence[str]) -> Iterator[Sequence[Cell]]:
        """One row a record; None where a record lacks a key."""
        for row, raw in enumerate(self.records):
            record = _record(self.path, row, raw)
            yield [record.get(name) for name in names]


@dataclass(frozen=True)
class JsonLinesTable:
    """One JSON object a line, read line by line; blank lines do not count."""

    path: Path

    @cached_property
    def columns(self) -> Sequence[str]:
        """The keys of the first record."""
        first = next(self._lines(), None)
        return [] if first is None else list(_record(self.path, 0, first))

    def rows(self, names: Sequence[str]) -> Iterator[Sequence[Cell]]:
        """One row a line; None where a record lacks a key."""
        for row, line in enumerate(self._lines()):
            record = _record(self.path, row, line)
            yield [record.get(name) for name in names]

    def _lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            if file.read(len(_BOM)) != _BOM:
                file.seek(0)
            for line in file:
                if line.strip(_BLANK):
                    yield line


def _mapped(path: Path) -> memoryview:
    """The file's text from its first character on, mapped into memory rather than copied there."""
    with path.open("rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    start = len(_BOM) if whole[: len(_BOM)] == _BOM else 0
    while start < len(whole) and whole[start] in _BLANK:
        start += 1
    return whole[start:]


def _open_object(path: Path, members: dict[str, Raw]) -> Table:
    if {"columns", "data"} <= members.keys():
        return _open_split(path, _decode_names(members["columns"]), _decode_list(members["data"]))
    if "data" in members:
        data = _list_or_none(members["data"])
        if data is not None and (not data or _starts(data[0], b"{")):
            return JsonRecords(path, data)
    labels = None
    columns: list[Sequence[Raw]] = []
    for name, member in members.items():
        if _starts(member, b"["):
            columns.append(_decode_list(member))
        elif _starts(member, b"{"):
            values = _decode_object(member)
            if labels is not None and list(values) != labels:
                raise DatasetError("has other row labels than the columns before", path=path, column=name)
            labels = list(values)
            columns.append(list(values.values()))
        else:
            raise DatasetError(
                "is a JSON object, but neither {'data': [records]} nor columns of values: "
                f"its member {name!r} is a single value",
                path=path,
            )
    return ColumnTable(path, list(members), columns)


def _open_split(path: Path, names: list[str], data: list[Raw]) -> Table:
    records: list[dict[str, Raw]] = []
    for row, raw in enumerate(data):
        values = _list_or_none(raw)
        if values is None or len(values) != len(names):
            raise DatasetError(f"is not a list of {len(names)} values", path=path, row=row)
        records.append(dict(zip(names, values, strict=True)))
    return RecordTable(path, records)


def _starts(raw: Raw, character: bytes) -> bool:
    return memoryview(raw)[:1] == character


def _list_or_none(raw: Raw) -> list[Raw] | None:
    return _decode_list(raw) if _starts(raw, b"[") else None


def _record(path: Path, row: int, record: Raw | bytes) -> dict[str, Raw]:
    """The record's values by key, all still raw, so that those nobody asks for cost next to nothing."""
    try:
        return _decode_object(record)
    except JSON_ERRORS as error:
        raise _bad_record(path, row, error) from error


def _bad_record(path: Path, row: int, error: Exception) -> DatasetError:
    if wrong := re.search("got `(.*?)`", str(error)):
        return DatasetError(f"is a JSON {wrong[1]}, not a record in braces", path=path, row=row)
    return DatasetError(f"not JSON: {error}{likeness(path)}", path=path, row=row)
