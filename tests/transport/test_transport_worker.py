"""Attempts over real connections: reuse, order, cancelling, evicting, closing."""

from __future__ import annotations

import asyncio
import gc

import pytest
from transport_peers import Bench, Peer, Sink, Words, always, bench, eventually, once, run, whole

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind
from lbrun.transport import InlineWorker, Limits, Timeouts, make_endpoint
from lbrun.transport.answer_reader import AnswerReader
from lbrun.transport.connection import Connection


@pytest.mark.parametrize("plain_loop", [False, True])
def test_attempt_sends_the_sample_and_brings_the_answer_and_its_times(plain_loop: bool) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.say(whole(7, "hi"))
        await peer.gone()

    async def main() -> None:
        async with bench(script, bodies=[b"zero", memoryview(b"one")]) as b:
            b.submit(5, sample=1)
            result = await b.sink.result(5)
            assert result.answer.n_tokens == 7
            assert result.answer.payload == b"hi"
            assert 0 < result.sent_ns <= result.first_byte_ns <= result.done_ns
            assert result.first_token_ns == 0
            assert b.worker.last_byte_ns(0) == result.done_ns
            head, body = seen[0]
            assert head.startswith(b"POST /v1/words HTTP/1.1\r\nHost: 127.0.0.1:")
            assert body == b"one"

    run(main(), plain_loop=plain_loop)


def test_connections_are_reused_the_last_used_first() -> None:
    order = []

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            order.append(peer.number)
            await peer.say(whole())

    async def main() -> None:
        async with bench(script) as b:
            b.submit(0)
            b.submit(1)
            await b.sink.until(lambda: len(b.sink.outcomes) == 2)
            last = b.sink.outcomes
            assert b.servers[0].n_connections == 2
            order.clear()
            for attempt_id in range(2, 12):
                b.submit(attempt_id)
                await b.sink.result(attempt_id)
            assert len(set(order)) == 1
            assert b.servers[0].n_connections == 2
            assert len(last) == 12

    run(main())


def test_fresh_attempt_gets_a_connection_of_its_own() -> None:
    async def main() -> None:
        async with bench(always(whole())) as b:
            b.submit(0)
            await b.sink.result(0)
            b.submit(1, fresh=True)
            await b.sink.result(1)
            assert b.servers[0].n_connections == 2

    run(main())


def test_connection_that_rested_too_long_is_not_used_again() -> None:
    async def main() -> None:
        async with bench(always(whole()), timeouts=Timeouts(keepalive_s=1e-9)) as b:
            for attempt_id in range(3):
                b.submit(attempt_id)
                await b.sink.result(attempt_id)
            assert b.servers[0].n_connections == 3

    run(main())


def test_answer_with_bytes_behind_it_stands_and_its_connection_is_dropped() -> None:
    async def main() -> None:
        async with bench(always(whole(3) + b"HTTP/1.1 200 OK\r\n")) as b:
            for attempt_id in range(2):
                b.submit(attempt_id)
                assert (await b.sink.result(attempt_id)).answer.n_tokens == 3
            assert b.servers[0].n_connections == 2

    run(main())


def test_connection_on_which_the_server_speaks_unasked_is_dropped() -> None:
    answered, dropped = asyncio.Event(), asyncio.Event()

    async def speaks_unasked(peer: Peer) -> None:
        await peer.request()
        await peer.say(whole(1))
        await answered.wait()
        await peer.say(whole(99))
        await peer.gone()
        dropped.set()

    async def main() -> None:
        async with bench(speaks_unasked) as b:
            b.submit(0)
            await b.sink.result(0)
            answered.set()
            async with asyncio.timeout(5):
                await dropped.wait()
            b.servers[0].script = always(whole(1))
            b.submit(1)
            assert (await b.sink.result(1)).answer.n_tokens == 1
            assert b.servers[0].n_connections == 2

    run(main())


