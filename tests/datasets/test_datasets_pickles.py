"""Pickles that hold data: pandas frames of three generations, arrays, records, columns, in every protocol."""

from __future__ import annotations

import collections
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dataset_files import CAPTURES, ids_of, read
from hypothesis import given
from hypothesis import strategies as st

from lbrun.datasets import InputKind, safe_pickle
from lbrun.errors import DatasetError

FRAMES = sorted(path.name for path in CAPTURES.glob("frame_*.pkl"))
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _write(folder: Path, content: object, protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    path = folder / "data.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("column", ["input_tokens", "array_ids", "scalar_ids"])
def test_token_ids_are_read_from_frames_of_every_pandas(name: str, column: str) -> None:
    samples = read(CAPTURES / name, columns={"token_ids": (column,)})
    assert ids_of(samples) == [b"[1,2,3]", b"[4,5]", b"[6]"]


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ("text_input", ["first text", "second: naïve", "third"]),
        ("strings", ["first text", "second: naïve", "third"]),
        ("fixed", ["a", "b", "c"]),
    ],
)
def test_texts_are_read_from_frames_of_every_pandas(name: str, column: str, texts: list[str]) -> None:
    samples = read(CAPTURES / name, InputKind.TEXT, columns={"text": (column,)})
    assert [sample.text for sample in samples] == texts


@pytest.mark.parametrize("name", FRAMES)
def test_a_missing_text_of_a_frame_is_named(name: str) -> None:
    with pytest.raises(DatasetError, match="row 1, column 'arrow': has no value"):
        read(CAPTURES / name, InputKind.TEXT, columns={"text": ("arrow",)})


@pytest.mark.parametrize("name", FRAMES)
def test_the_columns_of_a_frame_are_listed_in_their_order(name: str) -> None:
    with pytest.raises(DatasetError, match="the file has 'input_tokens', 'array_ids', 'scalar_ids', 'text_"):
        read(CAPTURES / name, columns={"token_ids": ("nope",)})


@pytest.mark.parametrize("version", ["1.5", "2.2", "3.1"])
def test_blocks_in_another_order_than_the_columns_are_put_right(version: str) -> None:
    path = CAPTURES / f"filtered_pandas{version}.pkl"
    assert ids_of(read(path)) == [b"[6]", b"[1,2,3]"]
    assert [sample.text for sample in read(path, InputKind.TEXT)] == ["third", "first text"]


@pytest.mark.parametrize("version", ["1.5", "2.2", "3.1"])
def test_a_series_is_a_table_of_one_column(version: str) -> None:
    assert ids_of(read(CAPTURES / f"series_pandas{version}.pkl")) == [b"[1,2,3]", b"[4,5]", b"[6]"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frames_of_the_installed_pandas_are_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    """Among them a text index, several blocks of one type, big-endian and Fortran-ordered values."""
    frame = pd.DataFrame(
        np.asfortranarray(np.arange(6).reshape(2, 3).astype(">i8")), columns=["x", "y", "z"], index=["r", "s"]
    )
    frame["tok_input"] = [[1, 2], np.array([3])]
    frame["empty"] = [np.array([], np.int64), b"\x00\xff"]
    frame["input"] = ["one", "two"]
    frame = pd.concat([frame, frame])
    frame["more"] = 1.5
    path = _write(tmp_path, frame, protocol)
    assert ids_of(read(path)) == [b"[1,2]", b"[3]"] * 2
    assert [sample.text for sample in read(path, InputKind.TEXT)] == ["one", "two"] * 2


def test_the_manager_of_pandas_1_2_is_read_from_its_state(tmp_path: Path) -> None:
    """Before 1.3 a manager was not called with its blocks but given them as state."""

    class OldFrame:
        def __reduce__(self) -> Any:
            return _Global("pandas.core.frame", "DataFrame"), (), {"_mgr": _OldManager()}

    class _OldManager:
        def __reduce__(self) -> Any:
            blocks = [
                {"values": _objects([[1, 2], [3]]), "mgr_locs": slice(1, 2, 1)},
                {"values": np.array([[7, 8]]), "mgr_locs": np.array([0])},
            ]
            axes = [pd.Index(["n", "tok_input"], dtype=object), pd.RangeIndex(2)]
            state = (axes, [], [], {"0.14.1": {"axes": axes, "blocks": blocks}})
            return _Global("pandas.core.internals.managers", "BlockManager"), (), state

    path = tmp_path / "data.pkl"
    with path.open("wb") as file:
        _GlobalPickler(file, protocol=4).dump(OldFrame())
    assert ids_of(read(path)) == [b"[1,2]", b"[3]"]


class _Global:
    """Something that is pickled as the name of a global."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *args: object) -> object:
        raise NotImplementedError


class _GlobalPickler(pickle._Pickler):  # type: ignore[name-defined]
    """Python's own pickler, which lets names be written that this process does not have."""

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Global):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
            return
        super().save(obj, save_persistent_id)


