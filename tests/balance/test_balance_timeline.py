"""How long the default policy takes to notice a fault and its end, with probes that take their time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbrun.attempt import FailureKind
from lbrun.balance import ProbeOutcome, ServerState
from lbrun.balance.stall import StallWatch
from lbrun.balance.states import DueProbe

PROBE_TIMEOUT_S = 2.0  # the default of ProbeSettings


class Timeline:
    """Steps of a tenth of a second, as the monitor takes them; server 0 has the fault."""

    def __init__(self, bench, answers: Callable[[float], ProbeOutcome | None]) -> None:
        self.bench, self.answers = bench, answers
        self.open: list[tuple[float, DueProbe]] = []
        self.stalls = StallWatch(bench.pool.n, bench.pool.policy.stall_s, bench.now_s)
        self.last_byte_s = [bench.now_s] * bench.pool.n

    def step(self, alive: bool) -> None:
        bench, pool = self.bench, self.bench.pool
        bench.now_s += 0.1
        now_s = bench.now_s
        self.last_byte_s[1] = now_s
        if alive:
            self.last_byte_s[0] = now_s
        pool.tick(now_s)
        for server in self.stalls.silent(pool.in_flight, self.last_byte_s, now_s):
            pool.stalled(server, now_s)
        self.open += [(now_s, probe) for probe in pool.due_probes(now_s)]
        for sent_s, probe in list(self.open):
            outcome = self.answers(now_s)
            if outcome is None and now_s - sent_s >= PROBE_TIMEOUT_S:
                outcome = ProbeOutcome.TIMEOUT
            if outcome is not None:
                self.open.remove((sent_s, probe))
                pool.probe_result(probe, outcome, str(outcome), now_s)
        if alive and pool.state(0) is ServerState.TRIAL:
            pool.succeeded(0, now_s)

    def until(self, state: ServerState, alive: bool, bound_s: float) -> float:
        """Seconds until the server is in that state."""
        started_s = self.bench.now_s
        while self.bench.pool.state(0) is not state:
            self.step(alive)
            assert self.bench.now_s - started_s <= bound_s, f"not {state} within {bound_s} s"
        return self.bench.now_s - started_s


@pytest.mark.parametrize("hung_for_s", [12.0, 60.0])
def test_a_hung_server_is_out_within_ten_seconds_and_back_within_five(make_bench, hung_for_s: float) -> None:
    bench = make_bench(2)
    hung = True
    timeline = Timeline(bench, lambda now_s: None if hung else ProbeOutcome.OK)
    assert bench.pool.acquire(1) == 0
    started_s = bench.now_s
    timeline.until(ServerState.EJECTED, alive=False, bound_s=10.0)
    while bench.now_s < started_s + hung_for_s:
        timeline.step(alive=False)
    hung = False
    timeline.until(ServerState.READY, alive=True, bound_s=5.0)


@pytest.mark.parametrize("dead_for_s", [5.0, 120.0])
def test_a_killed_server_is_out_within_a_second_and_back_within_five(make_bench, dead_for_s: float) -> None:
    bench = make_bench(2)
    dead = True
    timeline = Timeline(bench, lambda now_s: ProbeOutcome.REFUSED if dead else ProbeOutcome.OK)
    started_s = bench.now_s
    bench.pool.failed_attempt(0, FailureKind.REFUSED, started_s, started_s=started_s)
    timeline.until(ServerState.EJECTED, alive=False, bound_s=1.0)
    while bench.now_s < started_s + dead_for_s:
        timeline.step(alive=False)
    dead = False
    timeline.until(ServerState.READY, alive=True, bound_s=5.0)


def test_a_pool_that_dies_as_a_whole_comes_back_as_a_whole(make_bench) -> None:
    bench = make_bench(2)
    for server in (0, 1):
        for _ in range(3):
            bench.pool.failed_attempt(server, FailureKind.CUT, bench.now_s, started_s=bench.now_s)
    bench.pass_time(10.0, lambda probe: ProbeOutcome.REFUSED)
    assert bench.pool.all_down_since_s is not None
    bench.pass_time(2.0, lambda probe: ProbeOutcome.OK)
    assert bench.pool.all_down_since_s is None
    assert bench.pool.eligible == [0, 1]
