"""Each way an attempt can fail, over real sockets; and what its report says."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from transport_peers import (
    Bench,
    Peer,
    Script,
    Server,
    Sink,
    Words,
    always,
    bench,
    eventually,
    once,
    run,
    status,
    whole,
)

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind
from lbrun.transport import InlineWorker, Limits, Timeouts, make_endpoint
from lbrun.transport import connection as connection_module
from lbrun.transport import sweeper as sweeper_module

TIGHT = Timeouts(first_byte_s=0.1)
HALF = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"n": 1,'


def fail(script: Script, timeouts: Timeouts | None = None, limits: Limits | None = None) -> AttemptFailure:
    """What becomes of one attempt; then the worker must still do its work."""

    async def main() -> AttemptFailure:
        async with bench(script, always(whole()), timeouts=timeouts, limits=limits) as b:
            b.submit(0)
            failure = await b.sink.failure(0)
            b.submit(1, server=1)
            await b.sink.result(1)
            return failure

    return run(main())


# ---- no answer at all


def test_nobody_listening_is_refused() -> None:
    async def main() -> None:
        with socket.socket() as reserved:  # bound, not listening: refuses
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
            sink = Sink()
            worker = InlineWorker([make_endpoint(f"http://127.0.0.1:{port}", "/x")], [b"{}"], Words())
            worker.start(sink)
            for attempt_id in range(100):
                worker.submit(attempt_id, 0, 0)
            await sink.until(lambda: len(sink.outcomes) == 100)
            await worker.close()
            for outcome in sink.outcomes.values():
                assert isinstance(outcome, AttemptFailure)
                assert outcome.kind is FailureKind.REFUSED
                assert outcome.message == f"127.0.0.1:{port} refused the connection"
                assert not outcome.sent

    run(main())


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
def test_end_before_any_byte_on_a_new_connection_is_a_loss(end: Script) -> None:
    failure = fail(once(end))
    assert failure.kind is FailureKind.LOST_BEFORE_BYTE
    assert failure.sent
    assert failure.sent_ns > 0
    assert not failure.any_byte
    assert not failure.reused


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
def test_connection_that_ends_before_the_request_is_not_a_success(end: Script) -> None:
    failure = fail(end)
    assert failure.kind in (FailureKind.LOST_BEFORE_BYTE, FailureKind.REFUSED)
    assert not failure.any_byte


def _closes_second_request(end: Script) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(whole())
        await peer.request()
        await end(peer)

    return script


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
def test_kept_alive_connection_that_ends_at_once_is_stale_and_so_are_its_fellows(end: Script) -> None:
    async def main() -> None:
        async with bench(_closes_second_request(end)) as b:
            for attempt_id in range(3):
                b.submit(attempt_id)
            await b.sink.until(lambda: len(b.sink.outcomes) == 3)
            n_before = b.servers[0].n_connections
            b.submit(3)
            failure = await b.sink.failure(3)
            assert failure.kind is FailureKind.STALE_CONNECTION
            assert failure.reused
            b.submit(4)
            await b.sink.result(4)  # on a new connection, though others had been resting
            assert b.servers[0].n_connections == n_before + 1

    run(main())


def test_kept_alive_connection_that_ends_later_was_lost_with_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "STALE_WITHIN_NS", 0)

    async def main() -> None:
        async with bench(_closes_second_request(Peer.close)) as b:
            b.submit(0)
            await b.sink.result(0)
            b.submit(1)
            failure = await b.sink.failure(1)
            assert failure.kind is FailureKind.LOST_BEFORE_BYTE
            assert failure.reused

    run(main())


def test_resting_connection_closed_by_the_server_is_not_tried() -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(whole())
        await peer.close()
        await peer.writer.wait_closed()
        closed.set()

    async def main() -> None:
        async with bench(script) as b:
            b.submit(0)
            await b.sink.result(0)
            async with asyncio.timeout(5):
                await closed.wait()
            await eventually(lambda: not b.worker._lanes[0].idle)
            b.submit(1)
            await b.sink.result(1)

    run(main())


# ---- deadlines


def test_silent_server_misses_the_first_byte() -> None:
    failure = fail(once(Peer.hang), Timeouts(first_byte_s=0.05))
    assert failure.kind is FailureKind.FIRST_BYTE_TIMEOUT
    assert failure.sent
    assert not failure.any_byte
    assert "0.05 s" in failure.message


@pytest.mark.parametrize("said", [b"HTTP/1.1 2", HALF])
def test_answer_that_stops_in_the_middle_is_idle(said: bytes) -> None:
    failure = fail(once(said, Peer.hang), Timeouts(idle_s=0.05))
    assert failure.kind is FailureKind.IDLE_TIMEOUT
    assert failure.any_byte


@pytest.mark.parametrize("said", [b"", HALF])
def test_answer_that_takes_too_long_in_all_ends(said: bytes) -> None:
    async def drips(peer: Peer) -> None:
        await peer.request()
        await peer.say(said)
        while said:
            await peer.say(b" ")
            await asyncio.sleep(0.005)
        await peer.hang()

    failure = fail(drips, Timeouts(total_s=0.1))
    assert failure.kind is FailureKind.TOTAL_TIMEOUT


def test_deadlines_wait_for_what_came_while_the_loop_was_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped for long must read its sockets before it blames a server."""
    monkeypatch.setattr(sweeper_module, "LATE_SWEEP_S", -1.0)  # every sweep counts as late

    async def main() -> None:
        async with bench(once(Peer.hang), timeouts=Timeouts(first_byte_s=0.02)) as b:
            b.submit(0)
            assert (await b.sink.failure(0)).kind is FailureKind.FIRST_BYTE_TIMEOUT  # by every second one

    run(main())


