"""Making connections: names, black holes, limits of this machine, and how many at a time."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from transport_peers import Peer, Server, Sink, Words, always, bench, run, whole

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind
from lbrun.transport import InlineWorker, Limits, Timeouts, make_endpoint, raise_descriptor_limit
from lbrun.transport import dial as dial_module
from lbrun.transport import dial_queue as dial_queue_module
from lbrun.transport.dial import Dialer, DialError


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose name server and network are the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Callable[[], list[str]] = lambda: ["127.0.0.1"]
        self.n_lookups = 0
        self.refuses: dict[str, OSError] = {}
        self.swallows: set[str] = set()
        self.tried: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **kwargs: Any) -> Any:
        self.n_lookups += 1
        await asyncio.sleep(0)
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in self.names()
        ]

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **kw: Any) -> Any:
        self.tried.append(host)
        if host in self.refuses:
            raise self.refuses[host]
        if host in self.swallows:
            await asyncio.Event().wait()
        return None, factory()


class Nothing(asyncio.Protocol):
    def close(self) -> None:
        pass


def on_loop(main: Callable[[Loop, Dialer], Any], host: str = "gpu-7", timeout_s: float = 5.0) -> Any:
    dialer = Dialer(make_endpoint(f"http://{host}:8000", "/x"), None, timeout_s)

    async def body() -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        return await main(loop, dialer)

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(body())


# ---- names


def test_name_is_resolved_once_for_all_who_ask() -> None:
    async def main(loop: Loop, dialer: Dialer) -> None:
        await asyncio.gather(*(dialer.dial(Nothing) for _ in range(50)))
        await dialer.dial(Nothing)
        assert loop.n_lookups == 1

    on_loop(main)


def test_address_literals_are_not_looked_up() -> None:
    async def main(loop: Loop, dialer: Dialer) -> None:
        await dialer.dial(Nothing)
        assert loop.n_lookups == 0
        assert loop.tried == ["::1"]

    on_loop(main, host="[::1]")


def test_failing_address_gives_way_to_the_next_and_is_the_last_from_then_on() -> None:
    async def main(loop: Loop, dialer: Dialer) -> None:
        loop.names = lambda: ["::1", "10.0.0.1", "127.0.0.1"]
        loop.refuses = {a: ConnectionRefusedError(errno.ECONNREFUSED, "no") for a in ("::1", "10.0.0.1")}
        await dialer.dial(Nothing)
        await dialer.dial(Nothing)
        assert loop.tried == ["::1", "10.0.0.1", "127.0.0.1", "127.0.0.1"]

    on_loop(main)


def test_address_that_swallows_packets_leaves_time_for_the_next_and_stays_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when the name is looked up again, which gives the same order."""
    monkeypatch.setattr(dial_module, "_REFRESH_S", 0.0)

    async def main(loop: Loop, dialer: Dialer) -> None:
        loop.names = lambda: ["::1", "127.0.0.1"]
        loop.swallows = {"::1"}
        await dialer.dial(Nothing)
        assert loop.tried == ["::1", "127.0.0.1"]
        loop.refuses = {"127.0.0.1": ConnectionRefusedError(errno.ECONNREFUSED, "no")}
        with pytest.raises(DialError):
            await dialer.dial(Nothing)
        loop.refuses.clear()
        loop.tried.clear()
        loop.names = lambda: ["::1", "10.0.0.1"]
        await dialer.dial(Nothing)
        assert loop.n_lookups == 2
        assert loop.tried == ["10.0.0.1"]

    on_loop(main, timeout_s=0.2)


def test_a_process_that_was_held_up_blames_no_server_for_the_time() -> None:
    async def main(loop: Loop, dialer: Dialer) -> None:
        loop.swallows = {"127.0.0.1"}
        loop.call_later(0.01, time.sleep, 0.05 + dial_module.LATE_S)
        with pytest.raises(DialError) as caught:
            await dialer.dial(Nothing)
        assert caught.value.kind is FailureKind.LOCAL

    on_loop(main, timeout_s=0.05)


def test_name_without_an_address_is_a_dns_failure_that_is_asked_again() -> None:
    def nobody() -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main(loop: Loop, dialer: Dialer) -> None:
        loop.names = nobody
        outcomes = await asyncio.gather(*(dialer.dial(Nothing) for _ in range(9)), return_exceptions=True)
        assert loop.n_lookups == 1
        for outcome in outcomes:
            assert isinstance(outcome, DialError)
            assert outcome.kind is FailureKind.DNS
            assert outcome.message == "the name 'gpu-7' has no address: Name or service not known"
        loop.names = lambda: ["127.0.0.1"]
        await dialer.dial(Nothing)

    on_loop(main)


