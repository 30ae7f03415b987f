"""What becomes of a sample whose connection could not be made or ended before any byte of an answer."""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import Any

import pytest
import trustme
from dispatch_bench import RETRY, Row, bench, run
from scripted_server import Exchange, Script, close, cut, first, hang, serve_well

from lbrun.attempt import FailureKind
from lbrun.balance import ServerState
from lbrun.transport import Timeouts
from lbrun.transport.dial import Dialer

GOES_OUT = [ServerState.SUSPECT, ServerState.EJECTED]
CLEARED = [ServerState.SUSPECT, ServerState.READY]


def moved(row: Row, kind: FailureKind) -> bool:
    """The sample failed at server 0 in this way, once, and was answered by another."""
    return not row.failure and row.kinds == [kind] and row.path[0] == 0 and row.path[-1] != 0


def test_a_refused_connection_sends_the_sample_elsewhere_and_the_server_is_ejected() -> None:
    async def main() -> None:
        async with bench(serve_well, serve_well, serve_well) as b:
            b.servers[0].kill()
            (row,) = await b.serve(0)
            assert moved(row, FailureKind.REFUSED)
            await b.until(lambda: b.states(0) == GOES_OUT)
            assert b.transitions[-1].gone
            assert (b.states(1), b.states(2)) == ([], [])

    run(main())


def test_a_name_that_does_not_resolve_sends_the_sample_elsewhere_and_the_server_is_ejected() -> None:
    # no name server is asked: a label of more than 63 characters is refused before (RFC 1035 2.3.4)
    async def main() -> None:
        async with bench(serve_well, serve_well, urls={0: f"http://{'x' * 70}.invalid"}) as b:
            (row,) = await b.serve(0)
            assert moved(row, FailureKind.DNS)
            await b.until(lambda: b.states(0) == GOES_OUT)

    run(main())


def test_a_certificate_that_is_not_trusted_sends_the_sample_elsewhere_and_the_server_is_ejected() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def main() -> None:
        async with bench(serve_well, serve_well, tls={0: context}) as b:
            (row,) = await b.serve(0)
            assert moved(row, FailureKind.TLS)
            await b.until(lambda: b.states(0) == GOES_OUT)
            assert "TLS" in b.pool.last_error[0] or "certificate" in b.pool.last_error[0]
            assert b.servers[0].requests == []

    run(main())


@pytest.mark.parametrize("script", [cut, close], ids=["reset", "eof"])
def test_a_connection_that_ends_before_a_byte_sends_the_sample_elsewhere_and_a_probe_clears_the_server(
    script: Script,
) -> None:
    async def main() -> None:
        async with bench(first(1, script), serve_well) as b:
            (row,) = await b.serve(0)
            assert moved(row, FailureKind.LOST_BEFORE_BYTE)
            await b.until(lambda: b.states(0) == CLEARED)
            await b.serve(*range(1, 5))
            assert len(b.servers[0].requests) > 1, "it serves on"

    run(main())


@pytest.mark.parametrize("script", [cut, close], ids=["reset", "eof"])
def test_a_server_that_only_ever_drops_connections_is_ejected_though_it_answers_probes(
    script: Script,
) -> None:
    async def main() -> None:
        async with bench(script, serve_well) as b:
            for sample in range(20):
                (row,) = await b.serve(sample)
                assert not row.failure
                await b.until(lambda: b.pool.state(0) is not ServerState.SUSPECT)
                if ServerState.EJECTED in b.states(0):
                    break
            assert ServerState.EJECTED in b.states(0)

    run(main())


def test_a_kept_alive_connection_that_was_closed_means_the_same_server_again_and_blames_nobody() -> None:
    async def one_request_a_connection(exchange: Exchange) -> None:
        if exchange.on_connection:
            await exchange.close()  # what a server does that had closed it before the request came
        else:
            await exchange.answer()

    async def main() -> None:
        async with bench(one_request_a_connection, one_request_a_connection) as b:
            rows = [(await b.serve(sample))[0] for sample in range(10)]
            stale = [row for row in rows if row.attempts]
            assert stale
            for row in stale:
                assert row.kinds == [FailureKind.STALE_CONNECTION]
                assert row.path == [row.server, row.server]
                first_try, second_try = [
                    request.connection
                    for request in b.servers[row.server].requests
                    if request.sample == row.sample_index
                ]
                assert second_try > first_try, "on a new connection"
            assert b.transitions == []

    run(main())


def test_no_byte_in_time_sends_the_sample_elsewhere() -> None:
    async def main() -> None:
        async with bench(hang, serve_well, timeouts=Timeouts(first_byte_s=0.1)) as b:
            (row,) = await b.serve(0)
            assert moved(row, FailureKind.FIRST_BYTE_TIMEOUT)

    run(main())


class NoDescriptors:
    """Lets the machine be out of descriptors for the first n connections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
        self.left = n
        really_open = Dialer._open

        async def refuse(dialer: Dialer, *args: Any) -> Any:
            if self.left > 0:
                self.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return await really_open(dialer, *args)

        monkeypatch.setattr(Dialer, "_open", refuse)


@pytest.mark.parametrize("n_servers", [1, 3, 50])
def test_want_of_descriptors_is_waited_out_and_no_server_is_blamed(
    n_servers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server would need a descriptor as well, so there is a pause before any of them is tried."""
    machine = NoDescriptors(monkeypatch, 4)

    async def main() -> None:
        async with bench(*[serve_well] * n_servers) as b:
            (row,) = await b.serve(0)
            assert not row.failure
            assert row.kinds == [FailureKind.LOCAL] * 4
            assert machine.left == 0
            assert b.transitions == []
            waits_ns = [
                later.end_ns - earlier.end_ns
                for earlier, later in zip(row.attempts or (), (row.attempts or ())[1:], strict=False)
            ]
            assert all(wait_ns >= RETRY.wait_base_s * 1e9 for wait_ns in waits_ns), waits_ns

    run(main())


def test_a_storm_of_refusals_costs_no_sample() -> None:
    """One of three servers is away for all of the run; nothing is lost, and each sample tries it once."""

    async def main() -> None:
        async with bench(serve_well, serve_well, serve_well, max_in_flight=8) as b:
            b.servers[2].kill()
            rows = await b.serve(*range(300))
            assert not any(row.failure for row in rows)
            assert all(row.path.count(2) <= 1 for row in rows)

    run(main())


def test_servers_that_are_killed_one_after_the_other_and_return_lose_nothing() -> None:
    async def slowly(exchange: Exchange) -> None:
        await asyncio.sleep(0.005)
        await exchange.answer()

    async def main() -> None:
        async with bench(slowly, slowly, slowly, max_in_flight=4) as b:
            async with b.load():
                for server in range(3):
                    # those that the server before has lost are answered by now: nobody meets two deaths
                    n_done = len(b.ledger.finished)
                    await b.until(lambda n=n_done: len(b.ledger.finished) > n + 80)
                    await b.until(lambda s=server: b.pool.in_flight[s] > 1)
                    b.servers[server].kill()
                    await b.until_state(server, ServerState.EJECTED)
                    await b.servers[server].start()
                    await b.until_state(server, ServerState.READY)
            assert b.dispatcher.counts.failed == 0
            assert b.pool.recoveries == b.pool.ejections == [1, 1, 1]

    run(main())
