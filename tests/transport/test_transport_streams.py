"""Streams: the first token, the end mark, and what happens between and after them."""

from __future__ import annotations

import asyncio

import pytest
from transport_peers import (
    LAST_CHUNK,
    STREAM_HEAD,
    Peer,
    always,
    bench,
    chunk,
    once,
    run,
    status,
    whole,
)

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind
from lbrun.transport import Timeouts

GOOD = STREAM_HEAD + chunk(b"role\n") + chunk(b"tok\ntok\n") + chunk(b"end\n") + LAST_CHUNK


def outcome(*steps: object, timeouts: Timeouts | None = None) -> tuple[AttemptResult | AttemptFailure, bool]:
    """What becomes of one stream, and whether its first token was reported."""

    async def main() -> tuple[AttemptResult | AttemptFailure, bool]:
        async with bench(once(*steps), stream=True, timeouts=timeouts) as b:  # type: ignore[arg-type]
            b.submit(0)
            await b.sink.until(lambda: 0 in b.sink.outcomes)
            return b.sink.outcomes[0], 0 in b.sink.tokens

    return run(main())


def test_first_token_is_reported_when_it_is_read_and_the_answer_at_its_end() -> None:
    reported, said = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(b"role\n"))
        await peer.heard()
        await peer.say(chunk(b"tok\n"))
        await reported.wait()
        said.set()
        await peer.say(chunk(b"tok\nend\n") + LAST_CHUNK)

    async def main() -> None:
        async with bench(script, stream=True) as b:
            b.sink.on_token = lambda attempt_id: reported.set()
            b.submit(0)
            await b.sink.until(lambda: 0 in b.sink.tokens)
            assert not b.sink.outcomes
            result = await b.sink.result(0)
            assert result.answer.n_tokens == 2
            assert b.sink.tokens[0] == result.first_token_ns
            assert result.sent_ns < result.first_byte_ns < result.first_token_ns < result.done_ns

    run(main())


def test_streams_in_one_read_reuse_their_connection() -> None:
    async def main() -> None:
        async with bench(always(GOOD), stream=True) as b:
            for attempt_id in range(5):
                b.submit(attempt_id)
                result = await b.sink.result(attempt_id)
                assert result.answer.n_tokens == 2
                assert result.first_token_ns == result.done_ns == b.sink.tokens[attempt_id]
            assert b.servers[0].n_connections == 1

    run(main())


def test_stream_cut_into_single_bytes_is_the_same() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for i in range(len(GOOD)):
            await peer.say(GOOD[i : i + 1])
            await asyncio.sleep(0)

    async def main() -> None:
        async with bench(script, stream=True) as b:
            b.submit(0)
            assert (await b.sink.result(0)).answer.n_tokens == 2

    run(main())


def test_error_in_a_stream_ends_it_at_once_and_its_connection() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(b"tok\nbad\n"))
        await peer.gone()
        gone.set()

    async def main() -> None:
        async with bench(script, stream=True) as b:
            b.submit(0)
            failure = await b.sink.failure(0)
            assert failure.kind is FailureKind.ERROR_IN_ANSWER
            assert failure.message == "the server says: bad"
            assert failure.first_token_ns == b.sink.tokens[0]
            async with asyncio.timeout(5):
                await gone.wait()

    run(main())


@pytest.mark.parametrize("rest", [b"", chunk(b"more"), chunk(b"end\n")])
def test_error_with_a_polite_end_behind_it_is_still_an_error(rest: bytes) -> None:
    ended, token = outcome(STREAM_HEAD + chunk(b"tok\n") + chunk(b"bad\n") + rest + LAST_CHUNK)
    assert isinstance(ended, AttemptFailure)
    assert ended.kind is FailureKind.ERROR_IN_ANSWER
    assert token


def test_stream_without_an_end_mark_is_no_answer() -> None:
    ended, token = outcome(STREAM_HEAD + chunk(b"tok\n") + LAST_CHUNK)
    assert isinstance(ended, AttemptFailure)
    assert ended.kind is FailureKind.NO_END_MARK
    assert token