def test_an_answer_that_came_in_time_and_is_read_late_is_an_answer() -> None:
    """The loop is held up among its reads; deadlines come before the next ones."""

    class AnswersAndHoldsUp(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(whole())  # type: ignore[attr-defined]
            time.sleep(0.15)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(AnswersAndHoldsUp, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        worker, sink = InlineWorker([make_endpoint(url, "/x")], [b"{}"], Words(), timeouts=TIGHT), Sink()
        worker.start(sink)
        try:
            worker.submit(0, 0, 0)
            await sink.result(0)
        finally:
            await worker.close()
            server.close()

    run(main())


# ---- answers that break off, or are none


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
@pytest.mark.parametrize(
    "said",
    [
        b"H",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        HALF,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"n": 1}\r\n',
    ],
)
def test_answer_that_ends_before_its_end_is_cut(said: bytes, end: Script) -> None:
    failure = fail(once(said, _after_reading(end)))
    assert failure.kind is FailureKind.CUT
    assert failure.any_byte


def test_unframed_body_that_is_reset_is_cut() -> None:
    failure = fail(once(b'HTTP/1.1 200 OK\r\n\r\n{"n": 1}', _after_reading(Peer.reset)))
    assert failure.kind is FailureKind.CUT


def _after_reading(end: Script) -> Script:
    async def step(peer: Peer) -> None:
        await peer.heard()
        await end(peer)

    return step


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"220 mail.example ESMTP\r\n", FailureKind.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{,}", FailureKind.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", FailureKind.EMPTY_ANSWER),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", FailureKind.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b", FailureKind.MALFORMED),
        (b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", FailureKind.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 3000, FailureKind.TOO_LARGE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b" " * 9999, FailureKind.TOO_LARGE),
    ],
)
def test_what_is_no_answer_fails_by_its_kind(said: bytes, kind: FailureKind) -> None:
    failure = fail(once(said, Peer.gone), limits=Limits(max_head_bytes=2000, max_body_bytes=4000))
    assert failure.kind is kind
    assert failure.message


def test_too_short_content_length_is_malformed_and_the_rest_is_nobodys_answer() -> None:
    async def main() -> None:
        answer = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{"n": 77}'
        async with bench(always(answer)) as b:
            for attempt_id in range(2):
                b.submit(attempt_id)
                assert (await b.sink.failure(attempt_id)).kind is FailureKind.MALFORMED
            assert b.servers[0].n_connections == 2

    run(main())


def test_defect_of_a_format_fails_the_attempt_alone_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crash = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"crash"'

    async def main() -> None:
        async with bench(always(crash), always(whole())) as b:
            for attempt_id in range(3):
                b.submit(attempt_id)
            await b.sink.until(lambda: len(b.sink.outcomes) == 3)
            for attempt_id in range(3):
                failure = await b.sink.failure(attempt_id)
                assert failure.kind is FailureKind.MALFORMED
                assert "ZeroDivisionError: a defect of the format" in failure.message
            b.submit(3, server=1)
            await b.sink.result(3)

    run(main())
    assert caplog.text.count("Traceback") == 1


