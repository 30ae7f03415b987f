"""Files: what can be wrong with one as a whole, and the shapes in which JSON, CSV and Parquet come."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import ids_of, read
from hypothesis import given
from hypothesis import strategies as st

from lbrun.datasets import DatasetSpec, InputKind, default_columns, read_samples
from lbrun.errors import DatasetError

TEXT = InputKind.TEXT


def test_a_missing_file_is_told_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.json: there is no such file; check dataset\.path"):
        read(tmp_path / "gone.json")


def test_a_folder_is_no_data_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is a directory; dataset\.path names one file"):
        read(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_told_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text("[]")
    path.chmod(0)
    with pytest.raises(DatasetError, match="cannot be read: Permission denied"):
        read(path)


def test_a_name_that_tells_no_format_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_text('[{"tok_input": [1]}]')
    with pytest.raises(
        DatasetError, match=r"set dataset\.file_format to json, jsonl, csv, parquet or pickle"
    ):
        read(path)
    assert ids_of(read(path, file_format="json")) == [b"[1]"]
    with pytest.raises(DatasetError, match="there is no format 'xml'"):
        read(path, file_format="xml")


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet", "pkl"])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="the file is empty"):
        read(path)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("json", b"[]"),
        ("json", b'{"data": []}'),
        ("json", b'{"tok_input": []}'),
        ("jsonl", b"\n  \n"),
        ("csv", b"tok_input\n"),
        ("csv", b"\n\n"),
        ("pkl", b"]."),
    ],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="there are no rows in it"):
        read(path)


@pytest.mark.parametrize(
    ("content", "likeness"),
    [
        (b"PAR1....", "a Parquet file"),
        (gzip.compress(b"[]"), "gzip-compressed; unpack it first"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"\x80\x04]\x94.", "a pickle"),
        ('[{"tok_input": [1]}]'.encode("utf-16"), "UTF-16 text"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet", "csv"])
def test_a_file_of_another_format_is_told_what_it_looks_like(
    tmp_path: Path, suffix: str, content: bytes, likeness: str
) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(content)
    readable_as_csv = suffix == "csv" and content.isascii()
    really_parquet = suffix == "parquet" and content.startswith(b"PAR1")
    told = f"it looks like {likeness}"
    if readable_as_csv:
        told = "no column"
    elif really_parquet:
        told = "a Parquet file that is cut short or damaged"
    with pytest.raises(DatasetError, match=told):
        read(path)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"tok_input": ' + b"[" * 100_000])
def test_brackets_without_end_are_a_mistake_like_others(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"not JSON|not a record"):
        read(path)


@pytest.mark.parametrize(
    "content",
    [
        b'[{"tok_input": [1, 2]}, {"other": 1, "tok_input": [3]}]',
        b'\xef\xbb\xbf  [{"tok_input": [1, 2]}, {"tok_input": [3]}]\n',
        b'{"version": 1, "data": [{"tok_input": [1, 2]}, {"tok_input": [3]}]}',
        b'{"tok_input": [[1, 2], [3]], "input": ["a", "b"]}',
        b'{"input": {"0": "a", "7": "b"}, "tok_input": {"0": [1, 2], "7": [3]}}',
        b'{"columns": ["input", "tok_input"], "index": [0, 1], "data": [["a", [1, 2]], ["b", [3]]]}',
    ],
)
def test_json_is_read_in_every_usual_shape(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(content)
    assert ids_of(read(path)) == [b"[1,2]", b"[3]"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[{"tok_input": [1]}, 17]', r"row 1: is a JSON int, not a record in braces"),
        (b'[{"tok_input": [1]}, {"input": "a"}]', r"row 1, column 'tok_input': has no value"),
        (b'[{"tok_input": [1]', r"not JSON: Input data was truncated"),
        (b'[{"tok_input": [1]},]', r"not JSON: .*byte 20"),
        (b'[{"tok_input": [1}]', r"not JSON: .*byte"),
        (b'{"tok_input": [1]}\n{"tok_input": [2]}\n', r"set dataset\.file_format to jsonl"),
        (b'"text"', r"not a JSON list or object"),
        (b"   ", r"not a JSON list or object"),
        (b'{"tok_input": [[1]], "version": 3}', r"'version' is a single value"),
        (b'{"tok_input": [[1], [2]], "input": ["a"]}', r"'tok_input' has 2, 'input' has 1"),
        (b'{"a": {"0": 1}, "tok_input": {"1": [1]}}', r"column 'tok_input': has other row labels"),
        (b'{"columns": ["a", "tok_input"], "data": [[1]]}', r"row 0: is not a list of 2 values"),
        (b'[{"tok_input": [1], "x": "\xff"}, {"tok_input": "\xff"}]', r"row 1, column 'tok_input'"),
    ],
)
def test_broken_json_is_told_with_its_place(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=told):
        read(path)


@given(st.binary(max_size=60) | st.text(alphabet='[]{}":,1 tok_input\n', max_size=60).map(str.encode))
def test_any_bytes_are_samples_or_a_dataset_error(tmp_path_factory: Any, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any", numbered=True)
    for suffix in ("json", "jsonl", "csv", "pkl", "parquet"):
        path = folder / f"data.{suffix}"
        path.write_bytes(content)
        try:
            read(path)
        except DatasetError as error:
            assert str(error).startswith(str(path))  # noqa: PT017 - either outcome is right


def test_json_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    """A broken line is met when it is reached, not before, and is named by its row."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"tok_input": [1]}\n\n{"tok_input": [2]}\n{"tok_inp')
    kind = InputKind.TOKEN_IDS
    samples = read_samples(DatasetSpec(path, kind, default_columns(kind)))
    assert next(samples).token_ids == b"[1]"
    assert next(samples).token_ids == b"[2]"
    with pytest.raises(DatasetError, match="row 2: not JSON: Input data was truncated"):
        next(samples)