def test_stream_without_a_token_or_a_body_is_no_answer() -> None:
    for body, kind in ((chunk(b"end\n"), FailureKind.EMPTY_ANSWER), (b"", FailureKind.NO_END_MARK)):
        ended, token = outcome(STREAM_HEAD + body + LAST_CHUNK)
        assert isinstance(ended, AttemptFailure)
        assert ended.kind is kind
        assert not token


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
def test_stream_that_breaks_before_its_end_mark_is_cut(end: object) -> None:
    ended, _ = outcome(STREAM_HEAD + chunk(b"tok\n"), Peer.heard, end)
    assert isinstance(ended, AttemptFailure)
    assert ended.kind is FailureKind.CUT
    assert ended.first_token_ns


@pytest.mark.parametrize("then", [Peer.close, Peer.reset, Peer.gone, b"zz\r\n"])
def test_stream_is_complete_by_its_end_mark_though_the_http_message_never_ends(then: object) -> None:
    async def main() -> None:
        script = once(STREAM_HEAD + chunk(b"tok\nend\n"), Peer.heard, then)  # type: ignore[arg-type]
        async with bench(script, stream=True) as b:
            b.submit(0)
            result = await b.sink.result(0)
            assert result.answer.n_tokens == 1
            if not isinstance(then, bytes):
                assert result.done_ns == b.sink.tokens[0]  # not when the waiting ended
            b.servers[0].script = always(GOOD)
            b.submit(1)
            await b.sink.result(1)
            assert b.servers[0].n_connections == 2

    run(main())


def test_unframed_stream_ends_with_the_connection() -> None:
    ended, token = outcome(b"HTTP/1.1 200 OK\r\n\r\ntok\nend\n")
    assert isinstance(ended, AttemptResult)
    assert token


def test_token_in_an_unfinished_last_event_is_reported_before_the_answer() -> None:
    async def main() -> None:
        async with bench(once(b"HTTP/1.1 200 OK\r\n\r\ntok"), stream=True) as b:
            b.submit(0)
            result = await b.sink.result(0)
            assert b.sink.tokens[0] == result.first_token_ns == result.done_ns

    run(main())


def test_refusal_of_a_stream_is_read_as_a_whole() -> None:
    ended, token = outcome(status(400, b"tok\nend\n"))
    assert isinstance(ended, AttemptFailure)
    assert ended.kind is FailureKind.HTTP_4XX
    assert not token


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\n\r\ntok", GOOD, STREAM_HEAD + chunk(b"tok\n")])
def test_attempt_may_be_cancelled_from_within_its_first_token(said: bytes) -> None:
    async def main() -> None:
        async with bench(once(said), always(GOOD), stream=True) as b:
            b.sink.on_token = lambda attempt_id: b.worker.cancel(attempt_id) if attempt_id == 0 else None
            b.submit(0)
            await b.sink.until(lambda: 0 in b.sink.tokens)
            b.submit(1, server=1)
            await b.sink.result(1)
            assert 0 not in b.sink.outcomes

    run(main())


def test_crashing_decoder_fails_the_attempt_alone() -> None:
    ended, _ = outcome(STREAM_HEAD + chunk(b"tok\ncrash\n"), Peer.gone)
    assert isinstance(ended, AttemptFailure)
    assert ended.kind is FailureKind.MALFORMED
    assert "ZeroDivisionError" in ended.message


def test_stalled_stream_is_idle_and_keeps_its_first_token() -> None:
    ended, token = outcome(STREAM_HEAD + chunk(b"tok\n"), Peer.gone, timeouts=Timeouts(idle_s=0.05))
    assert isinstance(ended, AttemptFailure)
    assert ended.kind is FailureKind.IDLE_TIMEOUT
    assert token
    assert ended.first_token_ns


def test_compressed_stream_is_malformed() -> None:
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    ended, token = outcome(head + chunk(b"tok\nend\n") + LAST_CHUNK)
    assert isinstance(ended, AttemptFailure)
    assert ended.kind is FailureKind.MALFORMED
    assert not token


def test_whole_answers_may_come_in_chunks() -> None:
    answer = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"n\r\n5\r\n": 1}\r\n0\r\n\r\n'

    async def main() -> None:
        async with bench(always(answer)) as b:
            b.submit(0)
            assert (await b.sink.result(0)).answer.n_tokens == 1
            b.servers[0].script = always(whole())

    run(main())
