"""The columns of a run's per-sample records, and how packed rows become an Arrow batch.

One row is one sample, from issue to its one completion:

==================  ===============================================================================
query_id            LoadGen's id of the issued sample
sample_index        row of the dataset
server              URL that the last attempt went to; null where the sample was never sent
n_attempts          HTTP requests made for it
issued_ns           LoadGen handed it over
sent_ns             the last attempt's request was written
first_byte_ns       first byte of the last attempt's answer
first_token_ns      first token as reported to LoadGen; a restarted stream keeps its first report
done_ns             completed, with an answer or without
n_input_tokens      prompt tokens as the server counted them, 0 where it does not say
n_tokens            output tokens as the server counted them
failure             null for an answer, else the name of a ``FailureKind``
restarted           a stream was cut and begun again elsewhere
finish_reason       the server's word for why the answer ended
attempts            null where the only attempt was good, else every ended attempt in order:
                    server, sent_ns, end_ns, failure (null: it was the good one), message
==================  ===============================================================================

Times are nanoseconds of the monotonic clock since the run's start; null: it did not happen.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from lbrun.attempt import FailureKind

AttemptRow: TypeAlias = tuple[int, int, int, int, str]
"""server (index into the pool), sent_ns, end_ns, failure kind (0: good), message. Absolute times."""

ROW = struct.Struct("<Q14q")
"""A sample as it is packed on the event loop: the fixed columns in the order of `_PACKED`."""

_PACKED = (
    "query_id",
    "sample_index",
    "server",
    "n_attempts",
    "issued_ns",
    "sent_ns",
    "first_byte_ns",
    "first_token_ns",
    "done_ns",
    "n_input_tokens",
    "n_tokens",
    "failure",
    "restarted",
    "finish_reason",
    "attempts_key",
)
_TIMES = ("issued_ns", "sent_ns", "first_byte_ns", "first_token_ns", "done_ns")
_DTYPE = np.dtype([(name, "<u8" if name == "query_id" else "<i8") for name in _PACKED])

NO_ATTEMPTS_KEY = -1
MESSAGE_CHARS = 500
"""A longer message of a failed attempt is cut: a server's error page may have any length."""

_WORD = pa.dictionary(pa.int32(), pa.string())
ATTEMPT_TYPE = pa.struct(
    [
        ("server", pa.string()),
        ("sent_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("failure", pa.string()),
        ("message", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("query_id", pa.uint64()),
        ("sample_index", pa.int64()),
        ("server", _WORD),
        ("n_attempts", pa.int64()),
        *((name, pa.int64()) for name in _TIMES),
        ("n_input_tokens", pa.int64()),
        ("n_tokens", pa.int64()),
        ("failure", _WORD),
        ("restarted", pa.bool_()),
        ("finish_reason", _WORD),
        ("attempts", pa.list_(ATTEMPT_TYPE)),
    ]
)

_KINDS = np.array(sorted(FailureKind), dtype=np.int64)
_KIND_NAMES = pa.array([FailureKind(int(kind)).name for kind in _KINDS], pa.string())


def to_batch(
    rows: Sequence[bytes],
    attempts: Mapping[int, Sequence[AttemptRow]],
    *,
    servers: Sequence[str],
    finish_reasons: Sequence[str],
    start_ns: int,
) -> Any:
    """Turn packed rows into one Arrow record batch of `SCHEMA`.

    attempts: by the rows' key. finish_reasons: the words that the rows' codes stand for.
    Raises ValueError for a failure kind that does not exist.
    """
    packed = np.frombuffer(b"".join(rows), dtype=_DTYPE)
    columns: dict[str, Any] = {
        "query_id": pa.array(packed["query_id"]),
        "sample_index": pa.array(packed["sample_index"]),
        "server": _words(packed["server"], pa.array(servers, pa.string())),
        "n_attempts": pa.array(packed["n_attempts"]),
        "n_input_tokens": pa.array(packed["n_input_tokens"]),
        "n_tokens": pa.array(packed["n_tokens"]),
        "failure": _words(_kind_codes(packed["failure"]), _KIND_NAMES),
        "restarted": pa.array(packed["restarted"] != 0),
        "finish_reason": _words(
            packed["finish_reason"], pa.array([well_formed(word) for word in finish_reasons], pa.string())
        ),
        "attempts": pa.array(
            [
                None
                if key == NO_ATTEMPTS_KEY
                else [_attempt(row, servers, start_ns) for row in attempts[key]]
                for key in packed["attempts_key"].tolist()
            ],
            pa.list_(ATTEMPT_TYPE),
        ),
    }
    for name in _TIMES:
        columns[name] = pa.array(packed[name] - start_ns, mask=packed[name] == 0)
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def attempts_key(row: bytes) -> int:
    """The key of a packed row's attempts, `NO_ATTEMPTS_KEY` for a good row."""
    return int.from_bytes(row[-8:], "little", signed=True)


def empty() -> Any:
    """A table of `SCHEMA` without rows."""
    return SCHEMA.empty_table()


def well_formed(text: str) -> str:
    """The text with what UTF-8 cannot carry (lone surrogates of a broken answer) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _words(codes: Any, words: Any) -> Any:
    """A dictionary column; a negative code is null."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=codes < 0), words)


def _kind_codes(kinds: Any) -> Any:
    """Positions in `_KINDS`, -1 for kind 0 (no failure)."""
    codes = np.searchsorted(_KINDS, kinds).clip(max=len(_KINDS) - 1)
    unknown = (_KINDS[codes] != kinds) & (kinds != 0)
    if unknown.any():
        raise ValueError(f"{int(kinds[unknown][0])} is no kind of failure")
    return np.where(kinds == 0, -1, codes)


def _attempt(row: AttemptRow, servers: Sequence[str], start_ns: int) -> dict[str, object]:
    server, sent_ns, end_ns, kind, message = row
    return {
        "server": servers[server] if server >= 0 else None,
        "sent_ns": sent_ns - start_ns if sent_ns else None,
        "end_ns": end_ns - start_ns if end_ns else None,
        "failure": FailureKind(kind).name if kind else None,
        "message": well_formed(message[:MESSAGE_CHARS]),
    }
