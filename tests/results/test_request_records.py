"""Per-sample records survive a full disk, a cut at any byte, and a kill."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outcomes import MS, START_NS, URLS, Row, lost, record, steady

from lbrun.attempt import FailureKind
from lbrun.results import records
from lbrun.results.records import PARQUET_NAME, STREAM_NAME, Recorder, read_requests, recover


def test_a_row_comes_back_as_it_went_in(tmp_path: Path) -> None:
    tries = [
        (1, START_NS + MS, START_NS + 3 * MS, int(FailureKind.CUT), "reset by peer"),
        (2, START_NS + 4 * MS, START_NS + 20 * MS, 0, ""),
    ]
    record(tmp_path, [Row(2**63 + 5, 17, 2, 2, restarted=True, finish_reason="length", attempts=tries)])
    assert not (tmp_path / STREAM_NAME).exists()
    assert read_requests(tmp_path).to_pylist() == [
        {
            "query_id": 2**63 + 5,
            "sample_index": 17,
            "server": URLS[2],
            "n_attempts": 2,
            "issued_ns": 0,
            "sent_ns": MS,
            "first_byte_ns": 4 * MS,
            "first_token_ns": 5 * MS,
            "done_ns": 20 * MS,
            "n_input_tokens": 100,
            "n_tokens": 16,
            "failure": None,
            "restarted": True,
            "finish_reason": "length",
            "attempts": [
                {
                    "server": URLS[1],
                    "sent_ns": MS,
                    "end_ns": 3 * MS,
                    "failure": "CUT",
                    "message": "reset by peer",
                },
                {"server": URLS[2], "sent_ns": 4 * MS, "end_ns": 20 * MS, "failure": None, "message": ""},
            ],
        }
    ]


def test_what_did_not_happen_is_null(tmp_path: Path) -> None:
    record(tmp_path, [lost(1)._replace(server=-1, n_attempts=0, attempts=None)])
    (row,) = read_requests(tmp_path).to_pylist()
    assert row["server"] is None
    assert row["sent_ns"] is row["first_byte_ns"] is row["first_token_ns"] is row["attempts"] is None
    assert row["issued_ns"] == 0
    assert row["failure"] == "REFUSED"


def test_a_run_without_a_sample_leaves_an_empty_table(tmp_path: Path) -> None:
    record(tmp_path, [])
    assert pq.read_table(tmp_path / PARQUET_NAME).num_rows == 0
    assert read_requests(tmp_path).num_rows == 0


def test_a_folder_without_records_reads_as_an_empty_table(tmp_path: Path) -> None:
    assert recover(tmp_path) is None
    assert read_requests(tmp_path).num_rows == 0


def test_rows_of_many_batches_keep_their_order_and_words(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, URLS, START_NS, chunk_rows=7)
    for i in range(100):
        recorder.add(*Row(i, finish_reason=f"reason {i // 10}"))
    recorder.close()
    table = read_requests(tmp_path)
    assert table.column("query_id").to_pylist() == list(range(100))
    assert table.column("finish_reason").to_pylist() == [f"reason {i // 10}" for i in range(100)]


def test_rows_are_on_the_disk_while_the_run_goes_on(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, URLS, START_NS, interval_s=0.01)
    recorder.add(*Row(1))
    stop = threading.Event()
    for _ in range(500):
        if read_requests(tmp_path).num_rows:
            break
        stop.wait(0.01)
    assert read_requests(tmp_path).column("query_id").to_pylist() == [1]
    recorder.close()


def test_a_server_that_invents_finish_reasons_does_not_grow_the_dictionary(tmp_path: Path) -> None:
    record(tmp_path, [Row(i, finish_reason=f"{i}") for i in range(1000)])
    reasons = read_requests(tmp_path).column("finish_reason").to_pylist()
    assert len(set(reasons)) <= 257
    assert reasons[-1] == "(other)"


@pytest.mark.parametrize("reason", ["Bearer sk-proj-abc", "a" * 25, "stop\n"])
def test_a_finish_reason_that_is_no_short_word_is_not_repeated(tmp_path: Path, reason: str) -> None:
    record(tmp_path, [Row(1, finish_reason=reason), Row(2, finish_reason="stop")])
    assert read_requests(tmp_path).column("finish_reason").to_pylist() == ["(other)", "stop"]


def test_text_that_utf8_cannot_carry_is_recorded_all_the_same(tmp_path: Path) -> None:
    tries = [(0, 0, 0, int(FailureKind.MALFORMED), "bad \ud800 text" + "x" * 10_000)]
    record(tmp_path, [Row(1, finish_reason="\udfff", attempts=tries)])
    (row,) = read_requests(tmp_path).to_pylist()
    assert row["finish_reason"] == "(other)"
    assert row["attempts"][0]["message"].startswith("bad ? text")
    assert len(row["attempts"][0]["message"]) == 500


def test_a_value_that_fits_no_column_is_counted_as_lost_and_never_raises(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, URLS, START_NS)
    recorder.add(*Row(1, n_tokens=10**30))
    recorder.add(*Row(2))
    recorder.close()
    assert recorder.n_lost == 1
    assert recorder.error is not None
    assert read_requests(tmp_path).column("query_id").to_pylist() == [2]


class _FullDisk:
    """A file on which nothing more fits after some bytes."""

    def __init__(self, path: str, room: int) -> None:
        self._file = Path(path).open("wb", buffering=0)  # noqa: SIM115
        self._room = room
        self.closed = False

    def write(self, data: bytes) -> int:
        data = memoryview(data).cast("B")
        if len(data) > self._room:
            self._file.write(data[: self._room])
            self._room = 0
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_a_full_disk_stops_the_records_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records.pa, "OSFile", lambda path, _mode: _FullDisk(path, 20_000))
    recorder = Recorder(tmp_path, URLS, START_NS, interval_s=0.001, chunk_rows=50)
    for row in steady(1000):
        recorder.add(*row)
    path = recorder.close()
    assert recorder.error is not None
    assert "No space left on device" in recorder.error
    n_kept = read_requests(tmp_path).num_rows
    assert path == tmp_path / PARQUET_NAME
    assert 0 < n_kept < 1000
    assert n_kept + recorder.n_lost == 1000


def test_a_folder_that_cannot_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "missing", URLS, START_NS, interval_s=0.001)
    recorder.add(*Row(1))
    assert recorder.close() is None
    assert recorder.error is not None
    assert recorder.n_lost == 1


def test_the_stream_stays_when_the_parquet_file_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    recorder = Recorder(tmp_path, URLS, START_NS)
    recorder.add(*Row(1))
    monkeypatch.setattr(records.pq, "ParquetWriter", full)
    assert recorder.close() == tmp_path / STREAM_NAME
    assert "No space left" in str(recorder.error)
    assert read_requests(tmp_path).num_rows == 1


def _stream(run_dir: Path, n_batches: int) -> bytes:
    """A complete stream of batches of ten rows; every third row has attempts."""
    recorder = Recorder(run_dir, URLS, START_NS, interval_s=60, chunk_rows=10)
    for i in range(10 * n_batches):
        recorder.add(*(lost(i) if i % 3 == 0 else Row(i, finish_reason=f"r{i // 10}")))
    recorder._closing.set()
    recorder._thread.join()
    return (run_dir / STREAM_NAME).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _stream(tmp_path_factory.mktemp("whole"), 4)


def _rows_of(data: bytes, folder: Path) -> list[int]:
    (folder / PARQUET_NAME).unlink(missing_ok=True)
    (folder / STREAM_NAME).write_bytes(data)
    in_memory = read_requests(folder).column("query_id").to_pylist()
    assert recover(folder) == folder / PARQUET_NAME
    assert not (folder / STREAM_NAME).exists()
    assert sorted(path.name for path in folder.iterdir()) == [PARQUET_NAME]
    kept: list[int] = pq.read_table(folder / PARQUET_NAME).column("query_id").to_pylist()
    assert kept == in_memory
    return kept


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_stream_cut_at_any_byte_gives_every_whole_batch(whole: bytes, tmp_path: Path, share: float) -> None:
    kept = _rows_of(whole[: int(len(whole) * share)], tmp_path)
    assert kept == list(range(len(kept)))
    assert len(kept) % 10 == 0


def test_a_stream_cut_around_each_message_border_gives_every_whole_batch(
    whole: bytes, tmp_path: Path
) -> None:
    borders = [0]
    with pa.BufferReader(whole) as source:
        while True:
            try:
                pa.ipc.read_message(source)
            except EOFError:
                break
            borders.append(source.tell())
    assert len(borders) > 6
    seen = []
    for border in borders:
        for cut in (border - 1, border, border + 1, border + 4, border + 8):
            kept = _rows_of(whole[: max(cut, 0)], tmp_path)
            assert kept == list(range(len(kept)))
            seen.append(len(kept))
    assert seen == sorted(seen)
    assert set(seen) == {0, 10, 20, 30, 40}


def test_garbage_behind_the_last_whole_batch_is_left_out(whole: bytes, tmp_path: Path) -> None:
    assert _rows_of(whole[:-8] + b"\xff" * 500, tmp_path) == list(range(40))


_KILLED = """
import sys, time
from pathlib import Path
from lbrun.results.records import Recorder
from lbrun.results.result import ResultFile
ResultFile(Path(sys.argv[1])).begin({"model": "llama3.1-8b"})
recorder = Recorder(Path(sys.argv[1]), ["http://127.0.0.1:1"], 1, interval_s=0.01)
i = 0
while True:
    recorder.add(i, i, 0, 1, 10, 11, 12, 13, 14, 5, 6, 0, False, "stop", None)
    i += 1
    if i % 1000 == 0:
        print(i, flush=True)
        time.sleep(0.001)
"""


def test_kill_9_leaves_a_readable_file(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        for _ in process.stdout:
            if read_requests(tmp_path).num_rows >= 1000:  # whole batches: of a later one a part may be there
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    recover(tmp_path)
    ids = read_requests(tmp_path).column("query_id").to_pylist()
    assert ids == list(range(len(ids)))
    assert len(ids) >= 1000
    result = (tmp_path / "result.json").read_text()
    assert '"verdict": "FAILED"' in result
    assert "the run was cut: no process finished it" in result
