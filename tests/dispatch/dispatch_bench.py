"""The dispatcher at work: a real pool, monitor, prober and worker over loopback, without LoadGen.

What LoadGen and the records would be told is kept, and the invariants of every run are checked whenever a
bench is left, whatever the test itself looked at.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import uvloop
from scripted_server import MODEL, Script, ScriptedServer

from lbrun.attempt import FailureKind, Worker
from lbrun.balance import HealthPolicy, Pool, PoolSettings, ServerState, Strategy, Transition, make_strategy
from lbrun.balance.monitor import Monitor
from lbrun.balance.probe import Prober, ProbeSettings
from lbrun.balance.states import ProbeOutcome
from lbrun.datasets.api import Sample
from lbrun.dispatch.dispatcher import Dispatcher
from lbrun.dispatch.ports import Finished, FirstToken, OutputPort
from lbrun.dispatch.retry import RetryPolicy, Try
from lbrun.formats import FormatOptions, make_format
from lbrun.transport import InlineWorker, Limits, Timeouts, make_endpoint

BOUND_S = 10.0
"""So long a test waits for what must come."""

N_SAMPLES = 1000
COST = 5

HEALTH = HealthPolicy(
    stall_s=60.0,
    probe_interval_s=0.05,
    confirm_gap_s=0.02,
    late_join_interval_s=0.1,
    backoff_base_s=0.05,
    backoff_cap_s=0.2,
    ramp_s=0.1,
    throttle_default_s=0.05,
)
"""Quick to act on what happens, and never on mere silence: a busy machine must not fail a test."""
WATCHFUL = dataclasses.replace(HEALTH, stall_s=0.3)
"""For the tests of silent servers; wants a short `probe_timeout_s`."""
RETRY = RetryPolicy(wait_base_s=0.01, wait_cap_s=0.05, grace_s=BOUND_S, budget_per_s=10_000.0)

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop, as a run does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main, 4 * BOUND_S))


class Row(NamedTuple):
    """What the records were told of a sample; the arguments of `RecordPort.add`, in order."""

    query_id: int
    sample_index: int
    server: int
    n_attempts: int
    issued_ns: int
    sent_ns: int
    first_byte_ns: int
    first_token_ns: int
    done_ns: int
    n_input_tokens: int
    n_tokens: int
    failure: int
    restarted: bool
    finish_reason: str
    attempts: list[Try] | None

    @property
    def kinds(self) -> list[FailureKind]:
        """How its attempts failed, in order."""
        return [FailureKind(attempt.kind) for attempt in self.attempts or () if attempt.kind]

    @property
    def path(self) -> list[int]:
        """The servers that it was sent to, in order."""
        return [attempt.server for attempt in self.attempts or ()] or [self.server]


class Ledger:
    """LoadGen and the records at once: keeps what it is told, and what should not have been told."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.issued: list[int] = []
        self.first_tokened: list[int] = []
        self.finished: dict[int, Finished] = {}
        self.rows: dict[int, Row] = {}

    needs_first_tokens = False

    def first_tokens(self, batch: Sequence[FirstToken]) -> None:
        for token in batch:
            if token.query_id in self.first_tokened:
                self.violations.append(f"a second first token of {token.query_id}")
            if token.query_id in self.finished:
                self.violations.append(f"the first token of {token.query_id} after its completion")
            self.first_tokened.append(token.query_id)

    def complete(self, batch: Sequence[Finished]) -> Sequence[int]:
        for finished in batch:
            if finished.query_id in self.finished:
                self.violations.append(f"{finished.query_id} completed twice")
            if finished.query_id not in self.issued:
                self.violations.append(f"{finished.query_id} completed and never issued")
            self.finished[finished.query_id] = finished
        return ()

    def add(self, *values: Any) -> None:
        row = Row(*values)
        if row.query_id in self.rows:
            self.violations.append(f"two rows for {row.query_id}")
        self.rows[row.query_id] = row

    def check(self) -> None:
        """Each query once, in LoadGen and in the records, and both of one mind about it."""
        assert self.violations == []
        assert sorted(self.finished) == sorted(self.rows) == sorted(self.issued)
        for query_id, finished in self.finished.items():
            row = self.rows[query_id]
            assert row.n_tokens == finished.n_tokens
            assert row.done_ns >= row.issued_ns > 0
            if row.failure:
                assert (finished.n_tokens, finished.payload) == (0, None), row
            else:
                assert finished.n_tokens > 0, row
            assert (row.first_token_ns > 0) == (query_id in self.first_tokened), row


