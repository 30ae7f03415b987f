"""The task that keeps a pool's health up to date: probes, stalls, and the passing of time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from lbrun.balance.pool import Pool
from lbrun.balance.probe import ProbeResult
from lbrun.balance.slots import ProbeSlots
from lbrun.balance.stall import StallWatch
from lbrun.balance.states import DueProbe, ProbeOutcome, Transition

_log = logging.getLogger("lbrun.balance")

_TICK_S = 0.1
_REST_PER_SERVER_S = 10e-6
"""Between two looks at a large pool. A look takes less than a tenth of that, so that looks cost less than a tenth
of a core, however often something asks for one."""
_SMALL_POOL = 64  # costs so little to look at that it need not rest


class Probes(Protocol):
    """Who can probe a server: `lbrun.balance.probe.Prober`."""

    async def probe(self, server: int, *, with_model: bool = False) -> ProbeResult:
        """Ask the server how it is; never raises for the server's doing."""


class Monitor:
    """Probes servers when their health asks for it, notices stalls, and ticks the pool.

    Its work does not depend on the load: ten looks at the pool a second, and probes only of servers that are
    not in service.

    last_byte_ns: when a server last sent a byte of any answer (``time.monotonic_ns()``), 0 if never; None
    switches the watch for stalls off. on_probe: told of each result, and when its probe was begun: when it had
    its turn, not when it fell due.
    """

    def __init__(
        self,
        pool: Pool,
        prober: Probes,
        *,
        last_byte_ns: Callable[[int], int] | None = None,
        on_probe: Callable[[int, ProbeResult, float], None] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._prober = pool, prober
        self._last_byte_ns, self._on_probe, self._clock_s = last_byte_ns, on_probe, clock_s
        self._stalls = StallWatch(pool.n, pool.policy.stall_s, clock_s())
        self._wake = asyncio.Event()
        self._probes: set[asyncio.Task[None]] = set()
        self._slots = ProbeSlots()
        self._rest_s = _REST_PER_SERVER_S * pool.n if pool.n > _SMALL_POOL else 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin, on the running loop. The task ends by `stop` only; should it break, it holds the reason."""
        self._task = asyncio.create_task(self._run(), name="lbrun-monitor")
        return self._task

    async def stop(self) -> None:
        """End the task and the probes under way."""
        tasks = [*self._probes, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        pool = self._pool
        pool.on_transition.append(self._state_changed)
        try:
            while True:
                self._look(self._clock_s())
                if self._rest_s:
                    await asyncio.sleep(self._rest_s)
                # a refused connection asks for a probe at once, not at the next look
                wait_s = min(_TICK_S, pool.next_probe_s() - self._clock_s())
                if wait_s > 0:
                    await self._wait(wait_s)
                else:
                    await asyncio.sleep(0)
        finally:
            pool.on_transition.remove(self._state_changed)

    async def _wait(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _state_changed(self, transition: Transition) -> None:
        self._wake.set()

    def _look(self, now_s: float) -> None:
        pool = self._pool
        pool.tick(now_s)
        if self._last_byte_ns is not None:
            last_byte_s = [self._last_byte_ns(server) * 1e-9 for server in range(pool.n)]
            for server in self._stalls.silent(pool.in_flight, last_byte_s, now_s):
                pool.stalled(server, now_s)
        for probe in pool.due_probes(now_s):
            task = asyncio.create_task(self._probe(probe))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)

    async def _probe(self, due: DueProbe) -> None:
        began_s = self._clock_s()
        try:
            async with self._slots.hold(due.server):
                began_s = self._clock_s()
                result = await self._prober.probe(due.server, with_model=due.with_model)
        except Exception as error:
            # a fault of ours must not leave the server unprobed for ever, nor be blamed on it
            _log.exception("%s: the probe broke", self._pool.urls[due.server])
            result = ProbeResult(ProbeOutcome.LOCAL, f"the probe broke: {error}")
        if self._on_probe is not None:
            self._on_probe(due.server, result, began_s)
        self._pool.probe_result(due, result.outcome, result.detail, self._clock_s())
        self._wake.set()
