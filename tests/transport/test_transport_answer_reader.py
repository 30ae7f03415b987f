"""Reading HTTP answers from bytes alone: every split, every way to go wrong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.attempt import FailureKind
from lbrun.transport import Limits
from lbrun.transport.answer_reader import AnswerReader

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-Name: v\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;ext=1\r\nhello\r\n1\r\n \r\n05\r\nworld\r\n0\r\nX-Trailer: t\r\n\r\n"
)
INTERIM = b"HTTP/1.1 100 Continue\r\nContent-Encoding: identity\r\n\r\n"


def read(data: bytes, cuts: list[int] | None = None, limits: Limits | None = None) -> AnswerReader:
    reader = AnswerReader(limits or Limits())
    feed(reader, data, cuts)
    return reader


def feed(reader: AnswerReader, data: bytes, cuts: list[int] | None = None) -> None:
    bounds = [0, *sorted(set(cuts or [])), len(data)]
    for start, end in itertools.pairwise(bounds):
        if start < end and reader.trouble is None:
            reader.feed(data[start:end])


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, INTERIM + LENGTH, INTERIM * 3 + CHUNKED])
def test_answer_is_the_same_for_every_split_in_two_and_for_single_bytes(answer: bytes) -> None:
    splits = [[i] for i in range(1, len(answer))] + [list(range(len(answer)))]
    for cuts in splits:
        reader = read(answer, cuts)
        assert (reader.status, reader.complete, reader.trouble) == (200, True, None), cuts
        assert reader.keep_alive
        assert not reader.excess
        assert reader.body() == b"hello world"


@given(st.lists(st.sampled_from([LENGTH, CHUNKED, INTERIM + LENGTH]), min_size=1, max_size=4), st.data())
def test_one_reader_reads_many_answers_in_any_split(answers: list[bytes], data: st.DataObject) -> None:
    reader = AnswerReader(Limits())
    for answer in answers:
        cuts = data.draw(st.lists(st.integers(1, len(answer) - 1), max_size=6))
        reader.begin()
        feed(reader, answer, cuts)
        assert reader.complete
        assert reader.body() == b"hello world"


def test_headers_and_body_of_an_earlier_answer_do_not_linger() -> None:
    reader = read(LENGTH)
    reader.begin()
    feed(reader, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert reader.complete
    assert reader.headers == {b"Content-Length": b"0"}
    assert reader.body() == b""


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_closing_server_is_not_asked_again(head: bytes) -> None:
    reader = read(head)
    assert reader.complete
    assert not reader.keep_alive


@pytest.mark.parametrize("excess", [b"junk", LENGTH, b"HTTP/1.1 101 X\r\nUpgrade: a\r\n\r\n", b"H", b"\x00"])
@pytest.mark.parametrize("answer", [LENGTH, CHUNKED])
def test_bytes_behind_an_answer_spoil_the_connection_but_not_the_answer(answer: bytes, excess: bytes) -> None:
    for cuts in ([], [len(answer)], [len(answer) - 1]):
        reader = read(answer + excess, cuts)
        assert reader.complete
        assert reader.excess
        assert reader.status == 200
        assert reader.body() == b"hello world"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2xx OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: eleven\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-ENCODING: br\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nxyz",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
    ],
)
def test_what_is_no_plain_http_answer_is_malformed_in_every_split(answer: bytes) -> None:
    for cuts in ([], list(range(len(answer)))):
        reader = read(answer, cuts)
        assert reader.trouble is not None
        assert reader.trouble[0] is FailureKind.MALFORMED
        assert not reader.complete


def test_identity_encoding_and_an_offer_to_upgrade_are_no_trouble() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    reader = read(answer)
    assert reader.complete
    assert reader.body() == b"ok"


def test_body_without_length_ends_with_the_connection() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nhello")
    assert not reader.complete
    assert reader.ends_with_connection()
    assert reader.body() == b"hello"
    assert not read(b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 9\r\n\r\nhello").ends_with_connection()
    assert not read(b"HTTP/1.1 200 OK\r\n").ends_with_connection()


@pytest.mark.parametrize("n_bytes_a_read", [1, 50, 100_000])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"v" * 2000,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"H%d: v\r\n" % i for i in range(200)) + b"\r\n",
        b"HTTP/1.1 103 Hints\r\nLink: something-long\r\n\r\n" * 50,
    ],
)
def test_endless_head_is_refused(answer: bytes, n_bytes_a_read: int) -> None:
    cuts = list(range(0, len(answer), n_bytes_a_read))
    reader = read(answer, cuts, Limits(max_head_bytes=1000))
    assert reader.trouble is not None
    assert reader.trouble[0] is FailureKind.TOO_LARGE
    assert "1000 bytes" in reader.trouble[1]


@pytest.mark.parametrize("n_bytes_a_read", [1000, 1_000_000])
@pytest.mark.parametrize("framing", [b"Content-Length: 500000", b"Transfer-Encoding: chunked", b"X: y"])
def test_endless_body_is_refused(framing: bytes, n_bytes_a_read: int) -> None:
    body = b"x" * 500_000
    if b"chunked" in framing:
        body = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(500))
    answer = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + body
    limits = Limits(max_head_bytes=1000, max_body_bytes=100_000)
    reader = read(answer, list(range(0, len(answer), n_bytes_a_read)), limits)
    assert reader.trouble is not None
    assert reader.trouble[0] is FailureKind.TOO_LARGE
    assert not reader.complete
    if n_bytes_a_read == 1000:
        assert len(reader.body()) < 103_000


def test_endless_trailers_are_refused() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    trailers = b"".join(b"T%d: v\r\n" % i for i in range(5000))
    reader = read(answer + trailers, list(range(0, 40_000, 500)), Limits(1000, 10_000))
    assert reader.trouble is not None
    assert reader.trouble[0] is FailureKind.TOO_LARGE


def test_only_the_start_of_a_long_error_is_kept() -> None:
    answer = b"HTTP/1.1 500 X\r\nContent-Length: 1000000\r\n\r\n" + b"e" * 1_000_000
    reader = AnswerReader(Limits())
    kept = 0
    for start in range(0, len(answer), 10_000):
        reader.feed(answer[start : start + 10_000])
        kept = max(kept, sum(map(len, reader.parts)))
    assert reader.complete
    assert kept < 100_000
    assert reader.body().startswith(b"eeee")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_arbitrary_bytes_never_raise_and_never_complete_an_answer(reads: list[bytes]) -> None:
    reader = AnswerReader(Limits(200, 200))
    for data in reads:
        reader.feed(data)
        assert not (reader.complete and reader.trouble)
    if not b"".join(reads).lstrip(b"\r\n").startswith(b"HTTP/1."):
        assert not reader.complete


@given(st.integers(0, len(CHUNKED) - 1), st.binary(min_size=1, max_size=3), st.lists(st.integers(0, 120)))
def test_damaged_answer_never_raises_and_never_is_both_complete_and_in_trouble(
    place: int, damage: bytes, cuts: list[int]
) -> None:
    answer = CHUNKED[:place] + damage + CHUNKED[place + len(damage) :]
    reader = AnswerReader(Limits(300, 300))
    feed(reader, answer, [c for c in cuts if c < len(answer)])
    assert not (reader.complete and reader.trouble)


def test_closed_reader_ignores_what_still_comes() -> None:
    reader = AnswerReader(Limits())
    reader.close()
    reader.feed(LENGTH)
    assert not reader.complete