def test_slow_name_server_is_a_dns_failure() -> None:
    async def main(loop: Loop, dialer: Dialer) -> None:
        async def never(*args: Any, **kwargs: Any) -> Any:
            await asyncio.Event().wait()

        loop.getaddrinfo = never  # type: ignore[method-assign]
        with pytest.raises(DialError, match="not resolved within") as raised:
            await dialer.dial(Nothing)
        assert raised.value.kind is FailureKind.DNS
        dialer.close()

    on_loop(main, timeout_s=0.02)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EMFILE, "x"), FailureKind.LOCAL),
        (OSError(errno.ENFILE, "x"), FailureKind.LOCAL),
        (OSError(errno.EADDRNOTAVAIL, "x"), FailureKind.LOCAL),
        (OSError(errno.ENOBUFS, "x"), FailureKind.LOCAL),
        (OSError(errno.ENOMEM, "x"), FailureKind.LOCAL),
        (OSError(errno.ECONNREFUSED, "x"), FailureKind.REFUSED),
        (OSError(errno.EHOSTUNREACH, "x"), FailureKind.REFUSED),
        (OSError(errno.ENETUNREACH, "x"), FailureKind.REFUSED),
        (OSError(errno.ECONNRESET, "x"), FailureKind.REFUSED),
        (OSError(errno.ETIMEDOUT, "x"), FailureKind.CONNECT_TIMEOUT),
        (OSError("no number"), FailureKind.REFUSED),
    ],
)
def test_errors_of_the_system_have_a_kind_and_a_plain_message(error: OSError, kind: FailureKind) -> None:
    async def main(loop: Loop, dialer: Dialer) -> None:
        loop.refuses = {"127.0.0.1": error}
        with pytest.raises(DialError) as raised:
            await dialer.dial(Nothing)
        assert raised.value.kind is kind
        assert "Errno" not in raised.value.message

    on_loop(main)


def test_impossible_host_names_are_dns_failures_for_all_in_line() -> None:
    async def main() -> None:
        sink = Sink()
        worker = InlineWorker([make_endpoint(f"http://{'x' * 70}.invalid", "/x")], [b"{}"], Words())
        worker.start(sink)
        for attempt_id in range(200):
            worker.submit(attempt_id, 0, 0)
        await sink.until(lambda: len(sink.outcomes) == 200)
        for attempt_id in range(200):
            assert (await sink.failure(attempt_id)).kind is FailureKind.DNS
        await worker.close()
        assert sink.misreports == []

    run(main())


def test_localhost_is_found_whichever_address_the_server_has() -> None:
    async def main() -> None:
        server = Server(always(whole()))
        await server.start()
        sink = Sink()
        endpoint = make_endpoint(f"http://localhost:{server.port}", "/x")
        worker = InlineWorker([endpoint], [b"{}"], Words())
        worker.start(sink)
        worker.submit(0, 0, 0)
        await sink.result(0)
        await worker.close()
        await server.stop()

    run(main())


# ---- servers that swallow packets


class BlackHole:
    """A port whose queue of connections is full, so that further packets get no answer."""

    def __enter__(self) -> int:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        address = self.listener.getsockname()
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            self.fillers.append(filler)
        return int(address[1])

    def __exit__(self, *exc: object) -> None:
        for sock in (*self.fillers, self.listener):
            sock.close()


def test_black_hole_times_out_for_all_who_waited_as_long() -> None:
    async def main() -> None:
        with BlackHole() as port:
            sink = Sink()
            endpoint = make_endpoint(f"http://127.0.0.1:{port}", "/x")
            worker = InlineWorker(
                [endpoint],
                [b"{}"],
                Words(),
                timeouts=Timeouts(connect_s=0.1),
                limits=Limits(max_connecting_per_server=2),
            )
            worker.start(sink)
            for attempt_id in range(500):
                worker.submit(attempt_id, 0, 0)
            await sink.until(lambda: len(sink.outcomes) == 500)  # not 250 times 0.1 s
            for attempt_id in range(500):
                failure = await sink.failure(attempt_id)
                assert failure.kind is FailureKind.CONNECT_TIMEOUT
                assert not failure.sent
            await worker.close()
            assert sink.misreports == []

    run(main())


