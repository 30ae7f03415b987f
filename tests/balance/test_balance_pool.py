"""The pool: counts, eligibility, pauses, ramps and listeners; and all of it against random events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbrun.attempt import FailureKind
from lbrun.balance import (
    STRATEGIES,
    HealthPolicy,
    Pool,
    PoolSettings,
    ProbeOutcome,
    ServerState,
    Transition,
    make_strategy,
)
from lbrun.balance.states import UP, DueProbe

S = ServerState
EDGES = {
    S.STARTING: {S.READY, S.EXCLUDED, S.EJECTED, S.DRAINING},
    S.READY: {S.SUSPECT, S.EJECTED, S.EXCLUDED, S.DRAINING},
    S.SUSPECT: {S.READY, S.TRIAL, S.EJECTED, S.STARTING, S.EXCLUDED, S.DRAINING},
    S.EJECTED: {S.TRIAL, S.EXCLUDED, S.DRAINING},
    S.TRIAL: {S.READY, S.EJECTED, S.SUSPECT, S.EXCLUDED, S.DRAINING},
    S.EXCLUDED: {S.READY},
    S.DRAINING: {S.EXCLUDED},
}
"""Every change of state that there is."""


def test_a_bound_keeps_each_server_at_so_many_attempts(make_bench) -> None:
    pool = make_bench(2, max_in_flight=3).pool
    assert [pool.acquire(1) for _ in range(6)] == [0, 1, 0, 1, 0, 1]
    assert pool.acquire(1) is None
    pool.release(1, 1)
    assert pool.acquire(1) == 1
    assert pool.acquire(1) is None


def test_counts_of_attempts_and_tokens_come_back_to_zero(make_bench) -> None:
    pool = make_bench(2).pool
    pool.acquire(10)
    pool.acquire(20)
    assert (pool.in_flight, pool.tokens_in_flight, pool.requests) == ([1, 1], [10, 20], [1, 1])
    pool.release(0, 10)
    pool.release(1, 20)
    assert (pool.in_flight, pool.tokens_in_flight, pool.requests) == ([0, 0], [0, 0], [1, 1])


def test_a_retry_goes_elsewhere_or_nowhere(make_bench) -> None:
    pool = make_bench(2).pool
    assert pool.acquire(1, exclude={0}) == 1
    assert pool.acquire(1, exclude={0, 1}) is None
    assert pool.acquire_among([1], 1) == 1
    assert pool.in_flight == [0, 2]


@pytest.mark.parametrize(("wish_s", "granted_s"), [(None, 1.0), (5.0, 5.0), (3600.0, 30.0), (0.0, 0.5)])
def test_a_429_pauses_the_server_as_long_as_it_wishes_and_is_reasonable(
    make_bench, wish_s: float | None, granted_s: float
) -> None:
    bench = make_bench(2)
    pool = bench.pool
    pool.failed_attempt(0, FailureKind.HTTP_429, bench.now_s, started_s=bench.now_s, retry_after_s=wish_s)
    assert pool.snapshot().servers[0].paused
    assert pool.eligible == [1]
    pool.tick(bench.now_s + granted_s - 0.01)
    assert pool.eligible == [1]
    pool.tick(bench.now_s + granted_s)
    assert pool.eligible == [0, 1]
    assert bench.rooms == 1
    assert bench.transitions == []
    assert pool.all_down_since_s is None


def recovered(make_bench, **options):
    """A pool of three, two of which carry 10 attempts each, and the third has just come back."""
    bench = make_bench(3, "least_outstanding", **options)
    for _ in range(3):
        bench.pool.failed_attempt(0, FailureKind.HTTP_5XX, bench.now_s, started_s=bench.now_s)
    for _ in range(20):
        bench.pool.acquire(1)
    bench.pass_time(2.5, lambda probe: ProbeOutcome.OK)
    assert bench.pool.acquire(1) == 0
    bench.pool.release(0, 1)
    bench.pool.succeeded(0, bench.now_s)
    assert bench.pool.in_flight == [0, 10, 10]
    return bench


def test_the_share_of_a_recovered_server_ramps_up_over_five_seconds(make_bench) -> None:
    bench = recovered(make_bench)
    held = []
    for _ in range(7):
        while 0 in bench.pool.eligible:
            assert bench.pool.acquire_among([0], 1) == 0
            if bench.pool.in_flight[0] > 50:
                break
        held.append(bench.pool.in_flight[0])
        bench.pass_time(1.0)
    assert held[:5] == [1, 2, 4, 6, 8]
    assert held[6] > 50


def test_a_ramp_gives_notice_of_new_room(make_bench) -> None:
    bench = recovered(make_bench)
    bench.pool.acquire_among([0], 1)
    bench.rooms = 0
    bench.pass_time(1.1)
    assert bench.rooms > 0


def test_a_ramp_respects_the_weights(make_bench) -> None:
    bench = recovered(make_bench, weights=[3.0, 1.0, 1.0])
    bench.pass_time(2.5)
    while 0 in bench.pool.eligible:
        bench.pool.acquire_among([0], 1)
    assert bench.pool.in_flight[0] in (15, 16)


def test_the_only_server_does_not_ramp(make_bench) -> None:
    bench = make_bench(1)
    for _ in range(3):
        bench.pool.failed_attempt(0, FailureKind.CUT, bench.now_s, started_s=bench.now_s)
    bench.pass_time(2.5, lambda probe: ProbeOutcome.OK)
    bench.pool.succeeded(0, bench.now_s)
    assert {bench.pool.acquire(1) for _ in range(100)} == {0}


def test_a_pool_is_down_from_the_last_servers_ejection_to_the_first_ones_trial(make_bench) -> None:
    bench = make_bench(2)
    pool = bench.pool
    for server in (0, 1):
        assert pool.all_down_since_s is None
        for _ in range(3):
            pool.failed_attempt(server, FailureKind.CUT, bench.now_s, started_s=bench.now_s)
        bench.now_s += 0.5
    assert pool.all_down_since_s == bench.now_s - 0.5
    bench.pass_time(3.0, lambda probe: ProbeOutcome.OK)
    assert pool.all_down_since_s is None


def test_a_snapshot_says_what_became_of_each_server(make_bench) -> None:
    bench = make_bench(2)
    pool = bench.pool
    pool.acquire(1)
    pool.acquire(1)
    pool.release(0, 1)
    pool.failed_attempt(0, FailureKind.HTTP_5XX, bench.now_s, started_s=bench.now_s, message="500: oops")
    pool.succeeded(1, bench.now_s)
    first, second = pool.snapshot().servers
    assert (first.requests, first.completed, first.failed, first.last_error) == (1, 0, 1, "500: oops")
    assert (second.requests, second.completed, second.in_flight) == (1, 1, 1)
    assert pool.snapshot().in_flight == 1


def test_what_a_listener_causes_is_announced_after_its_cause(make_bench) -> None:
    bench = make_bench(3)
    heard: list[tuple[int, ServerState]] = []

    def chain(transition: Transition) -> None:
        if transition.server < 2:
            bench.pool.exclude(transition.server + 1, "chain", bench.now_s)

    bench.pool.on_transition.insert(0, chain)
    bench.pool.on_transition.append(lambda t: heard.append((t.server, t.new)))
    bench.pool.exclude(0, "start", bench.now_s)
    assert heard == [(0, S.EXCLUDED), (1, S.EXCLUDED), (2, S.EXCLUDED)]


class PoolMachine(RuleBasedStateMachine):
    """Any events in any order: the books stay right, and changes of state follow the edges."""

    @initialize(
        n=st.integers(1, 4),
        bound=st.none() | st.integers(1, 3),
        strategy=st.sampled_from(sorted(STRATEGIES)),
        recovery=st.booleans(),
    )
    def build(self, n: int, bound: int | None, strategy: str, recovery: bool) -> None:
        self.now_s = 1000.0
        policy = HealthPolicy(recovery=recovery, ready_timeout_s=60.0)
        pool_settings = PoolSettings([f"http://{i}" for i in range(n)], max_in_flight=bound, policy=policy)
        self.pool = Pool(pool_settings, make_strategy(strategy), now_s=self.now_s)
        self.bound = bound
        self.open: list[tuple[int, int, float]] = []
        self.probes: list[DueProbe] = []
        self.states = [S.STARTING] * n
        self.requests = [0] * n
        self.ejections = [0] * n
        self.pool.on_transition.append(self.changed)

    def changed(self, transition: Transition) -> None:
        assert transition.old is self.states[transition.server]
        assert transition.new in EDGES[transition.old]
        assert transition.reason
        self.states[transition.server] = transition.new
        self.ejections[transition.server] += transition.new is S.EJECTED

    @rule(tokens=st.integers(1, 1000), exclude=st.sets(st.integers(0, 3), max_size=2))
    def acquire(self, tokens: int, exclude: set[int]) -> None:
        candidates = [s for s in self.pool.eligible if s not in exclude]
        server = self.pool.acquire(tokens, exclude)
        assert (server in candidates) if candidates else (server is None)
        if server is not None:
            assert self.states[server] in (S.READY, S.TRIAL)
            self.requests[server] += 1
            self.open.append((server, tokens, self.now_s))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 10**6), kind=st.none() | st.sampled_from(FailureKind), cancel=st.booleans())
    def end(self, which: int, kind: FailureKind | None, cancel: bool) -> None:
        server, tokens, started_s = self.open.pop(which % len(self.open))
        self.pool.release(server, tokens)
        if cancel:
            return
        if kind is None:
            self.pool.succeeded(server, self.now_s, 0.1)
        else:
            self.pool.failed_attempt(server, kind, self.now_s, started_s=started_s)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.pool.tick(self.now_s)
        self.probes += self.pool.due_probes(self.now_s)

    @precondition(lambda self: self.probes)
    @rule(outcome=st.sampled_from(ProbeOutcome), which=st.integers(0, 10**6))
    def answer(self, outcome: ProbeOutcome, which: int) -> None:
        probe = self.probes.pop(which % len(self.probes))
        self.pool.probe_result(probe, outcome, f"says {outcome}", self.now_s)

    @rule(server=st.integers(0, 3))
    def stall(self, server: int) -> None:
        if server < self.pool.n:
            self.pool.stalled(server, self.now_s)

    @rule(server=st.integers(0, 3), may_join=st.booleans())
    def exclude(self, server: int, may_join: bool) -> None:
        if server < self.pool.n:
            self.pool.exclude(server, "excluded by name", self.now_s, may_join=may_join)

    @invariant()
    def books_are_right(self) -> None:
        pool = getattr(self, "pool", None)
        if pool is None:
            return
        counts = [sum(1 for s, _, _ in self.open if s == server) for server in range(pool.n)]
        assert pool.in_flight == counts
        assert pool.tokens_in_flight == [
            sum(t for s, t, _ in self.open if s == server) for server in range(pool.n)
        ]
        assert pool.requests == self.requests
        assert pool.ejections == self.ejections
        assert [pool.state(server) for server in range(pool.n)] == self.states
        assert all(a < b for a, b in pairwise(pool.eligible))
        for server, state in enumerate(self.states):
            paused = pool.snapshot().servers[server].paused
            if server in pool.eligible:
                assert state in (S.READY, S.TRIAL)
                assert not paused
                assert self.bound is None or counts[server] < self.bound or state is S.TRIAL
            elif state in (S.READY, S.TRIAL) and counts[server] == 0:
                assert paused, "an idle server in service must be eligible unless it asked for a pause"
        assert (pool.all_down_since_s is None) is any(state in UP for state in self.states)

    def teardown(self) -> None:
        """Whatever has happened: with answers to all probes, every server that may return does."""
        if not hasattr(self, "pool"):
            return
        for server, tokens, _ in self.open:
            self.pool.release(server, tokens)
        self.open.clear()
        for probe in self.probes:
            self.pool.probe_result(probe, ProbeOutcome.LOCAL, "", self.now_s)
        may_return = [health.may_return for health in self.pool.health]
        for _ in range(250):
            self.now_s += 0.4  # 100 s: beyond the longest back-off, pause and late join
            self.pool.tick(self.now_s)
            for probe in self.pool.due_probes(self.now_s):
                self.pool.probe_result(probe, ProbeOutcome.OK, "", self.now_s)
            for server in list(self.pool.eligible):
                self.pool.succeeded(server, self.now_s)
        for server, returns in enumerate(may_return):
            assert (self.states[server] is S.READY) is returns
            assert (server in self.pool.eligible) is returns
        self.books_are_right()


PoolMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestPoolMachine = PoolMachine.TestCase
