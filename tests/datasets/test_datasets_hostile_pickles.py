"""Pickles that try to run something, to reach memory, or to change the process: all refused, nothing done."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import CAPTURES, read
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrun.datasets import pickled_arrays, pickled_frames, pickled_plain, safe_pickle
from lbrun.errors import DatasetError


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that exists when something has been executed; at the end it must not."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


def _refused(folder: Path, content: bytes, told: str = "") -> None:
    path = folder / "data.pkl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=told):
        safe_pickle.load(path)


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text.encode())) + text.encode()


def _global(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + pickle.STACK_GLOBAL


class _Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_of_os_system_is_refused_by_name(tmp_path: Path, canary: Path, protocol: int) -> None:
    content = pickle.dumps([_Calls(os.system, f"touch {canary}")], protocol=protocol)
    _refused(tmp_path, content, r"asks for (posix|nt)\.system, which is refused")


@pytest.mark.parametrize(
    "function",
    [eval, exec, getattr, setattr, __import__, open, compile, type, print, map, os.popen, np.load,
     np.fromfile, pickle.loads, io.open, sys.exit, copyreg.add_extension],
    ids=lambda function: function.__name__,
)  # fmt: skip
def test_functions_that_are_no_data_are_refused_by_name(tmp_path: Path, function: Any) -> None:
    _refused(tmp_path, pickle.dumps(_Calls(function, "x")), rf"asks for \S*{function.__name__}, which")


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "builtins.getattr",
        "__builtin__.eval",
        "subprocess.Popen",
        "operator.attrgetter",
        "functools.partial",
        "importlib.import_module",
        "pandas.read_pickle",
        "pandas.io.pickle.read_pickle",
        "pandas.eval",
        "numpy.load",
        "numpy.f2py.crackfortran.getlincoef",
        "numpy.testing._private.utils.runstring",
        "numpy.core.multiarray.fromfile",
        "pandas.core.frame.DataFrame.query",
        "pyarrow.lib.read_tensor",
        "lbrun.datasets.safe_pickle.load",
    ],
)
def test_names_are_refused_whether_they_exist_or_not(tmp_path: Path, name: str) -> None:
    """Exact pairs are allowed, not modules: what lies next to an allowed name is as strange as any other."""
    module, _, attribute = name.rpartition(".")
    told = f"asks for {name}, which is refused".replace(".", r"\.")
    _refused(tmp_path, pickle.PROTO + b"\x04" + _global(module, attribute) + b".", told)
    _refused(tmp_path, f"c{module}\n{attribute}\n.".encode(), told)
    _refused(tmp_path, f"(S'x'\ni{module}\n{attribute}\n.".encode(), told)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pandas", "DataFrame.query"),
        ("numpy", "dtype.__class__"),
        ("numpy", "ndarray.tofile"),
        ("builtins", "set.__class__.__base__.__subclasses__"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("_codecs", "encode.__self__"),
    ],
)
def test_a_dotted_name_does_not_lead_from_an_allowed_one_to_another(
    tmp_path: Path, module: str, name: str
) -> None:
    _refused(tmp_path, b"\x80\x04" + _global(module, name) + b".", rf"asks for {module}\.{name}, which")


def test_a_name_put_together_by_the_memo_is_refused_like_any_other(tmp_path: Path, canary: Path) -> None:
    """Module and name fetched from the memo, where no scanner of the bytes finds them next to each other."""
    content = (
        b"\x80\x04" + _text("system") + b"\x94" + _text("os") + b"\x94" + b"00"
        + b"h\x01" + b"h\x00" + pickle.STACK_GLOBAL + _text(f"touch {canary}") + b"\x85R."
    )  # fmt: skip
    _refused(tmp_path, content, r"asks for os\.system, which is refused")


def test_a_class_registered_by_number_is_refused_even_when_it_has_been_loaded_before(tmp_path: Path) -> None:
    """Copyreg keeps loaded extensions in a cache that is asked before `find_class` is."""
    copyreg.add_extension("os", "system", 240)
    try:
        assert pickle.loads(b"\x80\x02\x82\xf0.") is os.system
        for opcode in (b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"):
            _refused(tmp_path, b"\x80\x02" + opcode + b".", r"asks for os\.system, which is refused")
    finally:
        copyreg.remove_extension("os", "system", 240)
        copyreg.clear_extension_cache()


def test_persistent_ids_and_buffers_from_outside_are_refused(tmp_path: Path) -> None:
    _refused(tmp_path, b"Pos.system\n.", "not a readable pickle")
    _refused(tmp_path, b"\x80\x05\x97.", "not a readable pickle")


@pytest.mark.parametrize(
    "state", [{"allowed": 1}, (None, {"__setstate__": 1, "_function": 2, "__class__": 3})]
)
@pytest.mark.parametrize(
    "name", sorted(key for key, value in safe_pickle.ALLOWED.items() if value is not None)
)
def test_no_stand_in_can_be_changed_by_a_state(tmp_path: Path, name: tuple[str, str], state: object) -> None:
    """The opcode BUILD sets attributes on whatever is on the stack, also on functions and classes."""
    before = _attributes()
    content = b"\x80\x04" + _global(*name) + pickle.dumps(state, protocol=4)[2:-1] + b"b."
    _refused(tmp_path, content, "not a readable pickle")
    assert _attributes() == before


def _attributes() -> dict[str, object]:
    return {
        f"{thing}.{name}": value
        for module in (pickled_plain, pickled_arrays, pickled_frames)
        for thing, content in vars(module).items()
        if hasattr(content, "__dict__")
        for name, value in list(vars(content).items())
    }


def test_a_dtype_cannot_declare_bytes_to_be_object_pointers(tmp_path: Path) -> None:
    """NumPy's own dtype takes fields and flags from the state: bytes would become an address."""
    fields = {"a": (np.dtype("O"), 0)}
    for state in (
        (3, "|", None, ("a",), fields, 8, 1, 0),
        (3, "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0),
    ):
        content = (
            b"\x80\x04" + _global("numpy", "dtype") + _text("V8") + b"\x89\x88\x87R"
            + pickle.dumps(state, protocol=4)[2:-1] + b"b."
        )  # fmt: skip
        _refused(tmp_path, content, "dtype 'V8'|structured")
        _refused(tmp_path, content.replace(_text("V8"), _text("i8")), "structured, nested and date types")


@pytest.mark.parametrize("code", ["V8", "O8,O8", "M8[ns]", "object", "i8\n", "(1000000,)i8", 7, None])
def test_dtypes_are_made_from_plain_codes_only(code: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="are not read"):
        pickled_arrays.Dtype(code)


@pytest.mark.parametrize(
    "state",
    [
        (1, (2**40,), "i8", False, b"x"),
        (1, (2,), "i8", False, bytes(8)),
        (1, (-1, -1), "i8", False, bytes(8)),
        (1, (1,), "O8", False, bytes(8)),
        (1, (2,), "O8", False, [1]),
        (1, (1,), "i8", False, [1]),
        (1, ("1",), "i8", False, bytes(8)),
        (1, (1,), None, False, bytes(8)),
        ((1,), "i8", False, bytes(8)),
        None,
    ],
    ids=repr,
)
def test_an_array_whose_state_does_not_fit_is_refused(state: Any) -> None:
    if state is not None:
        state = tuple(pickled_arrays.Dtype(part) if part in ("i8", "O8") else part for part in state)
    array = pickled_arrays.Array((0,), np.dtype("b"))
    with pytest.raises(pickle.UnpicklingError):
        array.__setstate__(state)


def _arrow(length: int, offset: int, *buffers: bytes | None, kind: str = "large_string") -> Any:
    stand_ins = {name: stand_in for (_, name), stand_in in pickled_frames.ARROW_STAND_INS.items()}
    chunk = stand_ins["_restore_array"](
        (
            stand_ins["type_for_alias"](kind),
            length,
            -1,
            offset,
            [None if buffer is None else stand_ins["py_buffer"](buffer) for buffer in buffers],
            [],
            None,
        )
    )
    strings = pickled_frames.ArrowStrings()
    strings.__setstate__({"_pa_array": chunk})
    return strings.texts()


def test_arrow_strings_are_read() -> None:
    assert _arrow(2, 0, None, struct.pack("<3q", 0, 1, 3), b"abc") == ["a", "bc"]
    assert _arrow(1, 1, b"\x02", struct.pack("<3i", 0, 1, 3), b"abc", kind="string") == ["bc"]
    assert _arrow(2, 0, b"\x02", struct.pack("<3i", 0, 0, 3), b"abc", kind="string") == [None, "abc"]


@pytest.mark.parametrize(
    ("length", "offset", "buffers"),
    [
        (2, 0, (None, struct.pack("<3q", 0, 1, 10**12), b"abc")),  # a text that ends beyond the memory
        (2, 0, (None, struct.pack("<3q", 0, -(10**12), 3), b"abc")),
        (2, 0, (None, struct.pack("<3q", 0, 3, 1), b"abc")),
        (10**9, 0, (None, struct.pack("<3q", 0, 1, 3), b"abc")),  # more texts than there are ends
        (2, 10**9, (None, struct.pack("<3q", 0, 1, 3), b"abc")),
        (2, 0, (b"", struct.pack("<3q", 0, 1, 3), b"abc")),
        (2, 0, (None, None, None)),
        (2, 0, (None, struct.pack("<3q", 0, 1, 3), b"a\xff\xfe")),  # no UTF-8
        (-1, 0, (None, struct.pack("<3q", 0, 1, 3), b"abc")),
        (2, 0, (None, struct.pack("<3q", 0, 1, 3))),
    ],
)
def test_arrow_strings_that_reach_beyond_their_buffers_are_refused(
    length: int, offset: int, buffers: tuple[Any, ...]
) -> None:
    with pytest.raises(Exception, match=r"\w") as caught:
        _arrow(length, offset, *buffers)
    assert isinstance(caught.value, pickle.UnpicklingError | ValueError | OverflowError)


@pytest.mark.parametrize(
    ("module", "name", "args"),
    [
        ("builtins", "bytearray", (10**15,)),
        ("builtins", "set", ("text",)),
        ("builtins", "slice", ([], [], [])),
        ("_codecs", "encode", ("text", "rot13")),
        ("_codecs", "encode", (b"x", "latin1")),
        ("copyreg", "_reconstructor", (int, object, 3)),
        ("collections", "OrderedDict", (7,)),
        ("pandas.core.indexes.base", "_new_Index", (1, {"data": 2})),
        ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked", (1, 2, None)),
        ("pyarrow.lib", "type_for_alias", ("int64",)),
        ("pyarrow.lib", "chunked_array", (7,)),
        ("numpy.core.multiarray", "_reconstruct", (1, (0,), b"b")),
        ("numpy.core.multiarray", "scalar", (1, b"x")),
        ("numpy.core.numeric", "_frombuffer", (b"x", 1, (1,), "C")),
    ],
)
def test_allowed_names_take_only_the_arguments_that_data_needs(module: str, name: str, args: Any) -> None:
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        safe_pickle.ALLOWED[module, name](*args)


def _frame(labels: Any, *blocks: tuple[Any, Any]) -> pickled_frames.Frame:
    """A frame, put together as the unpickler would."""
    manager = safe_pickle.ALLOWED["pandas.core.internals.managers", "BlockManager"]
    block = safe_pickle.ALLOWED["pandas._libs.internals", "_unpickle_block"]
    frame = pickled_frames.Frame()
    frame.__setstate__({"_mgr": manager(tuple(block(*parts, 2) for parts in blocks), [labels, labels])})
    return frame


def _labels(data: Any) -> pickled_frames.Index:
    return pickled_frames.Index.make(safe_pickle.ALLOWED["pandas", "Index"], {"data": data})


def _range(start: int, stop: int, step: int) -> pickled_frames.Index:
    state = {"start": start, "stop": stop, "step": step}
    return pickled_frames.Index.make(safe_pickle.ALLOWED["pandas", "RangeIndex"], state)


def test_the_frames_of_the_next_test_are_read_when_their_parts_fit() -> None:
    frame = _frame(
        _labels(np.array(["a", "b"])), (np.ones((1, 3)), slice(1, 2)), (np.zeros((1, 3)), np.array([0]))
    )
    labels, values = frame.columns()
    assert labels == ["a", "b"]
    assert [list(column) for column in values] == [[0, 0, 0], [1, 1, 1]]


_AB = _labels(np.array(["a", "b"]))
_ENDLESS = _range(0, 10**15, 1)
_WITHIN_ITSELF = pickled_frames.Index()
_WITHIN_ITSELF._data = _WITHIN_ITSELF


@pytest.mark.parametrize(
    ("labels", "blocks"),
    [
        (_AB, [(np.ones((1, 3)), slice(0, 1))]),  # a column is missing
        (_AB, [(np.ones((2, 3)), slice(0, 1))]),  # more values than places
        (_AB, [(np.ones((3, 3)), np.array([0, 1, 2]))]),  # more places than columns
        (_AB, [(np.ones((2, 3)), np.array([0, -1]))]),
        (_AB, [(np.ones((2, 3)), np.array([0.0, 1.0]))]),
        (_AB, [(np.ones((2, 3)), "all of them")]),
        (_AB, [(np.ones((2, 3, 4)), slice(0, 2))]),
        (_AB, [("values", slice(0, 2))]),
        (_labels(np.ones((2, 2))), [(np.ones((2, 3)), slice(0, 2))]),
        (_WITHIN_ITSELF, [(np.ones((2, 3)), slice(0, 2))]),
        (_ENDLESS, [(np.ones((2, 3)), slice(0, 10**15, 1))]),  # of which no list must ever be made
        (_ENDLESS, [(np.ones((2, 3)), slice(0, 2))]),
    ],
)
def test_frames_whose_parts_do_not_fit_together_are_refused(labels: Any, blocks: Any) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError, RecursionError)):
        _frame(labels, *blocks).columns()


@pytest.mark.parametrize(
    "name", ["DataFrame", "Series", "arrays.ArrowStringArray", "arrays.StringArray"], ids=str
)
def test_an_object_that_was_never_given_its_state_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.pkl"
    module, _, attribute = f"pandas.{name}".rpartition(".")
    whole = b"\x80\x04" + _global(module, attribute) + b")\x81"
    for content in (whole + b".", b"\x80\x04}" + _text("tok_input") + whole[2:] + b"s."):
        path.write_bytes(content)
        with pytest.raises(DatasetError):
            read(path)


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_pickle_is_data_or_a_dataset_error(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Bytes changed, cut and moved within real files: no other exception, and nothing imported."""
    whole = bytearray(data.draw(st.sampled_from(_REAL)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "data.pkl"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))] if data.draw(st.booleans()) else whole)
    modules = set(sys.modules)
    try:
        read(path)
    except DatasetError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - either outcome is right
    assert not {name for name in set(sys.modules) - modules if not name.startswith(("lbrun.", "pyarrow"))}


_REAL = [path.read_bytes() for path in sorted(CAPTURES.glob("*.pkl"))]
