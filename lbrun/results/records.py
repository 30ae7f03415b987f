"""Per-sample records, written while the run goes on.

    event loop ──add()──> deque of packed rows ──writer thread, once a second──> requests.arrows
                                                            close(), recover() ──> requests.parquet

``requests.arrows`` is an Arrow IPC stream: every batch that was written whole can be read, wherever the
file ends. Memory holds at most what came in since the writer last looked, about a second of traffic.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lbrun.results.table import NO_ATTEMPTS_KEY, ROW, SCHEMA, AttemptRow, attempts_key, empty, to_batch

STREAM_NAME = "requests.arrows"
PARQUET_NAME = "requests.parquet"
_ROW_GROUP = 131_072
_MAX_FINISH_REASONS = 256
_WORDS = re.compile(r"[A-Za-z0-9_ ]{0,24}")
_pack = ROW.pack


class Recorder:
    """Takes one row per sample on the event loop, and never gets in the run's way.

    When the disk is full, or anything else forbids writing, `error` says so, the rows that follow are
    counted in `n_lost`, and the run goes on; what had been written stays readable.

    run_dir: an existing folder. servers: the pool's URLs, in the order of the indices given to `add`.
    start_ns: the run's start on ``time.monotonic_ns()``; the file's times count from it.
    interval_s: how often rows go to the file. chunk_rows: at most so many rows in one batch.
    redact: takes secrets out of the servers' words.
    """

    def __init__(
        self,
        run_dir: Path,
        servers: Sequence[str],
        start_ns: int,
        *,
        interval_s: float = 1.0,
        chunk_rows: int = 65_536,
        redact: Callable[[str], str] = str,
    ) -> None:
        self.error: str | None = None
        self.n_lost = 0
        self._run_dir = run_dir
        self._servers = list(servers)
        self._start_ns = start_ns
        self._interval_s = interval_s
        self._chunk_rows = chunk_rows
        self._redact = redact
        # One thread appends and one takes from the left: a deque needs no lock for that.
        self._rows: deque[bytes] = deque()
        self._append = self._rows.append
        self._attempts: dict[int, Sequence[AttemptRow]] = {}
        self._next_attempts_key = 0
        self._finish_reasons: dict[str, int] = {}
        self._closing = Event()
        self._closed = False
        self._thread = Thread(target=self._write_all, name="lbrun-records", daemon=True)
        self._thread.start()

    def add(
        self,
        query_id: int,
        sample_index: int,
        server: int,
        n_attempts: int,
        issued_ns: int,
        sent_ns: int,
        first_byte_ns: int,
        first_token_ns: int,
        done_ns: int,
        n_input_tokens: int,
        n_tokens: int,
        failure: int,
        restarted: bool,
        finish_reason: str,
        attempts: Sequence[AttemptRow] | None,
    ) -> None:
        """Record a completed sample (columns: `lbrun.results.table`). Hot; never raises.

        server: index into the pool, -1 where the sample was never sent. Times: ``monotonic_ns``, 0 for
        what did not happen. failure: a ``FailureKind``, 0 for an answer. attempts: None where the only
        attempt was good.
        """
        # A row is packed here rather than kept as a tuple: half the time, a third of the memory, and
        # nothing for the garbage collector to walk through.
        try:
            reason = self._finish_reasons.get(finish_reason)
            if reason is None:
                reason = self._learn(finish_reason)
            key = NO_ATTEMPTS_KEY
            if attempts is not None:
                key = self._next_attempts_key
                self._next_attempts_key += 1
                self._attempts[key] = attempts
            self._append(
                _pack(
                    query_id,
                    sample_index,
                    server,
                    n_attempts,
                    issued_ns,
                    sent_ns,
                    first_byte_ns,
                    first_token_ns,
                    done_ns,
                    n_input_tokens,
                    n_tokens,
                    failure,
                    restarted,
                    reason,
                    key,
                )
            )
        except Exception as error:  # a sample's completion must not end in an exception, whatever came in
            self.n_lost += 1
            self.error = self.error or f"a sample could not be recorded: {error}"

    def close(self) -> Path | None:
        """Write what is left, and turn the stream into ``requests.parquet``. May be called again.

        Returns the records' file: the Parquet file, or the stream where the former could not be made
        (then `error` says why), or None where there is neither.
        """
        if not self._closed:
            self._closed = True
            self._closing.set()
            self._thread.join()
            try:
                recover(self._run_dir)
            except (OSError, pa.ArrowException) as error:
                self.error = self.error or f"{PARQUET_NAME} could not be made from {STREAM_NAME}: {error}"
        for name in (PARQUET_NAME, STREAM_NAME):
            if (self._run_dir / name).exists():
                return self._run_dir / name
        return None

    def _learn(self, finish_reason: str) -> int:
        """A code for a word not seen before. A server that makes up a new word each time is cut short.

        What is no short word might be anything that the server knows, an API key too.
        """
        is_word = _WORDS.fullmatch(finish_reason) and self._redact(finish_reason) == finish_reason
        if len(self._finish_reasons) >= _MAX_FINISH_REASONS or not is_word:
            finish_reason = "(other)"
        return self._finish_reasons.setdefault(finish_reason, len(self._finish_reasons))

    def _write_all(self) -> None:
        """The writer thread: until `close`, and then whatever is left."""
        try:
            with pa.OSFile(str(self._run_dir / STREAM_NAME), "wb") as file:
                stream = pa.ipc.new_stream(file, SCHEMA)
                closing = False
                while not closing:
                    closing = self._closing.wait(self._interval_s)
                    while self._rows:
                        self._write_batch(stream)
                # Only a good end is marked as one: a mark behind half a batch would pass for its rest.
                stream.close()
        except Exception as error:  # a dead writer thread must neither go unseen nor let memory grow
            self.error = self.error or f"per-sample records stopped: {error}"
            self._drop_all()

    def _write_batch(self, stream: Any) -> None:
        n = min(len(self._rows), self._chunk_rows)
        rows = [self._rows.popleft() for _ in range(n)]
        keys = (
            [key for row in rows if (key := attempts_key(row)) != NO_ATTEMPTS_KEY] if self._attempts else []
        )
        attempts = {key: self._attempts.pop(key) for key in keys}
        try:
            stream.write_batch(
                to_batch(
                    rows,
                    attempts,
                    servers=self._servers,
                    finish_reasons=list(self._finish_reasons),
                    start_ns=self._start_ns,
                )
            )
        except Exception:
            self.n_lost += n
            raise

    def _drop_all(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(self._interval_s)
            self.n_lost += len(self._rows)
            self._rows.clear()
            self._attempts.clear()


def recover(run_dir: Path) -> Path | None:
    """Turn a run's record stream, complete or cut, into ``requests.parquet``; return that file's path.

    The stream is removed only after the Parquet file is complete and in its place. None where the run
    has no records at all. Raises OSError where the folder cannot be written.
    """
    stream, target = run_dir / STREAM_NAME, run_dir / PARQUET_NAME
    if not stream.exists():
        return target if target.exists() else None
    part = target.with_suffix(".parquet.part")
    try:
        with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
            for table in _row_groups(stream):
                writer.write_table(table)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    stream.unlink()
    return target


def read_requests(run_dir: Path) -> Any:
    """All records of a run as a ``pyarrow.Table``, from the Parquet file or else from a cut stream."""
    stream, parquet = run_dir / STREAM_NAME, run_dir / PARQUET_NAME
    if stream.exists():
        batches = list(_whole_batches(stream))
        return pa.Table.from_batches(batches, SCHEMA).unify_dictionaries() if batches else empty()
    return pq.read_table(parquet, schema=SCHEMA) if parquet.exists() else empty()


def _whole_batches(path: Path) -> Iterator[Any]:
    """The batches of a stream up to where it was cut."""
    with path.open("rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
            while True:
                yield reader.read_next_batch()
        except (StopIteration, OSError, pa.ArrowException):
            return  # the end, or the first byte that is missing


def _row_groups(path: Path) -> Iterator[Any]:
    """The stream's batches, gathered into tables of a good size for Parquet."""
    waiting: list[Any] = []
    n_rows = 0
    for batch in _whole_batches(path):
        waiting.append(batch)
        n_rows += batch.num_rows
        if n_rows >= _ROW_GROUP:
            yield pa.Table.from_batches(waiting, SCHEMA).unify_dictionaries()
            waiting, n_rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting, SCHEMA).unify_dictionaries()
