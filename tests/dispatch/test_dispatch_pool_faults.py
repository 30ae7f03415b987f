"""What becomes of samples when servers hang, die, come back, or all go; and when samples kill servers."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from dispatch_bench import HEALTH, RETRY, WATCHFUL, Row, bench, run
from scripted_server import (
    Exchange,
    Script,
    always,
    cut,
    hang,
    kill,
    only_for,
    refusal,
    serve_well,
    stream_a_token,
    when,
)

from lbrun.attempt import FailureKind
from lbrun.balance import ServerState

# -- ejections, and what was in flight


def test_attempts_without_a_byte_move_at_once_when_their_server_is_ejected() -> None:
    async def hang_or_fail(exchange: Exchange) -> None:
        if exchange.sample < 10:
            await exchange.hang()
        else:
            await exchange.say(refusal(500))

    async def main() -> None:
        async with bench(hang_or_fail, serve_well) as b:
            b.issue(*range(10))
            await b.until(lambda: len(b.servers[0].requests) == b.pool.in_flight[0] == 5)
            b.issue(*range(10, 20))
            await b.resolved()
            evicted = [row for row in b.ledger.rows.values() if row.kinds == [FailureKind.EVICTED]]
            assert len(evicted) >= 5
            assert all((row.failure, row.server) == (0, 1) for row in evicted)
            assert b.dispatcher.counts.failed == 0

    run(main())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_hung_server_is_ejected_and_what_waits_there_moves(stream: bool) -> None:
    """It accepts connections and never says anything, to requests or to probes."""

    async def main() -> None:
        async with bench(
            hang, serve_well, serve_well, stream=stream, health=WATCHFUL, probe_timeout_s=0.2
        ) as b:
            b.servers[0].health = None
            rows = await b.serve(*range(12))
            moved = [row for row in rows if row.attempts]
            assert len(moved) == 4
            assert all(row.kinds == [FailureKind.EVICTED] and not row.failure for row in moved)
            assert b.states(0)[:2] == [ServerState.SUSPECT, ServerState.EJECTED]
            assert "no byte" in b.transitions[0].reason
            assert (b.states(1), b.states(2)) == ([], [])

    run(main())


def test_a_server_that_is_only_slow_is_suspected_cleared_by_its_probe_and_keeps_its_work() -> None:
    released = asyncio.Event()

    async def main() -> None:
        async with bench(when(released), serve_well, health=WATCHFUL) as b:
            b.issue(*range(8))
            await b.until(lambda: b.states(0).count(ServerState.READY) == 2, "cleared twice")
            released.set()
            await b.resolved()
            assert set(b.states(0)) == {ServerState.SUSPECT, ServerState.READY}
            assert b.dispatcher.counts.retried == 0

    run(main())


def test_the_servers_own_error_is_told_and_not_that_its_attempts_were_taken_back() -> None:
    async def hang_or_fail(exchange: Exchange) -> None:
        if exchange.sample < 4:
            await exchange.hang()
        else:
            await exchange.say(refusal(500, "out of memory"))

    async def main() -> None:
        health = dataclasses.replace(HEALTH, recovery=False)
        async with bench(hang_or_fail, serve_well, health=health) as b:
            b.issue(*range(4))
            await b.until(lambda: len(b.servers[0].requests) == 2)
            b.issue(*range(4, 12))
            await b.resolved()
            assert any(row.kinds == [FailureKind.EVICTED] for row in b.ledger.rows.values())
            assert "out of memory" in b.pool.last_error[0]

    run(main())


# -- recovery


def test_a_killed_server_that_returns_gets_work_again() -> None:
    async def main() -> None:
        async with bench(serve_well, serve_well) as b, b.load():
            b.servers[0].kill()
            await b.until_state(0, ServerState.EJECTED)
            n_before = len(b.servers[0].requests)
            await b.servers[0].start()
            await b.until_state(0, ServerState.READY)
            await b.until(lambda: len(b.servers[0].requests) > n_before + 20)
            assert b.pool.recoveries == [1, 0]

    run(main())


def test_without_recovery_an_ejected_server_gets_neither_work_nor_probes_again() -> None:
    async def main() -> None:
        async with bench(serve_well, serve_well, health=dataclasses.replace(HEALTH, recovery=False)) as b:
            b.servers[0].kill()
            await b.serve(*range(4))
            await b.until_state(0, ServerState.EJECTED)
            n_probes, n_requests = b.servers[0].n_probes, len(b.servers[0].requests)
            await b.servers[0].start()
            rows = [(await b.serve(sample))[0] for sample in range(4, 60)]
            assert {row.server for row in rows} == {1}
            assert (b.servers[0].n_probes, len(b.servers[0].requests)) == (n_probes, n_requests)
            assert b.pool.state(0) is ServerState.EJECTED

    run(main())


def test_a_pool_that_is_down_for_less_than_the_grace_time_loses_nothing() -> None:
    async def main() -> None:
        async with bench(serve_well, serve_well, serve_well, max_in_flight=4) as b, b.load():
            for server in b.servers:
                server.kill()
            await b.until(lambda: b.pool.all_down_since_s is not None, "all are down")
            for server in b.servers:
                await server.start()
            await b.until(lambda: all(b.pool.state(s) is ServerState.READY for s in range(3)), "all are back")
        assert b.dispatcher.counts.failed == 0
        assert b.broken == []

    run(main())


# -- all gone


@pytest.mark.parametrize("grace_s", [0.0, 0.3])
def test_a_pool_that_is_down_for_longer_than_the_grace_time_ends_the_run(grace_s: float) -> None:
    released = asyncio.Event()

    async def main() -> None:
        retry = dataclasses.replace(RETRY, grace_s=grace_s)
        async with bench(*[when(released)] * 3, retry=retry, max_in_flight=4) as b:
            b.issue(*range(50))
            await b.until(lambda: b.pool.in_flight == [4, 4, 4])
            for server in b.servers:
                server.kill()
            await b.resolved()
            (reason,) = b.broken
            headline, *said = reason.splitlines()
            assert headline.startswith("All servers marked as failed")
            assert len(said) == 3
            for line, url in zip(said, b.pool.urls, strict=True):
                assert line.startswith(f"  {url}: ")
                assert "refused" in line
            assert b.dispatcher.counts.failed == 50

    run(main())


def test_a_pool_that_cannot_come_back_ends_the_run_without_waiting_for_it() -> None:
    async def main() -> None:
        health = dataclasses.replace(HEALTH, recovery=False)
        retry = dataclasses.replace(RETRY, grace_s=3600.0)
        async with bench(serve_well, serve_well, health=health, retry=retry) as b:
            for server in b.servers:
                server.kill()
            b.issue(*range(20))
            await b.resolved()
            assert b.broken[0].startswith("All servers marked as failed")
            assert b.dispatcher.counts.failed == 20

    run(main())


def test_samples_that_come_after_the_run_was_broken_off_are_resolved_as_well() -> None:
    async def main() -> None:
        async with bench(always(refusal(400))) as b:
            await b.serve(0)
            rows = await b.serve(*range(1, 30))
            assert all(row.failure for row in rows)
            assert len(b.broken) == 1
            assert b.servers[0].samples == [0]

    run(main())


# -- samples that kill


async def stream_and_die(exchange: Exchange) -> None:
    """The server dies after its first token."""
    await stream_a_token(exchange)
    await asyncio.sleep(0)
    exchange.server.kill()


DEADLY: dict[str, tuple[Script, bool]] = {
    "before a byte": (kill, False),
    "in mid-stream": (stream_and_die, True),
}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "kept-alive"])
@pytest.mark.parametrize("fault", DEADLY)
def test_a_sample_under_which_two_servers_died_is_not_sent_again_and_the_pool_lives(
    fault: str, warm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    deadly, stream = DEADLY[fault]

    async def main() -> None:
        async with bench(*[only_for(5, deadly)] * 4, stream=stream) as b:
            if warm:
                await b.serve(*range(100, 120))
            (row,) = await b.serve(5)
            check_poisoned(row)
            assert sum(server.samples.count(5) for server in b.servers) == 2
            dead = set(row.path)
            rows = await b.serve(*range(200, 230))
            assert not any(r.failure for r in rows)
            assert {r.server for r in rows} == {0, 1, 2, 3} - dead
            assert b.broken == []

    run(main())
    assert "sample 5: its attempts coincided with the death of two servers" in caplog.text


def check_poisoned(row: Row) -> None:
    assert row.failure
    assert len(set(row.path)) == 2
    assert row.n_tokens == 0


def test_a_sample_that_kills_servers_under_load_takes_no_other_sample_with_it() -> None:
    async def main() -> None:
        async with bench(*[only_for(5, kill)] * 4, max_in_flight=8) as b:
            rows = await b.serve(*range(60))
            assert sum(server.samples.count(5) for server in b.servers) == 2
            check_poisoned(rows[5])
            assert b.dispatcher.counts.completed == 59
            (named,) = b.dispatcher.given_up
            assert named.startswith("sample 5: its attempts coincided with the death of two servers")

    run(main())


def test_a_sample_that_only_loses_connections_is_not_taken_for_one_that_kills() -> None:
    """Two servers drop it, and answer their probes: it goes on to the third."""

    async def main() -> None:
        async with bench(only_for(5, cut), only_for(5, cut), serve_well) as b:
            (row,) = await b.serve(5)
            assert not row.failure
            assert row.server == 2

    run(main())


def test_servers_that_die_together_make_no_sample_poison() -> None:
    released = asyncio.Event()

    async def main() -> None:
        async with bench(*[when(released)] * 3, serve_well) as b:
            b.issue(*range(40))
            await b.until(lambda: all(len(b.servers[s].requests) == 10 for s in range(3)))
            for server in b.servers[:3]:
                server.kill()
            await b.resolved()
            assert b.dispatcher.counts.failed == 0

    run(main())
