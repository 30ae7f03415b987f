"""What crosses between the dispatcher's process and a worker process: frames of fixed-size records. Pure.

A frame is a kind (1 byte), a length (4 bytes, little-endian) and so many bytes:

    to the worker      ATTEMPTS   (attempt id, sample index, server, fresh) each
                       CANCEL     attempt ids
                       EVICT      servers
                       CLOSE      nothing
    to the dispatcher  FIRST      (attempt id, at_ns) each
                       FIRST_WITH (attempt id, at_ns), payload; one
                       DONE       (attempt id, four times, two counts, finish code) each
                       DONE_WITH  the same, payload; one
                       FAILED     (attempt id, AttemptFailure's fields), msgpack; one
                       WORD       finish code, the server's word for it; before its first use
                       REPORT     `Report`, JSON; the last frame

Frames of one direction keep their order: a first token always comes before its attempt's end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from lbrun.attempt import Answer, AttemptFailure, AttemptResult

HEADER = struct.Struct("<BI")
ATTEMPT = struct.Struct("<QIIB")
ATTEMPT_ID = struct.Struct("<Q")
SERVER = struct.Struct("<I")
FIRST_TOKEN = struct.Struct("<Qq")
RESULT = struct.Struct("<QqqqqqqB")

ATTEMPTS, CANCEL, EVICT, CLOSE = 1, 2, 3, 4
FIRST, FIRST_WITH, DONE, DONE_WITH, FAILED, WORD, REPORT = 11, 12, 13, 14, 15, 16, 17

MAX_WORDS = 250
OTHER_WORD = "(other)"


class Report(NamedTuple):
    """What a worker process has cost, and seen. busy: share of time. unasked_answers: by server."""

    cpu_s: float
    busy: float
    unasked_answers: list[int]


_encode_failure = msgspec.msgpack.Encoder().encode
_decode_failure = msgspec.msgpack.Decoder(tuple[int, AttemptFailure]).decode


def frame(kind: int, payload: bytes | bytearray = b"") -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(payload)) + payload


class Frames:
    """Cuts a byte stream into frames, fed in any split. Where `handle` raises, the stream is lost with it."""

    __slots__ = ("_rest", "_wanted")

    def __init__(self) -> None:
        self._rest = bytearray()  # the beginning of a frame
        self._wanted = 0  # its whole length, or that of its header

    def feed(self, data: bytes, handle: Callable[[int, memoryview], None]) -> None:
        """Take the next bytes; handle(kind, payload) is called for each frame that they complete.

        The payload is a view into a buffer of its own, which lives as long as the view.
        """
        whole: bytes | bytearray = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return  # so that a large frame in many pieces is not copied for each of them
            whole, self._rest = self._rest, bytearray()
        view, at, size = memoryview(whole), 0, len(whole)
        wanted = HEADER.size
        while size - at >= HEADER.size:
            kind, length = HEADER.unpack_from(whole, at)
            end = at + HEADER.size + length
            if end > size:
                wanted += length
                break
            handle(kind, view[at + HEADER.size : end])
            at = end
        if at < size:
            self._rest, self._wanted = bytearray(view[at:]), wanted


def pack_failure(attempt_id: int, failure: AttemptFailure) -> bytes:
    """The payload of a FAILED frame."""
    # JSON can bring lone surrogates into a server's words, which no encoding of text can carry
    message = failure.message.encode("utf-8", "replace").decode("utf-8")
    return _encode_failure((attempt_id, failure._replace(message=message)))


def unpack_failure(payload: memoryview) -> tuple[int, AttemptFailure]:
    """The way back."""
    return _decode_failure(payload)


def pack_result(attempt_id: int, result: AttemptResult, finish_code: int) -> bytes:
    """A record of a DONE frame, or the head of a DONE_WITH frame.

    Raises struct.error where a server's counts are beyond 64 bits.
    """
    sent_ns, first_byte_ns, first_token_ns, done_ns, answer = result
    return RESULT.pack(
        attempt_id, sent_ns, first_byte_ns, first_token_ns, done_ns,
        answer.n_tokens, answer.n_input_tokens, finish_code,
    )  # fmt: skip


def unpack_results(payload: memoryview, words: list[str]) -> list[tuple[int, AttemptResult]]:
    """The records of a DONE frame."""
    return [
        (
            attempt_id,
            AttemptResult(
                sent_ns, first_byte_ns, first_token_ns, done_ns, Answer(n_tokens, n_input, None, words[code])
            ),
        )
        for attempt_id, sent_ns, first_byte_ns, first_token_ns, done_ns, n_tokens, n_input, code in (
            RESULT.iter_unpack(payload)
        )
    ]


def unpack_result_with(payload: memoryview, words: list[str]) -> tuple[int, AttemptResult]:
    """A DONE_WITH frame."""
    ((attempt_id, result),) = unpack_results(payload[: RESULT.size], words)
    answer = result.answer._replace(payload=bytes(payload[RESULT.size :]))
    return attempt_id, result._replace(answer=answer)