def test_black_holes_do_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_queue_module, "SLOW_S", 0.02)

    async def main() -> None:
        with BlackHole() as hole:
            server = Server(always(whole()))
            await server.start()
            endpoints = [make_endpoint(f"http://127.0.0.1:{p}", "/x") for p in (hole, hole, server.port)]
            sink = Sink()
            limits = Limits(max_connecting=4, max_connecting_per_server=4)
            timeouts = Timeouts(connect_s=30)
            worker = InlineWorker(endpoints, [b"{}"], Words(), timeouts=timeouts, limits=limits)
            worker.start(sink)
            for attempt_id in range(60):
                worker.submit(attempt_id, 0, attempt_id % 3)
            await sink.until(lambda: len(sink.outcomes) == 20)
            assert all(isinstance(o, AttemptResult) for o in sink.outcomes.values())
            worker.evict(0)
            assert len(sink.outcomes) == 40
            await worker.close()
            await server.stop()
            assert sink.misreports == []

    run(main())


# ---- this machine


def test_no_descriptor_left_is_nobodys_fault_and_passes() -> None:
    async def main() -> None:
        async with bench(always(whole())) as b:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                for attempt_id in range(5):
                    b.submit(attempt_id)
                await b.sink.until(lambda: len(b.sink.outcomes) == 5)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for attempt_id in range(5):
                failure = await b.sink.failure(attempt_id)
                assert failure.kind is FailureKind.LOCAL
                assert failure.message == "this machine cannot open a connection: Too many open files"
            b.submit(5)
            await b.sink.result(5)

    run(main())


def test_without_descriptors_attempts_take_turns_on_the_connections_that_there_are() -> None:
    async def main() -> None:
        async with bench(always(whole())) as b:
            b.submit(0)
            await b.sink.result(0)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                for attempt_id in range(1, 20):
                    b.submit(attempt_id)
                await b.sink.until(lambda: len(b.sink.outcomes) == 20)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for attempt_id in range(20):
                await b.sink.result(attempt_id)

    run(main())


def test_attempts_do_not_wait_for_a_connection_that_has_gone_while_there_are_no_descriptors() -> None:
    async def answer_one_and_break_off(peer: Peer) -> None:
        await peer.request()
        await peer.say(whole())
        await peer.request()
        await asyncio.sleep(0.05)  # until the other attempt has found out that it gets no connection
        await peer.reset()

    async def main() -> None:
        async with bench(answer_one_and_break_off) as b:
            b.submit(0)
            await b.sink.result(0)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                b.submit(1)
                b.submit(2)
                await b.sink.until(lambda: len(b.sink.outcomes) == 3)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await b.sink.failure(1)

    run(main())


def test_descriptor_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- how many at a time


@pytest.mark.parametrize(("total", "per_server"), [(6, 100), (100, 3), (5, 2)])
def test_connections_in_the_making_stay_within_the_limits(total: int, per_server: int) -> None:
    async def main() -> None:
        limits = Limits(max_connecting=total, max_connecting_per_server=per_server)
        async with bench(always(whole()), always(whole()), always(whole()), limits=limits) as b:
            lanes = b.worker._lanes
            most = [0, 0]

            def look() -> None:
                dialing = [len(lane.dialing) for lane in lanes]
                most[0], most[1] = max(most[0], sum(dialing)), max(most[1], *dialing)

            b.sink.on_outcome = lambda attempt_id: look()
            for attempt_id in range(300):
                b.submit(attempt_id, server=attempt_id % 3, fresh=True)
                look()
            await b.sink.until(lambda: len(b.sink.outcomes) == 300)
            assert most[0] <= total
            assert most[1] <= per_server
            assert sum(s.n_connections for s in b.servers) == 300

    run(main())


def test_dial_that_is_given_up_leaves_no_socket_open() -> None:
    closed: list[bool] = []

    class Tracked(Nothing):
        def close(self) -> None:
            closed.append(True)

    async def main(loop: Loop, dialer: Dialer) -> None:
        async def connects_and_lingers(factory: Any, *args: Any, **kwargs: Any) -> Any:
            factory()
            connecting.set()
            await asyncio.Event().wait()

        connecting = asyncio.Event()
        loop.create_connection = connects_and_lingers  # type: ignore[method-assign]
        task = asyncio.ensure_future(dialer.dial(Tracked))
        await connecting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed == [True]

    on_loop(main)


def test_unexpected_error_while_connecting_fails_the_attempt_and_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def raises(self: Dialer, make: object) -> None:
        raise ZeroDivisionError("a defect of the event loop")

    monkeypatch.setattr(Dialer, "dial", raises)

    async def main() -> AttemptFailure:
        async with bench(always(whole())) as b:
            b.submit(0)
            return await b.sink.failure(0)

    failure = run(main())
    assert failure.kind is FailureKind.REFUSED
    assert "ZeroDivisionError" in failure.message
    assert "a defect of the event loop" in caplog.text