def _objects(values: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty((1, len(values)), dtype=object)
    array[0, :] = values
    return array


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "content",
    [
        [{"tok_input": [1, 2], "set": {1}, "frozen": frozenset({2})}, {"tok_input": np.array([3], np.int16)}],
        ({"tok_input": (1, 2), "raw": bytearray(b"x"), "none": b""}, {"tok_input": [np.int64(3)]}),
        {"tok_input": [[1, 2], [3]], "x": np.array([1.5, 2.5])},
        {"tok_input": pd.Series([[1, 2], [3]]), "id": pd.Index([7, 8])},
        {"data": [collections.OrderedDict(tok_input=[1, 2]), {"tok_input": [3]}]},
        np.array([{"tok_input": [1, 2]}, {"tok_input": [3]}], dtype=object),
    ],
    ids=["list", "tuple", "columns", "series", "data", "array"],
)
def test_records_and_columns_are_read_in_every_protocol(
    tmp_path: Path, content: object, protocol: int
) -> None:
    assert ids_of(read(_write(tmp_path, content, protocol))) == [b"[1,2]", b"[3]"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (17, "holds a single int; a frame, a list of records or columns by name are needed"),
        (None, "holds nothing"),
        ([[1, 2]], "row 0: is list, not a record"),
        ([{"tok_input": [1]}, 3], "row 1: is int, not a record"),
        ({"tok_input": [[1], [2]], "x": [1]}, "'tok_input' has 2, 'x' has 1"),
        ({"tok_input": 3}, "column 'tok_input': holds a single int, not a list of values"),
        ([{"tok_input": float("nan")}], "row 0, column 'tok_input': has no value"),
        (pd.DataFrame([[[1], [2]]], columns=["tok_input"] * 2), "more than one column of this name"),
    ],
)
def test_pickles_of_another_shape_are_told_what_is_needed(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        read(_write(tmp_path, content))


def test_a_text_that_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="row 0, column 'input': is no proper Unicode"):
        read(_write(tmp_path, [{"input": "half \ud800"}]), InputKind.TEXT)


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.sets(st.integers(), max_size=4)
        | st.frozensets(st.text(), max_size=4)
    ),
    max_leaves=12,
)


@given(_plain, st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back_as_it_was(tmp_path_factory: Any, content: object, protocol: int) -> None:
    path = _write(tmp_path_factory.mktemp("plain"), content, protocol)
    assert safe_pickle.load(path) == content


_arrays = st.one_of(
    st.lists(st.integers(-100, 100), max_size=12).map(np.array),
    st.lists(st.floats(allow_nan=False), min_size=6, max_size=6).map(
        lambda x: np.asfortranarray(np.array(x).reshape(2, 3))
    ),
    st.lists(st.text(max_size=5), min_size=1, max_size=5).map(lambda x: np.array(x, dtype=str)),
    st.lists(st.text(max_size=5) | st.none(), max_size=5).map(lambda x: np.array(x, dtype=object)),
    st.lists(st.booleans(), max_size=5).map(lambda x: np.array(x, dtype=bool)),
    st.lists(st.integers(0, 9), max_size=5).map(lambda x: np.array(x, dtype=">u2")[::-1]),
)


@given(_arrays, st.sampled_from(PROTOCOLS))
def test_arrays_come_back_as_they_were(tmp_path_factory: Any, array: Any, protocol: int) -> None:
    read_back = safe_pickle.load(_write(tmp_path_factory.mktemp("array"), array, protocol))
    assert isinstance(read_back, np.ndarray)
    assert (read_back.dtype.kind, read_back.dtype.itemsize) == (array.dtype.kind, array.dtype.itemsize)
    assert read_back.shape == array.shape
    assert read_back.tolist() == array.tolist()


def test_pandas_is_not_imported_to_read_its_frames() -> None:
    code = (
        "import sys; from lbrun.datasets import *; from pathlib import Path;"
        "spec = DatasetSpec(Path(sys.argv[1]), InputKind.TOKEN_IDS, {});"
        "assert len(list(read_samples(spec))) == 3; assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(CAPTURES / FRAMES[0])], check=True, timeout=60)