def test_a_csv_cell_may_have_commas_quotes_lines_and_any_length(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    long = "word " * 40_000
    path.write_text(f'\ufeffid,prompt\r\n1,"a ""b"", c\r\nd"\r\n\r\n2,{long}\r\n', newline="")
    assert [sample.text for sample in read(path, TEXT)] == ['a "b", c\r\nd', long]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"prompt,id\na,1\nb\n", r"row 1: has 1 cells, the header has 2"),
        (b'prompt\n"a"b\n', r"not CSV in UTF-8, near line 2"),
        (b'prompt\n"a', r"not CSV in UTF-8"),
        (b"prompt\nna\xefve\n", r"not CSV in UTF-8"),
        (b"prompt,prompt\na,b\n", r"column 'prompt': there is more than one column of this name"),
        (b"prompt,id\na,1\n  ,2\n", r"row 1, column 'prompt': is empty"),
    ],
)
def test_broken_csv_is_told_with_its_place(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=told):
        read(path, TEXT)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.uint16()), pa.list_(pa.int8(), 2)],
    ids=str,
)
def test_parquet_lists_of_every_make_are_read(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "data.parquet"
    rows = [[i % 100, 7] for i in range(600)]
    pq.write_table(pa.table({"input_tokens": pa.array(rows, kind)}), path, row_group_size=250)
    assert [json.loads(ids or b"") for ids in ids_of(read(path))] == rows


def test_a_null_in_a_parquet_list_is_named_with_its_row_across_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    rows: list[list[int | None] | None] = [[1, 2]] * 700
    rows[613] = [1, None]
    pq.write_table(pa.table({"input_tokens": rows}), path, row_group_size=100)
    with pytest.raises(DatasetError, match="row 613, column 'input_tokens': token 1 is null"):
        read(path)
    rows[613] = None
    pq.write_table(pa.table({"input_tokens": rows}), path, row_group_size=100)
    with pytest.raises(DatasetError, match="row 613, column 'input_tokens': has no value"):
        read(path)


def test_a_parquet_file_that_breaks_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"input_tokens": [[i] for i in range(5000)]}), path, compression="gzip")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="a Parquet file that is cut short"):
        read(path)
    path.write_bytes(whole[:200] + bytes(1000) + whole[1200:])
    with pytest.raises(DatasetError, match="cannot be read from here on"):
        read(path)


def test_texts_come_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"input": "  naïve \n\u2028 text "}, {"input": "\U0001f600"}]))
    samples = read(path, TEXT)
    assert [sample.text for sample in samples] == ["  naïve \n\u2028 text ", "\U0001f600"]
    assert all(sample.token_ids is None and sample.n_input_tokens == 0 for sample in samples)


@pytest.mark.parametrize("value", ["", " \n", None, 3, ["a"], {"a": 1}], ids=repr)
def test_what_is_no_text_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"input": "a"}, {"input": value}]))
    with pytest.raises(DatasetError, match=r"row 1, column 'input': (is|has)"):
        read(path, TEXT)
