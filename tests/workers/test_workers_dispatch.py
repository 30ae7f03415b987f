"""The dispatcher over worker processes: strategies stay exact, and whatever dies, no sample is lost."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from dispatch_over_workers import dispatching
from workers_bench import run, serve_well, until, when

from lbrun.balance import ServerState


@pytest.mark.parametrize(("n_workers", "n_servers"), [(3, 2), (2, 3), (1, 4)])
def test_round_robin_is_exact_over_all_processes(n_workers: int, n_servers: int) -> None:
    async def main() -> None:
        async with dispatching(*[serve_well] * n_servers, n_workers=n_workers) as d:
            await d.serve(20 * n_servers)
            assert d.pool.requests == [20] * n_servers
            assert [len(server.requests) for server in d.servers] == [20] * n_servers
            await d.serve(n_servers + 1)
            assert sorted(d.pool.requests) == [*[21] * (n_servers - 1), 22]

    run(main())


def test_bounds_of_servers_hold_over_all_processes() -> None:
    async def main() -> None:
        released = asyncio.Event()
        async with dispatching(
            when(released), when(released), n_workers=3, strategy="least_outstanding", max_in_flight=4
        ) as d:
            d.issue(40)
            await until(lambda: all(len(s.requests) == 4 for s in d.servers), "both servers are full")
            assert d.pool.in_flight == [4, 4]
            released.set()
            await d.finished(40)
            assert d.dispatcher.counts.completed == 40

    run(main())


def test_first_tokens_of_streams_reach_loadgen_once_each() -> None:
    async def main() -> None:
        async with dispatching(serve_well, serve_well, stream=True) as d:
            await d.serve(100)
            assert d.books.n_first_tokens == 100

    run(main())


def test_no_sample_is_lost_with_a_process() -> None:
    """Its attempts go out again, by another process; no server is blamed for them."""

    async def main() -> None:
        released = asyncio.Event()
        async with dispatching(when(released), when(released)) as d:
            d.issue(60)
            await until(lambda: sum(len(s.requests) for s in d.servers) == 60, "all attempts are out")
            os.kill(d.workers.pids[0], signal.SIGKILL)
            await until(lambda: d.dispatcher.counts.retried == 30, "half of the attempts are made again")
            released.set()
            await d.finished(60)
            assert d.dispatcher.counts.completed == 60
            assert [d.pool.state(server) for server in (0, 1)] == [ServerState.READY] * 2
            assert d.pool.ejections == [0, 0]
            assert d.broken == []

    run(main())


def test_a_process_that_dies_twice_breaks_the_run_off_with_every_sample_resolved() -> None:
    async def main() -> None:
        released = asyncio.Event()
        async with dispatching(when(released), when(released)) as d:
            for _ in range(2):
                d.issue(20)
                await until(lambda: d.dispatcher.in_flight == d.dispatcher.unresolved > 0, "all is out")
                victim = d.workers.pids[0]
                os.kill(victim, signal.SIGKILL)
                await until(lambda pid=victim: pid not in d.workers.pids, "the death is noticed")
            await d.finished(40)
            assert len(d.broken) == 1
            assert "worker process 0 ended by SIGKILL" in d.broken[0]
            assert d.dispatcher.counts.failed == 40
            d.issue(5)
            await d.finished(45)

    run(main())


def test_a_server_that_dies_is_ejected_and_its_samples_go_to_another() -> None:
    async def main() -> None:
        released = asyncio.Event()
        async with dispatching(when(released), serve_well, n_workers=3) as d:
            d.issue(60)
            await until(lambda: len(d.servers[0].requests) == 30, "the server is at work")
            d.servers[0].kill()
            await d.finished(60)
            assert d.dispatcher.counts.completed == 60
            await until(lambda: d.pool.ejections[0] == 1, "the server is ejected")
            await d.servers[0].start()
            released.set()
            await until(
                lambda: d.pool.state(0) is ServerState.TRIAL or d.pool.recoveries[0], "it may come back"
            )
            while not d.pool.recoveries[0]:
                await d.serve(4)
                await asyncio.sleep(0.01)
            await d.serve(40)
            assert d.dispatcher.counts.failed == 0

    run(main())
