"""Waiting for the servers before the test: all at once, with one deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from lbrun.balance.models import ModelInfo
from lbrun.balance.monitor import Monitor, Probes
from lbrun.balance.pool import Pool
from lbrun.balance.probe import ProbeResult
from lbrun.balance.states import ProbeOutcome, ServerState, Transition
from lbrun.errors import RunFailed

_log = logging.getLogger("lbrun.balance")

PATIENCE_S = 3.0
"""A server that comes up within this time is not worth a word to the user."""


_LAST_CALL_S = 30.0
"""The last call ends when no server was decided for so long: this machine may be unable to probe at all."""


@dataclass(frozen=True, slots=True)
class ReadinessSettings:
    """When to begin. The deadline is the pool's `HealthPolicy.ready_timeout_s`.

    min_ready: servers that have to be ready. settle_s: how long the others are waited for after that.
    """

    min_ready: int = 1
    settle_s: float = 5.0


async def wait_until_ready(
    pool: Pool,
    prober: Probes,
    settings: ReadinessSettings,
    *,
    on_word: Callable[[int, str], None] | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> Mapping[int, ModelInfo]:
    """Probe all servers until enough are ready; returns what the ready ones said about their model.

    A server is ready once it has answered twice and lists the served model. The others are excluded, and may
    join later where the pool's policy says so; each of them is asked once more after `settle_s`, however long
    that takes with a large pool or a busy machine, so that no server is left out for this process's slowness.
    Raises RunFailed, with what each server said, when fewer than `min_ready` are ready at the deadline, or as
    soon as that is certain.

    on_word: told what a server says that is not ready by now, and whatever new it says later.
    """
    watch = _Watch(pool, on_word or _nobody, clock_s)
    monitor = Monitor(pool, prober, on_probe=watch.probed, clock_s=clock_s)
    pool.on_transition.append(watch.changed)
    started_s = clock_s()
    task = monitor.start()
    try:
        await _until_settled(pool, settings, watch, task, started_s)
        await monitor.stop()
        for server in watch.starting():
            reason = f"not ready: {watch.said[server]}"
            pool.exclude(server, reason, clock_s(), may_join=pool.policy.late_join)
    finally:
        await monitor.stop()
        pool.on_transition.remove(watch.changed)
    ready = watch.ready()
    if len(ready) < settings.min_ready:
        raise RunFailed(_failure(pool, settings, watch, len(ready), clock_s() - started_s))
    return {server: watch.models[server] for server in ready if server in watch.models}


async def _until_settled(
    pool: Pool, settings: ReadinessSettings, watch: _Watch, monitor: asyncio.Task[None], started_s: float
) -> None:
    deadline_s = started_s + pool.policy.ready_timeout_s

    def is_decided() -> bool:  # nothing more can come of it
        return watch.n_starting == 0 or watch.n_ready + watch.n_starting < settings.min_ready

    def is_enough() -> bool:
        return is_decided() or watch.n_ready >= settings.min_ready

    if not await watch.wait(is_enough, lambda: deadline_s, monitor) or is_decided():
        return
    settled_s = watch.now_s() + settings.settle_s
    _log.info(
        "%d of %d servers are ready; waiting %g s for the others", watch.n_ready, pool.n, settings.settle_s
    )
    await watch.wait(is_decided, lambda: min(deadline_s, settled_s), monitor)
    if is_decided() or watch.now_s() >= deadline_s:
        return
    watch.call_last()
    _log.info("asking %d servers for the last time", len(watch.undecided))
    await watch.wait(
        lambda: not watch.undecided, lambda: min(deadline_s, watch.last_decision_s + _LAST_CALL_S), monitor
    )


class _Watch:
    """Hears what the servers say, and passes it on when it is new.

    said, models: each server's last word, and what it said of its model. undecided: during the last call, the
    servers that have neither become ready nor given another answer than that they are. last_decision_s: when
    one was last taken from them.
    """

    def __init__(self, pool: Pool, on_word: Callable[[int, str], None], clock_s: Callable[[], float]) -> None:
        self._pool, self._on_word, self.now_s = pool, on_word, clock_s
        self._patient_until_s = clock_s() + PATIENCE_S
        self._told = [""] * pool.n
        self.said = ["not asked yet"] * pool.n
        self.models: dict[int, ModelInfo] = {}
        self.n_starting, self.n_ready = len(self.starting()), len(self.ready())
        self.undecided: set[int] = set()
        self.last_decision_s = 0.0
        self._last_call_s = inf
        self._news = asyncio.Event()

    def starting(self) -> list[int]:
        """The servers of which it is open whether they take part."""
        return _servers_in(self._pool, ServerState.STARTING)

    def ready(self) -> list[int]:
        """The servers that take part."""
        return _servers_in(self._pool, ServerState.READY)

    async def wait(
        self, condition: Callable[[], bool], end_s: Callable[[], float], monitor: asyncio.Task[None]
    ) -> bool:
        """Wait until it holds, but not beyond the end; whether it does. Raises what broke the monitor."""
        while not condition():
            left_s = end_s() - self.now_s()
            if left_s <= 0:
                return False
            self._news.clear()
            waiter = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait({waiter, monitor}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiter.cancel()
            if monitor.done():
                await monitor  # raises what broke it
        return True

    def call_last(self) -> None:
        """The time is over for all that are still starting, once they have been asked again from now on."""
        self._last_call_s = self.last_decision_s = self.now_s()
        self.undecided = set(self.starting())
        for server in self.undecided:
            self._pool.hurry_probe(server, self._last_call_s)

    def probed(self, server: int, result: ProbeResult, began_s: float) -> None:
        """Keep the server's last word."""
        if result.model is not None:
            self.models[server] = result.model
        now_s = self.now_s()
        # a probe that was begun before says what held then; one that got no answer says it for its whole time
        is_late = began_s >= self._last_call_s or (
            result.outcome is ProbeOutcome.TIMEOUT and now_s >= self._last_call_s
        )
        if is_late and result.outcome not in (ProbeOutcome.OK, ProbeOutcome.LOCAL):
            self._decide(server)
        if result.detail != self.said[server]:
            self.said[server] = result.detail
            if self._pool.state(server) is ServerState.STARTING:
                _log.info("%s: %s", self._pool.urls[server], result.detail)
        if now_s < self._patient_until_s or self._pool.state(server) is not ServerState.STARTING:
            return
        if result.outcome is not ProbeOutcome.OK and result.detail != self._told[server]:
            self._told[server] = result.detail
            self._on_word(server, result.detail)

    def changed(self, transition: Transition) -> None:
        """Count, and log the change of state."""
        server, old, new = transition.server, transition.old, transition.new
        url = self._pool.urls[server]
        self.n_starting += (new is ServerState.STARTING) - (old is ServerState.STARTING)
        self.n_ready += (new is ServerState.READY) - (old is ServerState.READY)
        if new is ServerState.READY:
            _log.info("%s: ready%s", url, _about(self.models.get(server)))
        elif new is ServerState.EXCLUDED:
            _log.warning("%s: excluded: %s", url, transition.reason)
        self._decide(server)
        self._news.set()

    def _decide(self, server: int) -> None:
        if server in self.undecided:
            self.undecided.discard(server)
            self.last_decision_s = self.now_s()
            if not self.undecided:
                self._news.set()


def _nobody(server: int, word: str) -> None:
    pass


def _servers_in(pool: Pool, state: ServerState) -> list[int]:
    return [server for server in range(pool.n) if pool.state(server) is state]


def _about(model: ModelInfo | None) -> str:
    if model is None:
        return ""
    parts = [model.note or f"lists {', '.join(model.listed)}"]
    if model.max_model_len:
        parts.append(f"context of {model.max_model_len:,} tokens")
    return f" ({'; '.join(parts)})"


def _failure(pool: Pool, settings: ReadinessSettings, watch: _Watch, ready: int, waited_s: float) -> str:
    timeout_s = pool.policy.ready_timeout_s
    in_time = waited_s < timeout_s
    when = ", and the others cannot" if in_time and ready else "" if in_time else f" within {timeout_s:g} s"
    if ready == 0:
        headline = f"No API servers became ready{when}:"
    else:
        wanted = f"servers.min_ready is {settings.min_ready}"
        headline = f"Only {ready} of {pool.n} API servers became ready{when}; {wanted}:"
    said = [
        f"  {url}: {watch.said[server]}"
        for server, url in enumerate(pool.urls)
        if pool.state(server) is not ServerState.READY
    ]
    return "\n".join([headline, *said])
