"""Token ids: what is taken, how it is sent, and how every wrong one is named, in every file format."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import ids_of, read
from hypothesis import given
from hypothesis import strategies as st

from lbrun.datasets.cells import INT32_END, CellError, TokenIdReader
from lbrun.errors import DatasetError

Rows = list[dict[str, Any]]


def _json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows, indent=1))


def _jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(value if isinstance(value, str) else json.dumps(value) for value in row.values())


def _parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def _pickle(path: Path, rows: Rows) -> None:
    path.write_bytes(pickle.dumps(rows))


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "pkl": _pickle,
}
every_format = pytest.mark.parametrize("suffix", WRITERS)


def _write(folder: Path, suffix: str, *values: Any, column: str = "tok_input") -> Path:
    path = folder / f"data.{suffix}"
    WRITERS[suffix](path, [{"input": "a text", column: value} for value in values])
    return path


@every_format
def test_ids_become_compact_json_with_their_count(tmp_path: Path, suffix: str) -> None:
    samples = read(_write(tmp_path, suffix, [1, 2, 3], [0], [128255, 7]))
    assert ids_of(samples) == [b"[1,2,3]", b"[0]", b"[128255,7]"]
    assert [sample.n_input_tokens for sample in samples] == [3, 1, 2]
    assert [sample.index for sample in samples] == [0, 1, 2]
    assert all(sample.text is None and sample.image is None for sample in samples)


@every_format
@pytest.mark.parametrize("column", ["tok_input", "input_tokens", "token_ids", "input_ids"])
def test_the_official_column_names_are_found(tmp_path: Path, suffix: str, column: str) -> None:
    assert ids_of(read(_write(tmp_path, suffix, [5], column=column))) == [b"[5]"]


@every_format
def test_a_column_of_the_users_own_is_read(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path, suffix, [5], column="my ids")
    assert ids_of(read(path, columns={"token_ids": ("nope", "my ids")})) == [b"[5]"]


@every_format
def test_a_missing_column_is_told_with_those_there_are_and_the_key_to_set(
    tmp_path: Path, suffix: str
) -> None:
    path = _write(tmp_path, suffix, [5], column="my_ids")
    with pytest.raises(
        DatasetError, match=r"'tok_input' or .*has 'input', 'my_ids';.*dataset\.columns\.token_ids"
    ):
        read(path)


@every_format
def test_an_empty_row_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DatasetError, match=r"row 1, column 'tok_input': has no tokens") as caught:
        read(_write(tmp_path, suffix, [1], []))
    assert (caught.value.row, caught.value.column) == (1, "tok_input")


@every_format
def test_a_row_without_ids_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DatasetError, match=r"row 1, column 'tok_input': (has no value|is \"\")"):
        read(_write(tmp_path, suffix, [1], None))


@every_format
@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([1, -2], "token 1 is -2, and token ids are not negative"),
        ([1, 2, 1000], "token 2 is 1000, beyond the vocabulary of 1000"),
        ([2**31], "token 0 is 2147483648, beyond the vocabulary of 1000"),
        ([1.0, 2.0], "token 0 is 1.0, not an integer"),
        ([True, False], "token 0 is true, not an integer"),
        (["1", "2"], "token 0 is '1', not an integer"),
        ([3, None], "token 1 is null, not an integer"),
        ([[1, 2]], "token 0 is a list, not an integer"),
    ],
    ids=str,
)
def test_a_wrong_id_is_named_with_its_place(tmp_path: Path, suffix: str, ids: list[Any], told: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read(_write(tmp_path, suffix, ids), vocab_size=1000)
    assert str(caught.value) == f"{tmp_path / f'data.{suffix}'}, row 0, column 'tok_input': {told}"


@every_format
@pytest.mark.parametrize("value", ["1 2 3", 17, {"a": 1}], ids=repr)
def test_what_is_no_list_is_refused(tmp_path: Path, suffix: str, value: Any) -> None:
    with pytest.raises(DatasetError, match=r"row 0, column 'tok_input': is .*not a list of token ids"):
        read(_write(tmp_path, suffix, value))


@every_format
def test_the_limit_ends_the_reading(tmp_path: Path, suffix: str) -> None:
    """What is beyond the limit is not looked at, so that a broken row there does not matter."""
    assert ids_of(read(_write(tmp_path, suffix, [1], [2], []), limit=2)) == [b"[1]", b"[2]"]


def test_a_set_has_no_order_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="row 0, column 'tok_input': is a set, not a list of token ids"):
        read(_write(tmp_path, "pkl", {1, 2}))


def test_without_a_vocabulary_any_int32_will_do_and_nothing_more() -> None:
    assert TokenIdReader()([INT32_END - 1]) == (b"[2147483647]", 1)
    with pytest.raises(CellError, match="beyond int32"):
        TokenIdReader()([INT32_END])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, ">i4"])
def test_arrays_of_every_integer_type_are_taken(dtype: Any) -> None:
    assert TokenIdReader()(np.array([1, 2, 100], dtype)) == (b"[1,2,100]", 3)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.array([1.0, 2.0]), "token 0 is 1.0, not an integer"),
        (np.array([True]), "token 0 is true, not an integer"),
        (np.array([[1], [2]]), "token 0 is a list, not an integer"),
        (np.array([], np.int64), "has no tokens"),
        (np.array(5), "is 5, not a list of token ids"),
        (np.array([2**63], np.uint64), "token 0 is 9223372036854775808, beyond int32"),
    ],
    ids=repr,
)
def test_arrays_of_anything_else_are_refused(array: Any, told: str) -> None:
    with pytest.raises(CellError, match=told):
        TokenIdReader()(array)


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.one_of(_json_values, st.lists(st.integers(-2, 40), max_size=20)))
def test_whatever_a_cell_holds_it_is_ids_within_the_vocabulary_or_an_error(value: Any) -> None:
    """The same for a Python object and for its JSON text; never another exception, never other ids."""
    good = isinstance(value, list) and value and all(type(item) is int and 0 <= item < 32 for item in value)
    for cell in (value, json.dumps(value)):
        if good:
            assert TokenIdReader(32)(cell) == (json.dumps(value, separators=(",", ":")).encode(), len(value))
        else:
            with pytest.raises(CellError):
                TokenIdReader(32)(cell)
