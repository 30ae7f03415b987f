"""Whatever happens in whatever order, each sample is completed exactly once and nothing stays counted.

The dispatcher and the pool are the real ones. The event loop, the clock, the worker and the probes are
replaced by ones that only move when told to, so that Hypothesis chooses every interleaving: also reports
of attempts that were cancelled, issues in the middle of a drain, and transitions between a failure and
its retry.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from dispatch_bench import Ledger
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbrun.attempt import Answer, AttemptFailure, AttemptResult, AttemptSink, FailureKind
from lbrun.balance import STRATEGIES, HealthPolicy, Pool, PoolSettings, ServerState, make_strategy
from lbrun.balance.states import ProbeOutcome
from lbrun.dispatch import dispatcher as dispatcher_module
from lbrun.dispatch.dispatcher import Dispatcher
from lbrun.dispatch.retry import LOSSES, LOST_PAUSE_S, RetryPolicy

N_SERVERS = 3
COST = 7
BOUND_S = 120.0
"""By then, on the machine's own clock, all is resolved once the servers are well again."""

STATUSES = st.sampled_from([400, 401, 403, 404, 413, 422])
KINDS = st.sampled_from(sorted(LOSSES)) | st.sampled_from(
    [kind for kind in FailureKind if kind is not FailureKind.EVICTED]
)
"""Losses more often: what follows from them depends the most on what else happens."""

SERVERS = st.integers(0, N_SERVERS - 1)
ANY = st.just(-1) | st.integers(0, 10_000)
"""Picks one of whatever there is; often the last, which may be a retry."""


class Timer:
    """A call that is due at some time, unless it is cancelled."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def cancel(self) -> None:
        self.call = lambda: None


class HandLoop:
    """An event loop and a clock that stand still until they are moved."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[int, int, Timer]] = []

    @property
    def now_s(self) -> float:
        return self.now_ns * 1e-9

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        self._soon.append(lambda: function(*args))

    call_soon_threadsafe = call_soon

    def call_later(self, delay_s: float, function: Callable[..., object], *args: object) -> Timer:
        timer = Timer(lambda: function(*args))
        heapq.heappush(self._timers, (self.now_ns + int(delay_s * 1e9), id(timer), timer))
        return timer

    def turn(self) -> None:
        """One turn: what is ready now; what that asks for comes in the next."""
        while self._timers and self._timers[0][0] <= self.now_ns:
            self._soon.append(heapq.heappop(self._timers)[2].call)
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def settle(self) -> None:
        """Turn until there is nothing left to do at this time."""
        for _ in range(1000):
            if not self._soon:
                return
            self.turn()
        raise AssertionError("the loop never comes to rest")


