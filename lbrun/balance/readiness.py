"""Waiting for the servers before the test: all at once, with one deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lbrun.balance.models import ModelInfo
from lbrun.balance.monitor import Monitor, Probes
from lbrun.balance.pool import Pool
from lbrun.balance.probe import ProbeResult
from lbrun.balance.states import ProbeOutcome, ServerState, Transition
from lbrun.errors import RunFailed

_log = logging.getLogger("lbrun.balance")

PATIENCE_S = 3.0
"""A server that comes up within this time is not worth a word to the user."""


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
    join later where the pool's policy says so. Raises RunFailed, with what each server said, when fewer than
    `min_ready` are ready at the deadline, or as soon as that is certain.

    on_word: told what a server says that is not ready by now, and whatever new it says later.
    """
    watch = _Watch(pool, on_word or _nobody, clock_s)
    monitor = Monitor(pool, prober, on_probe=watch.probed, clock_s=clock_s)
    pool.on_transition.append(watch.changed)
    started_s = clock_s()
    task = monitor.start()
    try:
        await _until_settled(pool, settings, watch, task, started_s, clock_s)
        await monitor.stop()
        for server in _servers_in(pool, ServerState.STARTING):
            reason = f"not ready: {watch.said[server]}"
            pool.exclude(server, reason, clock_s(), may_join=pool.policy.late_join)
    finally:
        await monitor.stop()
        pool.on_transition.remove(watch.changed)
    ready = _servers_in(pool, ServerState.READY)
    if len(ready) < settings.min_ready:
        raise RunFailed(_failure(pool, settings, watch, len(ready), clock_s() - started_s))
    return {server: watch.models[server] for server in ready if server in watch.models}


async def _until_settled(
    pool: Pool,
    settings: ReadinessSettings,
    watch: _Watch,
    monitor: asyncio.Task[None],
    started_s: float,
    clock_s: Callable[[], float],
) -> None:
    end_s = started_s + pool.policy.ready_timeout_s
    settling = False
    while True:
        ready = len(_servers_in(pool, ServerState.READY))
        starting = len(_servers_in(pool, ServerState.STARTING))
        if starting == 0 or ready + starting < settings.min_ready:
            return  # nothing more can come of it
        now_s = clock_s()
        if ready >= settings.min_ready and not settling:
            settling = True
            end_s = min(end_s, now_s + settings.settle_s)
            _log.info("%d of %d servers are ready; waiting %g s for the others", ready, pool.n, end_s - now_s)
        if now_s >= end_s:
            return
        watch.news.clear()
        waiter = asyncio.ensure_future(watch.news.wait())
        try:
            await asyncio.wait({waiter, monitor}, timeout=end_s - now_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if monitor.done():
            await monitor  # raises what broke it


class _Watch:
    """Hears what the servers say, and passes it on when it is new."""

    def __init__(self, pool: Pool, on_word: Callable[[int, str], None], clock_s: Callable[[], float]) -> None:
        self._pool, self._on_word, self._clock_s = pool, on_word, clock_s
        self._patient_until_s = clock_s() + PATIENCE_S
        self._told = [""] * pool.n
        self.said = ["not asked yet"] * pool.n
        self.models: dict[int, ModelInfo] = {}
        self.news = asyncio.Event()

    def probed(self, server: int, result: ProbeResult) -> None:
        """Keep the server's last word."""
        if result.model is not None:
            self.models[server] = result.model
        if result.detail != self.said[server]:
            self.said[server] = result.detail
            if self._pool.state(server) is ServerState.STARTING:
                _log.info("%s: %s", self._pool.urls[server], result.detail)
        if self._clock_s() < self._patient_until_s or self._pool.state(server) is not ServerState.STARTING:
            return
        if result.outcome is not ProbeOutcome.OK and result.detail != self._told[server]:
            self._told[server] = result.detail
            self._on_word(server, result.detail)

    def changed(self, transition: Transition) -> None:
        """Log the change of state."""
        url = self._pool.urls[transition.server]
        if transition.new is ServerState.READY:
            _log.info("%s: ready%s", url, _about(self.models.get(transition.server)))
        elif transition.new is ServerState.EXCLUDED:
            _log.warning("%s: excluded: %s", url, transition.reason)
        self.news.set()


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
