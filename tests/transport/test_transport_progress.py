"""Answers that never end: only content keeps an attempt alive, and no answer goes on for ever."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transport_peers import LAST_CHUNK, STREAM_HEAD, Peer, Script, always, bench, chunk, run, whole

from lbrun.attempt import FailureKind
from lbrun.transport import Timeouts, deadlines
from lbrun.transport.patience import TIMES, Patience

CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
IMPATIENT = Timeouts(idle_s=0.3)


def dripping(begin: bytes, piece: bytes, gap_s: float = 0.02) -> Script:
    """Begins an answer, and then says the piece for ever."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(begin)
        while True:
            await peer.say(piece)
            await asyncio.sleep(gap_s)

    return script


ENDLESS = {
    "comments before a token": (True, STREAM_HEAD, chunk(b": ping\n\n")),
    "comments after a token": (True, STREAM_HEAD + chunk(b"tok\n"), chunk(b": ping\n\n")),
    "blank lines": (True, STREAM_HEAD + chunk(b"tok\n"), chunk(b"\n\n")),
    "interim heads": (False, b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "interim heads of a stream": (True, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "blanks of JSON": (False, b"HTTP/1.1 200 OK\r\n" + CHUNKED, chunk(b" \n")),
    "header after header": (False, b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_bytes_without_content_are_silence(case: str) -> None:
    stream, begin, piece = ENDLESS[case]

    async def main() -> None:
        async with bench(dripping(begin, piece), stream=stream, timeouts=IMPATIENT) as b:
            b.submit()
            failure = await b.sink.failure(0)
            assert failure.kind is FailureKind.IDLE_TIMEOUT
            assert failure.message == "no content within 0.3 s, only comments, blanks or interim answers"

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_the_body_of_an_error_is_read_for_a_while_only(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "ERROR_BODY_NS", 200_000_000)

    async def main() -> None:
        endless = dripping(b"HTTP/1.1 500 X\r\n" + CHUNKED + chunk(b"out of memory "), chunk(b"x"))
        async with bench(endless, stream=stream) as b:
            b.submit()
            failure = await b.sink.failure(0)
            assert failure.kind is FailureKind.HTTP_5XX
            assert failure.status == 500
            assert "out of memory" in failure.message

    run(main())


def test_a_stream_that_brings_more_than_was_asked_for_is_cut_off() -> None:
    async def main() -> None:
        async with bench(dripping(STREAM_HEAD, chunk(b"tok\n"), 0.01), stream=True) as b:
            b.submit()
            failure = await b.sink.failure(0)
            assert failure.kind is FailureKind.IMPLAUSIBLE

    run(main())


def test_slow_content_is_progress() -> None:
    """Each token comes within the idle timeout, all of them do not."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD)
        for _ in range(12):
            await asyncio.sleep(0.1)
            await peer.say(chunk(b": ping\n\n") + chunk(b"tok\n"))
        await peer.say(chunk(b"end\n") + LAST_CHUNK)

    async def main() -> None:
        async with bench(script, stream=True, timeouts=Timeouts(idle_s=0.6)) as b:
            b.submit()
            assert (await b.sink.result(0)).answer.n_tokens == 12

    run(main())


def test_a_stream_that_ends_and_goes_on_with_comments_is_complete() -> None:
    async def main() -> None:
        begin = STREAM_HEAD + chunk(b"tok\nend\n")
        async with bench(dripping(begin, chunk(b": ping\n\n")), stream=True) as b:
            b.submit()
            assert (await b.sink.result(0)).answer.n_tokens == 1

    run(main())


def test_an_eviction_takes_back_streams_that_have_no_more_than_a_head() -> None:
    """vLLM sends the head of a stream before it begins to work."""

    async def main() -> None:
        begun = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(STREAM_HEAD + (chunk(b"tok\n") if peer.number else b""))
            await peer.heard()
            begun.set()
            await peer.hang()

        async with bench(script, stream=True) as b:
            b.submit(0)
            await begun.wait()
            b.submit(1)
            await b.sink.until(lambda: 1 in b.sink.tokens)
            b.worker.evict(0)
            assert (await b.sink.failure(0)).kind is FailureKind.EVICTED
            assert 1 not in b.sink.outcomes

    run(main())


# -- how long an answer may take


def test_nothing_was_answered_yet_so_patience_is_long() -> None:
    assert Patience(128, 120.0).limit_ns == 3728e9


@given(st.lists(st.tuples(st.floats(0.001, 1000), st.integers(1, 128)), min_size=1))
def test_patience_is_many_times_what_any_answer_seen_took(answers: list[tuple[float, int]]) -> None:
    patience = Patience(128, 120.0)
    for took_s, n_tokens in answers:
        patience.note(int(took_s * 1e9), n_tokens)
    assert patience.limit_ns >= max(120e9, TIMES * max(int(took_s * 1e9) for took_s, _ in answers))


def test_an_answer_that_takes_far_longer_than_others_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(max_tokens: int, least_s: float) -> Patience:
        patience = Patience(max_tokens, 0.2)
        patience.note(1_000, 10)
        return patience

    monkeypatch.setattr("lbrun.transport.worker.Patience", impatient)

    async def main() -> None:
        slow = dripping(b"HTTP/1.1 200 OK\r\n" + CHUNKED, chunk(b"x"))
        async with bench(slow, always(whole()), timeouts=Timeouts(idle_s=5)) as b:
            b.submit(0)
            failure = await b.sink.failure(0)
            assert failure.kind is FailureKind.TOTAL_TIMEOUT
            assert "times what a full one takes here" in failure.message

    run(main())
