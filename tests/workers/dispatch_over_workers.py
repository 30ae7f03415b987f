"""A dispatcher and a pool over worker processes, without LoadGen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from workers_bench import BOUND_S, MODEL, Script, Server, encode, options, setup, until

from lbrun.balance import HealthPolicy, Pool, PoolSettings, ServerState, make_strategy
from lbrun.balance.monitor import Monitor
from lbrun.balance.probe import Prober, ProbeSettings
from lbrun.balance.states import ProbeOutcome
from lbrun.dispatch.dispatcher import Dispatcher
from lbrun.dispatch.ports import Finished, FirstToken
from lbrun.dispatch.retry import RetryPolicy
from lbrun.workers import ProcessWorkers, SharedBodies

N_SAMPLES = 500
_HEALTH = HealthPolicy(
    stall_s=BOUND_S,
    probe_interval_s=0.05,
    confirm_gap_s=0.02,
    backoff_base_s=0.05,
    backoff_cap_s=0.2,
    ramp_s=0.1,
)
_RETRY = RetryPolicy(wait_base_s=0.01, wait_cap_s=0.05, grace_s=BOUND_S, budget_per_s=10_000.0)


class Books:
    """LoadGen and the records at once."""

    def __init__(self) -> None:
        self.n_first_tokens = 0
        self.finished: list[Finished] = []
        self.servers: list[int] = []
        self.failures: list[int] = []

    needs_first_tokens = False

    def first_tokens(self, batch: Sequence[FirstToken]) -> None:
        self.n_first_tokens += len(batch)

    def complete(self, batch: Sequence[Finished]) -> Sequence[int]:
        self.finished += batch
        return ()

    def add(self, query_id: int, sample_index: int, server: int, *values: Any) -> None:
        self.servers.append(server)
        self.failures.append(values[8])


@dataclass
class Dispatching:
    """What a test looks at. broken: the reasons why the run was broken off."""

    servers: list[Server]
    workers: ProcessWorkers
    pool: Pool
    dispatcher: Dispatcher
    books: Books
    broken: list[str] = field(default_factory=list)

    def issue(self, n: int) -> None:
        """Issue the next n samples as LoadGen would."""
        begin = self.dispatcher.counts.issued
        self.dispatcher.issue(list(range(begin, begin + n)), [i % N_SAMPLES for i in range(begin, begin + n)])

    async def finished(self, n: int) -> None:
        """Wait until so many samples in all are resolved."""
        await until(lambda: len(self.books.finished) >= n, f"{n} samples are resolved")

    async def serve(self, n: int) -> None:
        """Issue n samples and wait until all are resolved."""
        done = len(self.books.finished)
        self.issue(n)
        await self.finished(done + n)

    def check(self) -> None:
        """The books of every run."""
        counts, books = self.dispatcher.counts, self.books
        assert counts.issued == counts.completed + counts.failed == len(books.finished) == len(books.servers)
        assert sorted(f.query_id for f in books.finished) == list(range(counts.issued))
        assert counts.failed == sum(map(bool, books.failures))
        assert self.dispatcher.in_flight == self.dispatcher.unresolved == 0
        assert self.pool.in_flight == [0] * self.pool.n
        assert sum(self.pool.requests) == counts.attempts
        if not self.broken:  # after which nothing is sent any more
            assert counts.attempts == counts.issued + counts.retried


@asynccontextmanager
async def dispatching(
    *scripts: Script,
    n_workers: int = 2,
    strategy: str = "round_robin",
    max_in_flight: int | None = None,
    stream: bool = False,
) -> AsyncIterator[Dispatching]:
    """A server per script, all ready, and worker processes; the books are checked as it ends."""
    servers = [Server(script) for script in scripts]
    for server in servers:
        await server.start()
    urls = [server.url for server in servers]
    format_options = options(stream=stream)
    bodies = SharedBodies.store(encode(format_options, N_SAMPLES))
    pool = Pool(
        PoolSettings(urls, max_in_flight=max_in_flight, policy=_HEALTH),
        make_strategy(strategy),
        now_s=time.monotonic() - BOUND_S,
    )
    _make_ready(pool)
    broken: list[str] = []
    workers = ProcessWorkers(
        n_workers,
        setup(urls, format_options),
        bodies,
        on_broken=lambda reason: dispatcher.break_off(reason),
    )
    books = Books()
    dispatcher = Dispatcher(
        pool=pool,
        worker=workers,
        port=books,
        records=books,
        policy=_RETRY,
        costs=[5] * N_SAMPLES,
        on_broken=broken.append,
    )
    prober = Prober(urls, ProbeSettings("vllm", MODEL, timeout_s=1.0))
    monitor = Monitor(pool, prober, last_byte_ns=workers.last_byte_ns)
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    dispatch = Dispatching(servers, workers, pool, dispatcher, books, broken)
    try:
        dispatcher.start()
        monitor.start()
        yield dispatch
        dispatch.check()
    finally:
        dispatcher.stop()
        await monitor.stop()
        await workers.close()
        await prober.aclose()
        bodies.close()
        for server in servers:
            await server.stop()
    assert [repr(trouble) for trouble in troubles] == []


def _make_ready(pool: Pool) -> None:
    """Let every server answer its first probes, as before a run."""
    now_s = time.monotonic() - BOUND_S
    for _ in range(pool.policy.confirmations):
        for due in pool.due_probes(now_s):
            pool.probe_result(due, ProbeOutcome.OK, "healthy", now_s)
        now_s += pool.policy.confirm_gap_s
    assert all(pool.state(server) is ServerState.READY for server in range(pool.n))
