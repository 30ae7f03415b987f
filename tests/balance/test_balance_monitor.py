"""The monitor: it finds out by itself about stalls, deaths and returns, and survives its own faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from lbrun.attempt import FailureKind
from lbrun.balance import HealthPolicy, Pool, PoolSettings, ProbeOutcome, ServerState, make_strategy
from lbrun.balance.monitor import Monitor
from lbrun.balance.probe import ProbeResult

QUICK = HealthPolicy(stall_s=0.3, probe_interval_s=0.05, confirm_gap_s=0.02, backoff_base_s=0.05, ramp_s=0.2)


class ScriptedProbes:
    """Servers that answer probes as they are told; None hangs until it changes."""

    def __init__(self, n: int) -> None:
        self.outcome: list[ProbeOutcome | None] = [ProbeOutcome.OK] * n
        self.asked = [0] * n
        self.most_at_once = 0
        self._open = 0

    async def probe(self, server: int, *, with_model: bool = False) -> ProbeResult:
        self.asked[server] += 1
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            for _ in range(20):
                outcome = self.outcome[server]
                if outcome is not None:
                    await asyncio.sleep(0)
                    return ProbeResult(outcome, f"says {outcome}")
                await asyncio.sleep(0.01)
            return ProbeResult(ProbeOutcome.TIMEOUT, "no answer")
        finally:
            self._open -= 1


async def until(condition: Callable[[], bool], bound_s: float = 10.0) -> None:
    async with asyncio.timeout(bound_s):
        while not condition():
            await asyncio.sleep(0.005)


def pool_of(n: int) -> Pool:
    settings = PoolSettings([f"http://server-{i}" for i in range(n)], policy=QUICK)
    return Pool(settings, make_strategy("round_robin"), now_s=time.monotonic())


async def all_ready(pool: Pool) -> None:
    await until(lambda: len(pool.eligible) == pool.n)


def test_a_hung_server_is_found_out_and_comes_back_when_it_answers_again() -> None:
    async def run() -> None:
        pool, probes = pool_of(2), ScriptedProbes(2)
        last_byte = [0, 0]
        monitor = Monitor(pool, probes, last_byte_ns=last_byte.__getitem__)
        monitor.start()
        await all_ready(pool)
        probes.outcome[0] = None
        assert pool.acquire(1) == 0
        await until(lambda: pool.state(0) is ServerState.EJECTED)
        pool.release(0, 1)
        probes.outcome[0] = ProbeOutcome.OK
        await until(lambda: pool.state(0) is ServerState.TRIAL)
        pool.succeeded(0, time.monotonic())
        assert pool.state(0) is ServerState.READY
        await monitor.stop()

    asyncio.run(run())


def test_a_server_with_work_that_keeps_sending_bytes_is_never_suspected() -> None:
    async def run() -> None:
        pool, probes = pool_of(1), ScriptedProbes(1)
        monitor = Monitor(pool, probes, last_byte_ns=lambda server: time.monotonic_ns())
        monitor.start()
        await all_ready(pool)
        heard = []
        pool.on_transition.append(heard.append)
        pool.acquire(1)
        asked = probes.asked[0]
        end_s = time.monotonic() + 3 * QUICK.stall_s
        await until(lambda: time.monotonic() > end_s)
        assert (heard, probes.asked[0]) == ([], asked)
        await monitor.stop()

    asyncio.run(run())


def test_a_refused_attempt_is_followed_by_a_probe_without_waiting_for_the_next_look() -> None:
    async def run() -> None:
        pool, probes = pool_of(2), ScriptedProbes(2)
        monitor = Monitor(pool, probes)
        monitor.start()
        await all_ready(pool)
        probes.outcome[1] = ProbeOutcome.REFUSED
        now_s = time.monotonic()
        asked = probes.asked[1]
        pool.failed_attempt(1, FailureKind.REFUSED, now_s, started_s=now_s)
        for _ in range(5):  # turns of the loop, no time
            await asyncio.sleep(0)
        assert probes.asked[1] == asked + 1
        await until(lambda: pool.state(1) is ServerState.EJECTED)
        await monitor.stop()

    asyncio.run(run())


def test_a_probe_that_breaks_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedProbes):
        async def probe(self, server: int, *, with_model: bool = False) -> ProbeResult:
            if self.asked[server] == 0:
                self.asked[server] += 1
                raise RuntimeError("a fault of ours")
            return await super().probe(server, with_model=with_model)

    async def run() -> None:
        pool = pool_of(1)
        monitor = Monitor(pool, Broken(1))
        monitor.start()
        await all_ready(pool)
        await monitor.stop()

    asyncio.run(run())
    assert any("the probe broke" in line for line in caplog.messages)


def test_a_large_pool_is_not_probed_all_at_once() -> None:
    async def run() -> None:
        pool, probes = pool_of(200), ScriptedProbes(200)
        monitor = Monitor(pool, probes)
        monitor.start()
        await all_ready(pool)
        assert probes.most_at_once <= 64
        await monitor.stop()
        assert pool.on_transition == []

    asyncio.run(run())


def test_the_task_of_a_monitor_holds_the_reason_when_it_breaks() -> None:
    async def run() -> None:
        def broken(server: int) -> int:
            raise RuntimeError("no clock")

        pool = pool_of(1)
        monitor = Monitor(pool, ScriptedProbes(1), last_byte_ns=broken)
        task = monitor.start()
        with pytest.raises(RuntimeError, match="no clock"):
            await task
        await monitor.stop()

    asyncio.run(run())