# ---- statuses


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (429, FailureKind.HTTP_429),
        (503, FailureKind.HTTP_503),
        (500, FailureKind.HTTP_5XX),
        (502, FailureKind.HTTP_5XX),
        (504, FailureKind.HTTP_5XX),
        (599, FailureKind.HTTP_5XX),
        (400, FailureKind.HTTP_4XX),
        (401, FailureKind.HTTP_4XX),
        (404, FailureKind.HTTP_4XX),
        (422, FailureKind.HTTP_4XX),
        (201, FailureKind.HTTP_4XX),
        (204, FailureKind.HTTP_4XX),
        (307, FailureKind.HTTP_4XX),
        (600, FailureKind.HTTP_4XX),
    ],
)
def test_every_status_but_200_fails_with_what_the_server_says(code: int, kind: FailureKind) -> None:
    body = b"" if code == 204 else b'{"error": {\n "message": "no such \x07 model"}}' + b"." * 5000
    failure = fail(always(status(code, body)))
    assert failure.kind is kind
    assert failure.status == code
    assert failure.retry_after_s is None
    assert f"HTTP {code}" in failure.message
    assert len(failure.message) < 350
    if body:
        assert '{"error": { "message": "no such model"}}' in failure.message


def test_whole_answer_of_another_status_is_no_success_either() -> None:
    failure = fail(always(b'HTTP/1.1 206 X\r\nContent-Length: 8\r\n\r\n{"n": 1}'))
    assert failure.kind is FailureKind.HTTP_4XX


def test_redirect_is_not_followed_and_says_where_to() -> None:
    failure = fail(always(status(308, headers=b"Location: https://elsewhere/v1\r\n")))
    assert failure.message == "HTTP 308 Permanent Redirect, not followed to https://elsewhere/v1"


@pytest.mark.parametrize(
    ("value", "wish_s"),
    [(b"7", 7.0), (b"999", 30.0), (b"soon", None), (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0)],
)
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_passed_on(code: int, value: bytes, wish_s: float | None) -> None:
    assert fail(always(status(code, headers=b"retry-after: %b\r\n" % value))).retry_after_s == wish_s


def test_refusal_without_length_ends_with_the_connection() -> None:
    failure = fail(once(b"HTTP/1.1 500 Oops\r\n\r\nout of memory"))
    assert failure.kind is FailureKind.HTTP_5XX
    assert "out of memory" in failure.message


def test_key_that_a_server_quotes_is_not_in_the_message() -> None:
    key = "sk-canary-0123456789"

    async def main() -> AttemptFailure:
        answer = status(401, b"Incorrect API key provided: " + key.encode())
        async with bench(always(answer), api_key=key) as b:
            b.submit(0)
            return await b.sink.failure(0)

    failure = run(main())
    assert key not in repr(failure)
    assert "Incorrect API key provided: ***" in failure.message


# ---- the server comes and goes


def test_worker_finds_a_restarted_server_again() -> None:
    async def main() -> None:
        async with bench(always(whole())) as b:
            b.submit(0)
            await b.sink.result(0)
            port = b.servers[0].port
            await b.servers[0].stop()
            b.submit(1)
            failure = await b.sink.failure(1)
            assert failure.kind in (FailureKind.STALE_CONNECTION, FailureKind.REFUSED)
            b.servers[0] = Server(always(whole()))
            await b.servers[0].start(port=port)
            b.submit(2)
            await b.sink.result(2)

    run(main())


def test_one_server_that_hangs_does_not_hold_up_another() -> None:
    async def main() -> None:
        async with bench(once(Peer.hang), always(whole())) as b:
            for attempt_id in range(200):
                b.submit(attempt_id, server=0)
            for attempt_id in range(200, 400):
                b.submit(attempt_id, server=1)
            await b.sink.until(lambda: len(b.sink.outcomes) == 200)
            assert all(isinstance(o, AttemptResult) for o in b.sink.outcomes.values())
            assert _ids(b) == set(range(200, 400))

    run(main())


def _ids(b: Bench) -> set[int]:
    return set(b.sink.outcomes)