class HandWorker:
    """Holds attempts until they are ended by hand.

    cancelled: attempts that the dispatcher has given up, and of which a report may still be on its way.
    """

    def __init__(self, pool: Pool, clock: HandLoop) -> None:
        self._pool, self._clock = pool, clock
        self.attempts: dict[int, SimpleNamespace] = {}
        self.cancelled: dict[int, SimpleNamespace] = {}
        self.refused: set[tuple[int, int]] = set()
        self.violations: list[str] = []
        self.sink: AttemptSink

    def start(self, sink: AttemptSink) -> None:
        self.sink = sink

    def submit(self, attempt_id: int, sample_index: int, server: int, fresh: bool = False) -> None:
        if any(attempt.sample == sample_index for attempt in self.attempts.values()):
            self.violations.append(f"sample {sample_index} has two attempts at a time")
        if (sample_index, server) in self.refused:
            self.violations.append(f"sample {sample_index} is sent to server {server}, which refused it")
        if self._pool.state(server) not in (ServerState.READY, ServerState.TRIAL):
            self.violations.append(f"server {server} gets work while {self._pool.state(server)}")
        self.attempts[attempt_id] = SimpleNamespace(
            sample=sample_index, server=server, sent_ns=self._clock.now_ns, first_token_ns=0, any_byte=False
        )

    def flush(self) -> None:
        pass

    def cancel(self, attempt_id: int) -> None:
        self.cancelled[attempt_id] = self.attempts.pop(attempt_id)

    def evict(self, server: int) -> None:
        for attempt_id, attempt in list(self.attempts.items()):
            if attempt.server == server and not attempt.any_byte:
                self.fail(attempt_id, FailureKind.EVICTED)

    def last_byte_ns(self, server: int) -> int:
        return 0

    async def close(self) -> None:
        pass

    # ---- by hand

    def first_token(self, attempt_id: int) -> None:
        attempt = self.attempts[attempt_id]
        if not attempt.first_token_ns:
            attempt.any_byte, attempt.first_token_ns = True, self._clock.now_ns
            self.sink.first_token(attempt_id, self._clock.now_ns, None)

    def complete(self, attempt_id: int) -> None:
        self._report_completion(attempt_id, self.attempts.pop(attempt_id))

    def fail(self, attempt_id: int, kind: FailureKind, **more: Any) -> None:
        attempt = self.attempts.pop(attempt_id)
        if kind is FailureKind.HTTP_4XX:
            self.refused.add((attempt.sample, attempt.server))
        self._report_failure(attempt_id, attempt, kind, **more)

    def report_late(self, attempt_id: int, how: str) -> None:
        attempt = self.cancelled[attempt_id]
        if how == "token":
            self.sink.first_token(attempt_id, self._clock.now_ns, None)
            return
        del self.cancelled[attempt_id]
        if how == "answer":
            self._report_completion(attempt_id, attempt)
        else:
            self._report_failure(attempt_id, attempt, FailureKind.CUT)

    def _report_completion(self, attempt_id: int, attempt: SimpleNamespace) -> None:
        now_ns = self._clock.now_ns
        result = AttemptResult(
            attempt.sent_ns, now_ns, attempt.first_token_ns, now_ns, Answer(3, 1, None, "stop")
        )
        self.sink.completed(attempt_id, result)

    def _report_failure(
        self, attempt_id: int, attempt: SimpleNamespace, kind: FailureKind, **more: Any
    ) -> None:
        failure = AttemptFailure(
            kind,
            f"it was {kind.name}",
            self._clock.now_ns,
            attempt.sent_ns,
            any_byte=attempt.any_byte,
            first_token_ns=attempt.first_token_ns,
            **more,
        )
        self.sink.failed(attempt_id, failure)