class LogWatch(logging.Handler):
    """Keeps the tracebacks that were logged: each is a defect of the program, not a fault of a server."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.tracebacks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.tracebacks.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@dataclass
class DispatchBench:
    """A dispatcher and all that it works with."""

    servers: list[ScriptedServer]
    pool: Pool
    worker: Worker
    dispatcher: Dispatcher
    ledger: Ledger
    transitions: list[Transition] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def issue(self, *samples: int) -> list[int]:
        """Issue samples as LoadGen would; returns their query ids."""
        query_ids = [7000 + len(self.ledger.issued) + i for i in range(len(samples))]
        self.ledger.issued += query_ids
        self.dispatcher.issue(query_ids, list(samples))
        return query_ids

    async def serve(self, *samples: int) -> list[Row]:
        """Issue samples and wait until each is resolved."""
        query_ids = self.issue(*samples)
        await self.resolved()
        return [self.ledger.rows[query_id] for query_id in query_ids]

    @asynccontextmanager
    async def load(self, n_unresolved: int = 40) -> AsyncIterator[None]:
        """Keep issuing, so that there is always so much to do; in the end, wait until all is resolved."""

        async def feed() -> None:
            while True:
                n_missing = n_unresolved - (len(self.ledger.issued) - len(self.ledger.finished))
                if n_missing > 0:
                    done = len(self.ledger.issued)
                    self.issue(*((done + i) % N_SAMPLES for i in range(n_missing)))
                await asyncio.sleep(0.002)

        feeder = asyncio.create_task(feed())
        try:
            yield
        finally:
            feeder.cancel()
        await self.resolved()

    async def resolved(self) -> None:
        """Wait until all that was issued is resolved."""
        await self.until(lambda: len(self.ledger.finished) >= len(self.ledger.issued), "all is resolved")

    async def until(self, condition: Callable[[], object], what: str = "the condition") -> None:
        """Wait for something that must come."""
        try:
            async with asyncio.timeout(BOUND_S):
                while not condition():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            said = [(t.server, t.new.value, t.reason) for t in self.transitions]
            pytest_fail = f"{what}: not within {BOUND_S:g} s; {self.dispatcher.counts}; {said}"
            raise AssertionError(pytest_fail) from None

    async def until_state(self, server: int, state: ServerState) -> None:
        await self.until(lambda: self.pool.state(server) is state, f"server {server} is {state}")

    def states(self, server: int) -> list[ServerState]:
        """The states that the server has gone through since the bench began."""
        return [transition.new for transition in self.transitions if transition.server == server]

    def check(self) -> None:
        """The invariants of every run."""
        self.ledger.check()
        counts = self.dispatcher.counts
        assert counts.issued == counts.completed + counts.failed == len(self.ledger.issued), counts
        assert counts.failed == sum(1 for row in self.ledger.rows.values() if row.failure)
        assert self.dispatcher.unresolved == self.dispatcher.in_flight == 0
        assert self.pool.in_flight == [0] * self.pool.n
        assert self.pool.tokens_in_flight == [0] * self.pool.n
        assert sum(self.pool.requests) == counts.attempts
        assert len(self.broken) <= 1
        bodies: dict[int, set[bytes]] = {}
        for server in self.servers:
            for request in server.requests:
                bodies.setdefault(request.sample, set()).add(request.body)
        assert all(len(sent) == 1 for sent in bodies.values()), "attempts of a sample sent different bytes"


@asynccontextmanager
async def bench(
    *scripts: Script,
    stream: bool = False,
    health: HealthPolicy = HEALTH,
    retry: RetryPolicy = RETRY,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    max_in_flight: int | None = None,
    strategy: str | Strategy = "round_robin",
    urls: Mapping[int, str] | None = None,
    tls: Mapping[int, ssl.SSLContext] | None = None,
    probe_timeout_s: float = BOUND_S,
    outputs: OutputPort | None = None,
    defects: bool = False,
    wrap_worker: Callable[[InlineWorker], Worker] = lambda worker: worker,
) -> AsyncIterator[DispatchBench]:
    """A pool of one server per script, all of them ready.

    urls: where the pool looks for a server instead. tls: servers that speak it. defects: tracebacks in the
    log are part of the test.
    """
    tls = tls or {}
    servers = [ScriptedServer(script, tls.get(i)) for i, script in enumerate(scripts)]
    for server in servers:
        await server.start()
    addresses = [f"{'https' if i in tls else 'http'}://127.0.0.1:{s.port}" for i, s in enumerate(servers)]
    for i, url in (urls or {}).items():
        addresses[i] = url
    options = FormatOptions(model=MODEL, backend="vllm", stream=stream)
    request_format = make_format("completions", options)
    bodies = [request_format.encode(Sample(i, token_ids=b"[%d]" % i)) for i in range(N_SAMPLES)]
    context = ssl.create_default_context()
    worker = wrap_worker(
        InlineWorker(
            [make_endpoint(url, request_format.path) for url in addresses],
            bodies,
            request_format,
            timeouts=timeouts,
            limits=limits,
            tls=context,
        )
    )
    chosen = make_strategy(strategy) if isinstance(strategy, str) else strategy
    pool = Pool(
        PoolSettings(addresses, max_in_flight=max_in_flight, policy=health),
        chosen,
        now_s=time.monotonic() - BOUND_S,
    )
    make_ready(pool)
    ledger = Ledger()
    broken: list[str] = []
    dispatcher = Dispatcher(
        pool=pool,
        worker=worker,
        port=ledger,
        records=ledger,
        policy=retry,
        costs=[COST] * N_SAMPLES,
        on_broken=broken.append,
        outputs=outputs,
    )
    prober = Prober(addresses, ProbeSettings("vllm", MODEL, timeout_s=probe_timeout_s, ssl_context=context))
    monitor = Monitor(pool, prober, last_byte_ns=worker.last_byte_ns)
    bench = DispatchBench(servers, pool, worker, dispatcher, ledger, broken=broken)
    pool.on_transition.append(bench.transitions.append)
    watch = LogWatch()
    logging.getLogger("lbrun").addHandler(watch)
    loop_troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_troubles.append(context))
    try:
        dispatcher.start()
        task = monitor.start()
        yield bench
        assert not task.done(), "the monitor broke"
        bench.check()
    finally:
        dispatcher.stop()
        await monitor.stop()
        await worker.close()
        await prober.aclose()
        for server in servers:
            await server.stop()
        logging.getLogger("lbrun").removeHandler(watch)
    assert [(t["message"], repr(t.get("exception"))) for t in loop_troubles] == []
    assert defects or watch.tracebacks == []


def make_ready(pool: Pool) -> None:
    """Let every server answer its first probes, as before a run."""
    now_s = time.monotonic() - BOUND_S
    for _ in range(pool.policy.confirmations):
        for due in pool.due_probes(now_s):
            pool.probe_result(due, ProbeOutcome.OK, "healthy", now_s)
        now_s += pool.policy.confirm_gap_s
    assert all(pool.state(server) is ServerState.READY for server in range(pool.n))
