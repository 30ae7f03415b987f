"""What crosses between processes arrives as it was sent, however the stream is cut."""

from __future__ import annotations

import itertools
import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lbrun.attempt import Answer, AttemptFailure, AttemptResult, FailureKind
from lbrun.workers import wire

INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.integers(0, 2**63 - 1)
FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8)

FAILURES = st.builds(
    AttemptFailure,
    kind=st.sampled_from(FailureKind),
    message=st.text(max_size=50),
    at_ns=TIMES,
    sent_ns=TIMES,
    sent=st.booleans(),
    any_byte=st.booleans(),
    reused=st.booleans(),
    status=st.integers(0, 999),
    retry_after_s=st.none() | st.floats(allow_nan=False),
    first_token_ns=TIMES,
)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def received(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """What a reader is told of, payloads copied at the end: they must have kept their bytes till then."""
    seen: list[tuple[int, memoryview]] = []
    frames = wire.Frames()
    for piece in pieces:
        frames.feed(piece, lambda kind, payload: seen.append((kind, payload)))
    return [(kind, bytes(payload)) for kind, payload in seen]


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=12))
def test_frames_arrive_whole_and_in_order_in_any_split(
    frames: list[tuple[int, bytes]], at: list[int]
) -> None:
    data = b"".join(wire.frame(kind, payload) for kind, payload in frames)
    assert received(cut(data, at)) == frames


@given(FRAMES)
def test_frames_arrive_byte_by_byte(frames: list[tuple[int, bytes]]) -> None:
    data = b"".join(wire.frame(kind, payload) for kind, payload in frames)
    assert received([data[i : i + 1] for i in range(len(data))]) == frames


@given(st.binary(min_size=1, max_size=200))
def test_an_unfinished_frame_is_not_told(payload: bytes) -> None:
    assert received([wire.frame(1, b"whole") + wire.frame(2, payload)[:-1]]) == [(1, b"whole")]


def test_a_large_frame_is_not_copied_for_each_of_its_pieces() -> None:
    payload = bytes(range(256)) * 4096
    pieces = cut(wire.frame(wire.DONE_WITH, payload), list(range(0, len(payload), 1000)))
    frames, seen = wire.Frames(), []
    for piece in pieces[:-1]:
        frames.feed(piece, lambda kind, view: seen.append(bytes(view)))
    assert seen == []
    frames.feed(pieces[-1], lambda kind, view: seen.append(bytes(view)))
    assert seen == [payload]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1),
            TIMES, TIMES, TIMES, TIMES,
            st.integers(1, 2**63 - 1),
            INT64,
            st.integers(0, 2),
        ),
        max_size=6,
    )
)  # fmt: skip
def test_results_come_back_as_they_were(rows: list[tuple[int, int, int, int, int, int, int, int]]) -> None:
    words = ["stop", "", "länge"]
    sent = [
        (attempt_id, AttemptResult(*times, Answer(n_tokens, n_input, None, words[code])))
        for attempt_id, *times, n_tokens, n_input, code in rows
    ]
    data = b"".join(
        wire.pack_result(i, result, words.index(result.answer.finish_reason)) for i, result in sent
    )
    assert wire.unpack_results(memoryview(data), words) == sent


@given(st.binary(max_size=100))
def test_a_payload_comes_back_with_its_result(payload: bytes) -> None:
    result = AttemptResult(1, 2, 3, 4, Answer(5, 6, payload, "stop"))
    data = wire.pack_result(7, result, 0) + payload
    assert wire.unpack_result_with(memoryview(data), ["stop"]) == (7, result)


@given(st.integers(0, 2**64 - 1), FAILURES)
@example(0, AttemptFailure(FailureKind.HTTP_429, "", 1, retry_after_s=math.inf))
def test_failures_come_back_as_they_were(attempt_id: int, failure: AttemptFailure) -> None:
    back = wire.unpack_failure(memoryview(wire.pack_failure(attempt_id, failure)))
    assert back == (attempt_id, failure)
    assert isinstance(back[1].kind, FailureKind)


def test_a_message_that_is_no_text_is_told_nevertheless() -> None:
    """JSON may bring half of a surrogate pair, which UTF-8 cannot carry; the attempt must still end."""
    failure = AttemptFailure(FailureKind.ERROR_IN_ANSWER, "the server says \ud83d", 1)
    _, back = wire.unpack_failure(memoryview(wire.pack_failure(1, failure)))
    assert back == failure._replace(message="the server says ?")


def test_counts_beyond_64_bits_are_refused() -> None:
    with pytest.raises(struct.error):
        wire.pack_result(1, AttemptResult(1, 2, 3, 4, Answer(2**63, 0, None, "")), 0)