class DispatcherMachine(RuleBasedStateMachine):
    """issue, answers, failures, tokens, probes, time and ends, in any order."""

    @initialize(
        max_in_flight=st.sampled_from([None, 1, 3]),
        strategy=st.sampled_from(sorted(STRATEGIES)),
        recovery=st.booleans(),
        late_join=st.booleans(),
        stop_on_bad_request=st.booleans(),
        grace_s=st.sampled_from([0.0, 1.0, 5.0]),
        budget_per_s=st.sampled_from([2.0, 1000.0]),
    )
    def begin(
        self,
        max_in_flight: int | None,
        strategy: str,
        recovery: bool,
        late_join: bool,
        stop_on_bad_request: bool,
        grace_s: float,
        budget_per_s: float,
    ) -> None:
        self.clock = clock = HandLoop()
        self.patches = pytest.MonkeyPatch()
        time = SimpleNamespace(monotonic=lambda: clock.now_s, monotonic_ns=lambda: clock.now_ns)
        self.patches.setattr(dispatcher_module, "time", time)
        self.patches.setattr(dispatcher_module.log, "disabled", True)
        self.patches.setattr(
            dispatcher_module, "asyncio", SimpleNamespace(get_running_loop=lambda: clock, TimerHandle=Timer)
        )
        policy = HealthPolicy(
            recovery=recovery, late_join=late_join, ready_timeout_s=5.0, throttle_cap_s=3.0, ramp_s=1.0
        )
        self.pool = Pool(
            PoolSettings(
                [f"http://s{i}" for i in range(N_SERVERS)], max_in_flight=max_in_flight, policy=policy
            ),
            make_strategy(strategy),
            now_s=clock.now_s,
        )
        self.max_in_flight = max_in_flight
        self.health = [ProbeOutcome.OK] * N_SERVERS
        while any(self.pool.state(server) is ServerState.STARTING for server in range(N_SERVERS)):
            self.pass_time(0.1)
        self.worker = HandWorker(self.pool, clock)
        self.ledger = Ledger()
        self.broken: list[str] = []
        self.drained = False
        self.dispatcher = Dispatcher(
            pool=self.pool,
            worker=self.worker,
            port=self.ledger,
            records=self.ledger,
            policy=RetryPolicy(
                grace_s=grace_s, budget_per_s=budget_per_s, stop_on_bad_request=stop_on_bad_request
            ),
            costs=[COST] * 10_000,
            on_broken=self.broken.append,
        )
        self.dispatcher.start()
        self.issue(3)
        self.turn()

    # ---- what can happen

    @rule(n=st.sampled_from([1, 1, 1, 2, 8]))
    def issue(self, n: int) -> None:
        query_ids = [len(self.ledger.issued) + i for i in range(n)]
        self.ledger.issued += query_ids
        self.dispatcher.issue(query_ids, list(query_ids))

    @rule()
    def turn(self) -> None:
        self.clock.turn()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 2.0]))
    def pass_time(self, seconds: float) -> None:
        """Some time later: the monitor has looked at the pool, and made the probes that were due."""
        self.clock.now_ns += int(seconds * 1e9)
        self.look()
        self.clock.turn()

    def look(self) -> None:
        now_s = self.clock.now_s
        self.pool.tick(now_s)
        for due in self.pool.due_probes(now_s):
            outcome = self.health[due.server]
            self.pool.probe_result(due, outcome, f"probe says {outcome}", now_s)

    @rule(server=SERVERS, outcome=st.sampled_from(list(ProbeOutcome)))
    def change_health(self, server: int, outcome: ProbeOutcome) -> None:
        self.health[server] = outcome

    @rule(server=SERVERS)
    def stall(self, server: int) -> None:
        self.pool.stalled(server, self.clock.now_s)

    @rule(server=SERVERS, may_join=st.booleans(), dice=st.integers(0, 9))
    def exclude(self, server: int, may_join: bool, dice: int) -> None:
        if dice == 9:
            self.pool.exclude(server, "by name", self.clock.now_s, may_join=may_join)

    def one_of(self, attempts: dict[int, SimpleNamespace], which: int) -> int:
        return sorted(attempts)[which % len(attempts)]

    @precondition(lambda self: self.worker.attempts)
    @rule(which=ANY)
    def token_arrives(self, which: int) -> None:
        self.worker.first_token(self.one_of(self.worker.attempts, which))

    @precondition(lambda self: self.worker.attempts)
    @rule(which=ANY)
    def attempt_completes(self, which: int) -> None:
        self.worker.complete(self.one_of(self.worker.attempts, which))

    @precondition(lambda self: self.worker.attempts)
    @rule(
        which=ANY,
        kind=KINDS,
        sent=st.booleans(),
        reused=st.booleans(),
        status=STATUSES,
        retry_after_s=st.sampled_from([None, 0.0, 1.0, 30.0]),
        go_on=st.booleans(),
    )
    def attempt_fails(
        self,
        which: int,
        kind: FailureKind,
        sent: bool,
        reused: bool,
        status: int,
        retry_after_s: float | None,
        go_on: bool,
    ) -> None:
        self.worker.fail(
            self.one_of(self.worker.attempts, which),
            kind,
            sent=sent,
            reused=reused,
            status=status if kind is FailureKind.HTTP_4XX else 0,
            retry_after_s=retry_after_s if kind is FailureKind.HTTP_429 else None,
        )
        if go_on:  # to its retry, which can fail in turn
            self.pass_time(2 * LOST_PAUSE_S)
            self.clock.settle()

    @precondition(lambda self: self.worker.attempts)
    @rule(server=SERVERS, kind=KINDS)
    def all_attempts_at_a_server_fail(self, server: int, kind: FailureKind) -> None:
        for attempt_id, attempt in list(self.worker.attempts.items()):
            if attempt.server == server and attempt_id in self.worker.attempts:
                self.worker.fail(attempt_id, kind, sent=True, status=400)

    @precondition(lambda self: self.worker.cancelled)
    @rule(which=ANY, how=st.sampled_from(["answer", "failure", "token"]))
    def late_report(self, which: int, how: str) -> None:
        self.worker.report_late(self.one_of(self.worker.cancelled, which), how)

    @precondition(lambda self: len(self.ledger.issued) > 10)
    @rule(dice=st.integers(0, 9))
    def hold(self, dice: int) -> None:
        if dice == 9:  # seldom, as all that ends a run: most are to go on
            self.dispatcher.hold()
            self.drained = True

    @precondition(lambda self: len(self.ledger.issued) > 10)
    @rule(dice=st.integers(0, 9))
    def break_off(self, dice: int) -> None:
        if dice == 9:
            self.dispatcher.break_off("enough")

    # ---- what is always so

    @invariant()
    def nothing_is_reported_twice(self) -> None:
        if hasattr(self, "dispatcher"):
            assert self.ledger.violations == []
            assert self.worker.violations == []
            assert len(self.broken) <= 1

    @invariant()
    def the_counts_are_those_of_what_is_under_way(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        at_servers = Counter(attempt.server for attempt in self.worker.attempts.values())
        assert self.pool.in_flight == [at_servers[server] for server in range(N_SERVERS)]
        assert self.pool.tokens_in_flight == [COST * n for n in self.pool.in_flight]
        assert self.dispatcher.in_flight == len(self.worker.attempts)
        counts = self.dispatcher.counts
        assert counts.issued <= len(self.ledger.issued)
        assert counts.completed + counts.failed >= len(self.ledger.finished)
        assert counts.attempts == sum(self.pool.requests)
        if self.max_in_flight is not None:
            assert max(self.pool.in_flight) <= self.max_in_flight

    # ---- how it must end

    def teardown(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        try:
            self.all_is_well_in_the_end()
        finally:
            self.patches.undo()

    def all_is_well_in_the_end(self) -> None:
        """The servers are well, answers arrive, time passes: everything is resolved, and all counts are 0."""
        self.health = [ProbeOutcome.OK] * N_SERVERS
        end_ns = self.clock.now_ns + int(BOUND_S * 1e9)
        while len(self.ledger.finished) < len(self.ledger.issued):
            assert self.clock.now_ns < end_ns, f"not resolved: {self.dispatcher.counts}"
            for attempt_id in list(self.worker.attempts):
                self.worker.complete(attempt_id)
            if self.drained and not self.worker.attempts:
                self.clock.settle()
                self.dispatcher.fail_open("interrupted")
            self.pass_time(0.05)
            self.clock.settle()
        for attempt_id in list(self.worker.cancelled):
            self.worker.report_late(attempt_id, "answer")
        self.clock.settle()
        self.dispatcher.stop()
        assert not self.worker.attempts
        assert self.pool.in_flight == self.pool.tokens_in_flight == [0] * N_SERVERS
        assert self.dispatcher.in_flight == self.dispatcher.unresolved == 0
        counts = self.dispatcher.counts
        assert counts.issued == counts.completed + counts.failed == len(self.ledger.issued)
        self.ledger.check()


TestDispatcherMachine = DispatcherMachine.TestCase
TestDispatcherMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