@pytest.mark.parametrize("connection", [b"Connection: close\r\n", b""])
def test_answer_that_ends_with_the_connection_is_whole(connection: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + connection + b'\r\n{"n": 2}'

    async def main() -> None:
        async with bench(once(answer)) as b:
            for attempt_id in range(2):
                b.submit(attempt_id)
                assert (await b.sink.result(attempt_id)).answer.n_tokens == 2

    run(main())


@pytest.mark.parametrize("size", [0, 65_536, 65_537, 3_000_000])
def test_bodies_of_any_size_arrive_as_they_are(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    seen = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append((await peer.request())[1])
            await peer.say(whole())

    async def main() -> None:
        async with bench(script, bodies=[body, memoryview(body)]) as b:
            for attempt_id in range(4):
                b.submit(attempt_id, sample=attempt_id % 2)
                await b.sink.result(attempt_id)
        assert seen == [body] * 4

    run(main())


def test_connection_is_not_reused_while_its_request_is_still_being_sent() -> None:
    release = asyncio.Event()

    async def refuses_early(peer: Peer) -> None:
        if peer.number == 0:
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.say(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n")
            await release.wait()
        else:
            await always(whole())(peer)

    async def main() -> None:
        # more than both socket buffers and the server's own hold
        async with bench(refuses_early, bodies=[b"x" * 60_000_000, b"{}"]) as b:
            b.submit(0)
            assert (await b.sink.failure(0)).status == 413
            b.submit(1, sample=1)
            await b.sink.result(1)
            assert b.servers[0].n_connections == 2
            release.set()

    run(main())


def test_a_thousand_attempts_at_once_over_two_servers() -> None:
    async def main() -> None:
        async with bench(always(whole(4)), always(whole(4))) as b:
            for attempt_id in range(1000):
                b.submit(attempt_id, server=attempt_id % 2)
            await b.sink.until(lambda: len(b.sink.outcomes) == 1000)
            assert all(isinstance(o, AttemptResult) for o in b.sink.outcomes.values())
            assert sum(s.n_connections for s in b.servers) <= 1000

    run(main())


def test_attempts_in_line_ride_on_connections_that_get_free() -> None:
    async def main() -> None:
        limits = Limits(max_connecting=2, max_connecting_per_server=2)
        async with bench(always(whole()), limits=limits) as b:
            for attempt_id in range(200):
                b.submit(attempt_id)
            await b.sink.until(lambda: len(b.sink.outcomes) == 200)
            assert b.servers[0].n_connections < 100

    run(main())


def test_sink_may_submit_from_within_a_report() -> None:
    async def main() -> None:
        async with bench(always(whole())) as b:
            b.sink.on_outcome = lambda i: b.submit(i + 1) if i < 500 else None
            b.submit(0)
            await b.sink.result(500)
            assert b.servers[0].n_connections == 1

    run(main())


def test_raising_sink_does_not_stop_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    def raises(attempt_id: int) -> None:
        if attempt_id < 2:
            raise RuntimeError("a defect of the dispatcher")

    async def main() -> None:
        async with bench(always(whole()), once(b"junk\r\n")) as b:
            b.sink.on_outcome = raises
            b.submit(0)
            b.submit(1, server=1)
            await b.sink.until(lambda: len(b.sink.outcomes) == 2)
            b.submit(2)
            await b.sink.result(2)

    run(main())
    assert "a defect of the dispatcher" in caplog.text


def test_unknown_sample_is_told_to_the_caller_and_leaves_no_trace() -> None:
    async def main() -> None:
        async with bench(always(whole())) as b:
            with pytest.raises(IndexError):
                b.submit(0, sample=3)
            b.submit(0)
            await b.sink.result(0)

    run(main())


# ---- cancel, evict, close


async def _in_flight(b: Bench, arrived: asyncio.Event) -> None:
    b.submit(0)
    async with asyncio.timeout(5):
        await arrived.wait()


def test_cancelled_attempt_is_not_reported_and_its_connection_is_closed() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number > 0:
            await always(whole())(peer)
        await peer.request()
        arrived.set()
        await peer.gone()
        gone.set()

    async def main() -> None:
        async with bench(script) as b:
            await _in_flight(b, arrived)
            b.worker.cancel(0)
            b.worker.cancel(0)
            b.worker.cancel(12345)
            async with asyncio.timeout(5):
                await gone.wait()
            b.submit(1)
            await b.sink.result(1)
            assert list(b.sink.outcomes) == [1]

    run(main())


def test_attempt_cancelled_in_line_never_reaches_the_server() -> None:
    bodies = []

    async def script(peer: Peer) -> None:
        while True:
            bodies.append((await peer.request())[1])
            await peer.say(whole())

    async def main() -> None:
        async with bench(script, bodies=[b"a", b"b"]) as b:
            b.submit(0, sample=0)
            b.submit(1, sample=1)
            b.submit(2, sample=1, fresh=True)
            b.worker.cancel(1)
            b.worker.cancel(2)
            await b.sink.result(0)
            b.submit(3, sample=0)
            await b.sink.result(3)
            assert bodies == [b"a", b"a"]

    run(main())


def test_evict_takes_back_what_has_nothing_of_an_answer_and_leaves_the_rest() -> None:
    began, let_go = asyncio.Event(), asyncio.Event()
    n_silent = 0

    async def script(peer: Peer) -> None:
        nonlocal n_silent
        _, body = await peer.request()
        if body == b"talks":
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
            began.set()
            await let_go.wait()
            await peer.say(b'{"n": 1}')
        else:
            n_silent += 1
            await peer.hang()

    async def main() -> None:
        bodies: list[bytes | memoryview] = [b"talks", b"silent"]
        async with bench(script, always(whole()), bodies=bodies) as b:
            b.submit(0, sample=0)
            for attempt_id in range(1, 4):
                b.submit(attempt_id, sample=1)
            async with asyncio.timeout(5):
                await began.wait()
            await eventually(lambda: n_silent == 3 and b.worker.last_byte_ns(0) > 0)
            b.submit(4, sample=1)  # still in line
            b.submit(5, sample=1, fresh=True)
            b.worker.evict(0)
            assert set(b.sink.outcomes) == {1, 2, 3, 4, 5}  # at once
            for attempt_id in range(1, 6):
                failure = await b.sink.failure(attempt_id)
                assert failure.kind is FailureKind.EVICTED
                assert failure.sent == (attempt_id < 4)
                assert not failure.any_byte
            let_go.set()
            assert (await b.sink.result(0)).answer.n_tokens == 1
            b.submit(6, server=1)
            await b.sink.result(6)

    run(main())


def test_evict_drops_resting_connections_of_that_server_only() -> None:
    async def main() -> None:
        async with bench(always(whole()), always(whole())) as b:
            for attempt_id in range(2):
                b.submit(attempt_id, server=attempt_id)
                await b.sink.result(attempt_id)
            b.worker.evict(0)
            for attempt_id in range(2, 4):
                b.submit(attempt_id, server=attempt_id % 2)
                await b.sink.result(attempt_id)
            assert [s.n_connections for s in b.servers] == [2, 1]

    run(main())


def test_reports_of_an_eviction_may_cancel_others_of_it_and_submit_again() -> None:
    arrived = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        if peer.number == 2:
            arrived.set()
        await peer.hang()

    async def main() -> None:
        async with bench(silent, always(whole())) as b:

            def moves(attempt_id: int) -> None:
                if attempt_id == 0:
                    b.worker.cancel(1)
                if attempt_id < 10:
                    b.submit(attempt_id + 10, server=1)

            b.sink.on_outcome = moves
            for attempt_id in range(3):
                b.submit(attempt_id)
            async with asyncio.timeout(5):
                await arrived.wait()
            b.worker.evict(0)
            await b.sink.result(10)
            await b.sink.result(12)
            assert set(b.sink.outcomes) == {0, 2, 10, 12}

    run(main())


def test_attempt_submitted_to_a_server_during_its_eviction_is_sent() -> None:
    async def main() -> None:
        async with bench(always(whole())) as b:
            b.sink.on_outcome = lambda i: b.submit(i + 1) if i == 0 else None
            b.submit(0)
            b.worker.evict(0)
            assert (await b.sink.failure(0)).kind is FailureKind.EVICTED
            await b.sink.result(1)

    run(main())


@pytest.mark.parametrize("plain_loop", [False, True])
def test_connections_given_up_at_any_point_of_their_making_do_not_keep_the_worker_from_closing(
    plain_loop: bool,
) -> None:
    async def main() -> None:
        for n_turns in range(12):
            async with bench(always(whole())) as b:
                b.submit(0)
                for _ in range(n_turns):
                    await asyncio.sleep(0)
                b.worker.evict(0)
                b.submit(1, fresh=True)
                await b.sink.until(lambda b=b: 1 in b.sink.outcomes)  # type: ignore[misc]
                b.submit(2, fresh=True)
                for _ in range(n_turns):
                    await asyncio.sleep(0)

    run(main(), plain_loop=plain_loop)


def test_close_ends_everything_and_reports_nothing() -> None:
    arrived = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        arrived.set()
        await peer.gone()

    async def main() -> None:
        async with bench(silent, always(whole())) as b:
            b.submit(0)
            b.submit(1, server=1)
            await b.sink.result(1)
            async with asyncio.timeout(5):
                await arrived.wait()
            b.submit(2)  # being connected
            await b.worker.close()
            await b.worker.close()
            assert list(b.sink.outcomes) == [1]
            with pytest.raises(RuntimeError, match="closed"):
                b.submit(3)

    run(main())


def test_worker_that_never_started_can_be_closed() -> None:
    async def main() -> None:
        await InlineWorker([make_endpoint("http://127.0.0.1:1", "/x")], [b""], Words()).close()

    run(main())


def test_connections_and_attempts_leave_no_cycles_behind() -> None:
    """The garbage collector may be off for the whole run, so reference counts must do."""

    def alive() -> int:
        return sum(isinstance(o, Connection | AnswerReader) for o in gc.get_objects())

    async def main() -> int:
        async with bench(always(whole()), once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")) as b:
            for attempt_id in range(6):
                b.submit(attempt_id, server=attempt_id % 2)
            await b.sink.until(lambda: len(b.sink.outcomes) == 6)
            return alive()

    gc.collect()
    gc.disable()
    try:
        assert run(main()) > 0
        assert alive() == 0
    finally:
        gc.enable()


def test_failure_of_a_kept_alive_attempt_says_that_it_was_reused() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(whole())
        await peer.request()
        await peer.say(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
        await peer.request()
        await peer.say(whole())

    async def main() -> None:
        sink: Sink
        async with bench(script) as b:
            sink = b.sink
            for attempt_id in range(3):
                b.submit(attempt_id)
                await sink.until(lambda i=attempt_id: i in sink.outcomes)
            failure = sink.outcomes[1]
            assert isinstance(failure, AttemptFailure)
            assert failure.reused
            assert isinstance(sink.outcomes[2], AttemptResult)  # an orderly refusal keeps the connection
            assert b.servers[0].n_connections == 1

    run(main())
