"""The pool and who works with it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from lbrun.attempt import Worker
from lbrun.balance import Pool, make_strategy
from lbrun.balance.model_watch import ModelChange, ModelWatch
from lbrun.balance.models import ModelInfo
from lbrun.balance.monitor import Monitor
from lbrun.balance.probe import Prober, ProbeSettings
from lbrun.balance.readiness import ReadinessSettings, wait_until_ready
from lbrun.balance.settings import PoolSettings
from lbrun.build.formats import format_name, format_options
from lbrun.build.policies import health_policy, n_workers
from lbrun.build.samples import Prepared
from lbrun.config import RunSettings
from lbrun.config.secrets import variables, without_secrets
from lbrun.loop_watch import LoopFigures
from lbrun.redaction import Redactor
from lbrun.run.preflight import check_answers
from lbrun.transport import InlineWorker, Limits, Timeouts, make_endpoint, make_ssl_context
from lbrun.workers import ProcessWorkers, Report, SharedBodies, WorkerSetup


@dataclass(slots=True)
class Parts:
    """What a test runs with, besides LoadGen and the dispatcher."""

    pool: Pool
    worker: Worker
    trial_worker: Worker
    prober: Prober
    readiness: ReadinessSettings
    monitor: Monitor | None = None
    models: ModelWatch | None = None

    async def wait_ready(self, on_word: Callable[[int, str], None]) -> Mapping[int, ModelInfo]:
        """Wait for the servers; what the ready ones say of their model. Raises RunFailed if too few are.

        on_word: told what servers that are not ready say.
        """
        return await wait_until_ready(self.pool, self.prober, self.readiness, on_word=on_word)

    async def try_servers(self, timeout_s: float) -> list[str]:
        """Ask each ready server for one short answer; those that cannot serve the run are excluded.

        Returns what to tell the user of them. Raises RunFailed when none can.
        """
        pool = self.pool
        ready = list(pool.eligible)
        told = []
        for server, reason in await check_answers(self.trial_worker, ready, pool.urls, timeout_s):
            pool.exclude(server, f"the first request failed: {reason}", time.monotonic())
            told.append(f"{pool.urls[server]} takes no part: the first request failed: {reason}")
        return told

    def start_monitor(
        self, told: Mapping[int, ModelInfo], on_change: Callable[[ModelChange], None]
    ) -> asyncio.Task[None]:
        """Look after the servers' health, and after what they serve, from now on.

        told: what the servers said of their models. on_change: called when one serves something else.
        """
        self.models = ModelWatch(
            self.pool.n,
            told,
            now_s=time.monotonic(),
            random=Random(),  # noqa: S311 - jitter, not a secret
            on_change=on_change,
        )
        self.monitor = Monitor(
            self.pool, self.prober, models=self.models, last_byte_ns=self.worker.last_byte_ns
        )
        return self.monitor.start()

    def watch_worker_loops(self) -> None:
        """Have `worker_loops` tell of the time from now on."""
        if isinstance(self.worker, ProcessWorkers):
            self.worker.watch_loops()

    def worker_loops(self) -> list[LoopFigures]:
        """How late and how busy the event loops of worker processes are, before `close`."""
        return self.worker.loops() if isinstance(self.worker, ProcessWorkers) else []

    async def last_look(self, timeout_s: float) -> list[int]:
        """Ask the servers once more what they serve; returns those that did not tell."""
        return await self.monitor.last_look(timeout_s) if self.monitor is not None else []

    def worker_reports(self) -> list[Report]:
        """What each worker process has cost, after `close`."""
        return self.worker.reports() if isinstance(self.worker, ProcessWorkers) else []

    def unasked_answers(self) -> list[str]:
        """What to tell the user of servers that sent answers nobody had asked for, after `close`."""
        if not isinstance(self.worker, InlineWorker | ProcessWorkers):
            return []
        return [
            f"{url} sent {n:,} answer{'s' * (n != 1)} that nobody had asked for. What came on the same "
            "connections before may be answers to other requests; since then each was used once"
            for url, n in zip(self.pool.urls, self.worker.unasked_answers(), strict=False)
            if n
        ]

    def workers_died(self) -> int:
        """How many worker processes had to be replaced."""
        return self.worker.replaced if isinstance(self.worker, ProcessWorkers) else 0

    async def close(self, *, worker_started: bool = True) -> None:
        """End everything that has connections, tasks or processes."""
        if self.monitor is not None:
            await self.monitor.stop()
        if worker_started or isinstance(self.worker, ProcessWorkers):
            await self.worker.close()
        await self.prober.aclose()


def make_parts(
    settings: RunSettings,
    urls: Sequence[str],
    prepared: Prepared,
    on_broken: Callable[[str], None],
    redactor: Redactor,
) -> Parts:
    """Pool, worker and prober. Raises ConfigError for what only shows here (a strategy, a header).

    on_broken: called when the worker cannot go on, with the reason. redactor: of the run's secrets.
    """
    servers, strategy = settings.servers, settings.strategy
    api_key = os.environ[servers.api_key_env] if servers.api_key_env else None
    headers = {**servers.headers, **{name: os.environ[v] for name, v in servers.headers_env.items()}}
    ca_file = str(servers.ca_file) if servers.ca_file else None
    tls = make_ssl_context(ca_file) if any(url.startswith("https:") for url in urls) else None
    path = prepared.request_format.path
    endpoints = [
        make_endpoint(url, path, headers=headers, api_key=api_key, redactor=redactor) for url in urls
    ]
    pool = Pool(
        PoolSettings(
            urls=urls,
            max_in_flight=settings.max_in_flight,
            weights=servers.weights,
            policy=health_policy(settings),
            seed=strategy.seed,
        ),
        make_strategy(
            strategy.name,
            seed=strategy.seed,
            target=strategy.target,
            params=strategy.params,
            allowed_packages=settings.allowed_packages,
        ),
        now_s=time.monotonic(),
    )
    client = settings.client
    timeouts = Timeouts(
        connect_s=client.connect_timeout_s,
        first_byte_s=settings.scenario.first_byte_timeout_s,
        idle_s=client.idle_timeout_s,
        total_s=client.total_timeout_s,
    )
    limits = Limits(max_body_bytes=int(client.max_answer_mib * (1 << 20)))

    inline = partial(
        InlineWorker,
        endpoints,
        request_format=prepared.request_format,
        timeouts=timeouts,
        limits=limits,
        tls=tls,
    )
    worker: Worker
    if isinstance(prepared.bodies, SharedBodies):
        setup = WorkerSetup(
            tuple(endpoints),
            format_name(settings),
            format_options(settings),
            timeouts,
            limits,
            ca_file,
            prepared.prompt_lengths,
        )
        worker = ProcessWorkers(
            n_workers(settings),
            setup,
            prepared.bodies,
            on_broken=on_broken,
            cpus=client.cpus,
            environ=without_secrets(os.environ, variables(servers)),
        )
    else:
        worker = inline(bodies=prepared.bodies, prompt_lengths=prepared.prompt_lengths)
    prober = Prober(
        urls,
        ProbeSettings(
            backend=servers.backend,
            model=settings.served_model,
            timeout_s=servers.health.probe_timeout_s,
            health_path=servers.health_path,
            headers=headers,
            api_key=api_key,
            ssl_context=tls,
            redact=redactor.redact,
        ),
    )
    return Parts(
        pool=pool,
        worker=worker,
        trial_worker=inline(bodies=[prepared.first_body]),
        prober=prober,
        readiness=ReadinessSettings(servers.min_ready, servers.settle_s),
    )
