"""The task that keeps a pool's health up to date: probes, stalls, and the passing of time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from lbrun.attempt import FailureKind
from lbrun.balance.model_watch import ModelWatch
from lbrun.balance.pool import Pool
from lbrun.balance.probe import ProbeResult
from lbrun.balance.slots import ProbeSlots
from lbrun.balance.stall import StallWatch
from lbrun.balance.states import UP, DueProbe, ProbeOutcome, ServerState, Transition

_log = logging.getLogger("lbrun.balance")

_TICK_S = 0.1
_REST_PER_SERVER_S = 10e-6
"""Between two looks at a large pool. A look takes less than a tenth of that, so that looks cost less than a
tenth of a core, however often something asks for one."""
_LAST_TRIES = 3
_IN_SERVICE = frozenset({ServerState.READY, ServerState.TRIAL})
_SMALL_POOL = 64  # costs so little to look at that it need not rest


class Probes(Protocol):
    """Who can probe a server: `lbrun.balance.probe.Prober`."""

    async def probe(self, server: int, *, with_model: bool = False) -> ProbeResult:
        """Ask the server how it is; never raises for the server's doing."""

    async def check_model(self, server: int) -> ProbeResult:
        """Ask a server in service what it serves; likewise."""


class Monitor:
    """Probes servers when their health asks for it, notices stalls, and ticks the pool.

    Its work does not depend on the load: ten looks at the pool a second, probes of servers that are not in
    service, and a question now and then what those in service serve.

    models: what they told at the start; None: they are not asked again. last_byte_ns: when a server last sent
    a byte of any answer (``time.monotonic_ns()``), 0 if never; None switches the watch for stalls off.
    on_probe: told of each result, and when its probe was begun: when it had its turn, not when it fell due.
    """

    def __init__(
        self,
        pool: Pool,
        prober: Probes,
        *,
        models: ModelWatch | None = None,
        last_byte_ns: Callable[[int], int] | None = None,
        on_probe: Callable[[int, ProbeResult, float], None] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._prober, self._models = pool, prober, models
        self._last_byte_ns, self._on_probe, self._clock_s = last_byte_ns, on_probe, clock_s
        self._stalls = StallWatch(pool.n, pool.policy.stall_s, clock_s())
        self._wake = asyncio.Event()
        self._probes: set[asyncio.Task[Any]] = set()
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
        pool.on_loss.append(self._connection_lost)
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
            pool.on_loss.remove(self._connection_lost)

    async def _wait(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _state_changed(self, transition: Transition) -> None:
        self._wake.set()

    def _connection_lost(self, server: int, kind: FailureKind, now_s: float) -> None:
        if self._models is not None:
            is_gone = kind in (FailureKind.REFUSED, FailureKind.HTTP_4XX)
            self._models.lost_connection(server, now_s, is_gone=is_gone)

    def _look(self, now_s: float) -> None:
        pool = self._pool
        pool.tick(now_s)
        if self._last_byte_ns is not None:
            last_byte_s = [self._last_byte_ns(server) * 1e-9 for server in range(pool.n)]
            for server in self._stalls.silent(pool.in_flight, last_byte_s, now_s):
                pool.stalled(server, now_s)
        for probe in pool.due_probes(now_s):
            self._start(self._probe(probe))
        if self._models is not None:
            for server in self._models.due(now_s):
                if pool.state(server) in _IN_SERVICE:  # the others are probed, and asked the same
                    self._start(self._ask_model(server))

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _probe(self, due: DueProbe) -> None:
        server = due.server
        began_s, result = await self._asked(
            server, lambda: self._prober.probe(server, with_model=due.with_model)
        )
        if self._on_probe is not None:
            self._on_probe(server, result, began_s)
        if result.healthy and not due.must_tell and result.outcome is not ProbeOutcome.WRONG_MODEL:
            result = result._replace(outcome=ProbeOutcome.OK)
        self._pool.probe_result(due, result.outcome, result.detail, self._clock_s())
        self._wake.set()

    async def _ask_model(self, server: int) -> ProbeResult:
        """Ask a server in service what it serves; one that tells something else gets no more work."""
        _, result = await self._asked(server, lambda: self._prober.check_model(server))
        if result.outcome is ProbeOutcome.WRONG_MODEL:
            self._pool.differs(server, result.detail, self._clock_s())
        return result

    async def _asked(
        self, server: int, ask: Callable[[], Awaitable[ProbeResult]]
    ) -> tuple[float, ProbeResult]:
        """What the server said, compared with what it said before, and when it was asked."""
        began_s = self._clock_s()
        try:
            async with self._slots.hold(server):
                began_s = self._clock_s()
                result = await ask()
        except Exception as error:
            # a fault of ours must not leave the server unprobed for ever, nor be blamed on it
            _log.exception("%s: the probe broke", self._pool.urls[server])
            result = ProbeResult(ProbeOutcome.LOCAL, f"the probe broke: {error}")
        if self._models is not None:
            result = self._models.judge(server, result, began_s, self._clock_s())
        return began_s, result

    async def last_look(self, timeout_s: float) -> list[int]:
        """Ask all that seem to serve what they serve; returns those that did not tell within that time."""
        pool, models = self._pool, self._models
        if models is None:
            return []
        asked = [
            server
            for server in range(pool.n)
            if pool.completed[server] and pool.state(server) in UP and server in models.known
        ]
        unread = set(asked)

        async def ask(server: int) -> None:
            for _ in range(_LAST_TRIES):
                result = await self._ask_model(server)
                if result.outcome is ProbeOutcome.OK:
                    unread.discard(server)
                    return
                await asyncio.sleep(pool.policy.confirm_gap_s)

        tasks = [asyncio.create_task(ask(server)) for server in asked]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return sorted(unread)
