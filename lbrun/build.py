"""Settings to objects: the one file that knows all parts.

Everything below sees plain values and small frozen settings of its own; nothing below sees the configuration.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lbrun.attempt import Worker
from lbrun.balance import HealthPolicy, Pool, make_strategy
from lbrun.balance.models import ModelInfo
from lbrun.balance.monitor import Monitor
from lbrun.balance.probe import Prober, ProbeSettings
from lbrun.balance.readiness import ReadinessSettings, wait_until_ready
from lbrun.balance.settings import PoolSettings
from lbrun.config import RunSettings
from lbrun.datasets import DatasetSpec, InputKind, bundled, default_columns, read_samples
from lbrun.dispatch.retry import RetryPolicy
from lbrun.errors import ConfigError, DatasetError
from lbrun.formats import ChatOptions, FormatOptions, make_format
from lbrun.formats.api import RequestFormat
from lbrun.formats.options import PayloadKind
from lbrun.loadgen.test import LoadGenSettings
from lbrun.run.preflight import check_answers
from lbrun.tokenizer import local_tokenizer
from lbrun.transport import InlineWorker, Limits, Timeouts, make_endpoint, make_ssl_context
from lbrun.workers import ProcessWorkers, SharedBodies, WorkerSetup

_EXPECTED_OUTPUT_TOKENS = 256
"""What an answer is taken to cost the balancer in tokens, unless max_tokens is less."""
_CHARS_PER_TOKEN = 4
_FIRST_TOKENS = 4
"""Output tokens of the request that tries a server before the test."""


# ---- data and request format


@dataclass(frozen=True, slots=True)
class Prepared:
    """The dataset, ready to be sent. bodies[i], costs[i]: of sample i. request_format: how answers are read.
    first_body: a short request like them, to try the servers with before the test.
    """

    bodies: Sequence[bytes | memoryview]
    costs: list[int]
    request_format: RequestFormat
    first_body: bytes


def request_format(settings: RunSettings, max_tokens: int | None = None) -> RequestFormat:
    """The request format of the run. max_tokens: in place of the configured limit.

    Raises ConfigError where the pool's backend does not speak it.
    """
    return make_format(format_name(settings), format_options(settings, max_tokens))


def format_name(settings: RunSettings) -> str:
    """Which request format the run uses."""
    return settings.model.request_format or settings.model.formats[settings.servers.backend]


def format_options(settings: RunSettings, max_tokens: int | None = None) -> FormatOptions:
    """How it asks and reads."""
    sampling = settings.effective_sampling
    if max_tokens is not None:
        sampling["max_tokens"] = min(max_tokens, sampling.get("max_tokens", max_tokens))
        sampling["min_tokens"] = min(sampling["max_tokens"], sampling.get("min_tokens", 1))
    model, servers = settings.model, settings.servers
    chat = model.chat
    return FormatOptions(
        model=settings.served_model,
        backend=servers.backend,
        prompt=model.prompt,
        stream=settings.streaming,
        sampling=sampling,
        payload=payload_kind(settings),
        retokenize=local_tokenizer(model.tokenizer),
        extra_body=model.extra_body,
        chat=ChatOptions(
            system=_text(chat.system_prompt_file, "model.chat.system_prompt_file", chat.system_prompt),
            user_template=_text(chat.template_file, "model.chat.template_file", chat.template),
            json_schema=_json_schema(chat.guided_json_schema),
            image_position=chat.image_position,
        ),
    )


def payload_kind(settings: RunSettings) -> PayloadKind:
    """What answers must carry: nothing in a plain performance run, which keeps the hot path short."""
    wanted = (
        settings.mode == "accuracy"
        or settings.scenario.audit_conf is not None
        or settings.report.record_outputs
    )
    return settings.model.payload if wanted else "none"


def prepare_samples(settings: RunSettings) -> Prepared:
    """Read the dataset and encode every body. Raises DatasetError, naming file, row and column."""
    fmt, first = request_format(settings), request_format(settings, _FIRST_TOKENS)
    spec = dataset_spec(settings, fmt.name)
    limit = settings.effective_sampling.get("max_tokens") or _EXPECTED_OUTPUT_TOKENS
    output_tokens = min(int(limit), _EXPECTED_OUTPUT_TOKENS)
    costs: list[int] = []
    first_bodies: list[bytes] = []

    def encoded() -> Iterator[bytes]:
        for sample in read_samples(spec):
            try:
                if not first_bodies:
                    first_bodies.append(first.encode(sample))
                body = fmt.encode(sample)
            except ValueError as error:
                raise DatasetError(str(error), path=spec.path, row=sample.index) from None
            input_tokens = sample.n_input_tokens or len(sample.text or "") // _CHARS_PER_TOKEN
            costs.append(input_tokens + output_tokens)
            yield body

    # worker processes read the bodies from shared memory; one process keeps them as they are
    bodies = SharedBodies.store(encoded()) if n_workers(settings) else list(encoded())
    return Prepared(bodies, costs, fmt, first_bodies[0])


def notes(settings: RunSettings, fmt: RequestFormat) -> list[str]:
    """What a reader of the result should know of how samples were asked and answers read."""
    found = []
    values = settings.loadgen_values
    if (
        settings.scenario.loadgen == "Offline"
        and settings.mode == "performance"
        and not settings.trial
        and values.target_qps is None
        and settings.scenario.user_conf is None
        and settings.scenario.audit_conf is None
    ):
        found.append(
            "scenario.target_qps is not set: LoadGen expects 1 sample/s then, and a faster pool may be done "
            "before the minimum duration, which is INVALID; set it to the samples/s that you expect"
        )
    if settings.servers.backend == "sglang" and _ids_are_unchecked(settings, fmt):
        found.append(
            "the token ids of the data are not checked, since model.vocab_size is null and SGLang does not "
            "tell: an id outside the vocabulary ends an SGLang server"
        )
    unsent = left_out(fmt)
    if unsent:
        found.append(
            f"not sent, since servers.backend={settings.servers.backend} does not take them: "
            f"{', '.join(unsent)} (model.extra_body sends what your server knows)"
        )
    if settings.model.tokenizer is not None and payload_kind(settings) == "token_ids":
        found.append(
            "where a server returned no token ids, its text was encoded again by "
            f"{settings.model.tokenizer.name} (model.tokenizer)"
        )
    return found


def left_out(fmt: RequestFormat) -> tuple[str, ...]:
    """Sampling keys that are not sent, since the servers' backend does not take them."""
    return getattr(fmt, "left_out", ())


def n_workers(settings: RunSettings) -> int:
    """Worker processes; 0: attempts are carried out inside the test's own process.

    auto: none on fewer than 4 usable cores, where they would only compete with the rest, else half of the
    cores, at most 8.
    """
    workers = settings.client.workers
    if workers != "auto":
        return workers
    cores = len(os.sched_getaffinity(0))
    return 0 if cores < 4 else min(8, cores // 2)


def dataset_spec(settings: RunSettings, format_name: str) -> DatasetSpec:
    """Which samples the run reads, and which of their columns."""
    dataset, model = settings.dataset, settings.model
    path = dataset.path
    if settings.mode == "accuracy" and dataset.accuracy_path is not None:
        path = dataset.accuracy_path
    if path is None:
        if model.bundled_data is None:
            raise ConfigError("dataset.path: this model has no bundled data; name a data file")
        path = bundled(model.bundled_data)
    kind = _input_kind(settings, format_name)
    return DatasetSpec(
        path=path,
        kind=kind,
        columns={**default_columns(kind), **dataset.columns.given()},
        file_format=dataset.file_format,
        limit=dataset.max_samples,
        vocab_size=_known_vocab_size(settings),
        categories_as_list=model.chat.categories == "list",
    )


def _known_vocab_size(settings: RunSettings) -> int | None:
    """The vocabulary that token ids must be in, before any server was asked; None where nothing tells."""
    if settings.model.vocab_size is not None:
        return settings.model.vocab_size
    tokenizer = local_tokenizer(settings.model.tokenizer)
    return None if tokenizer is None else tokenizer.vocab_size or None


def _ids_are_unchecked(settings: RunSettings, fmt: RequestFormat) -> bool:
    """Token ids are sent, and nothing has told how large the vocabulary is."""
    spec = dataset_spec(settings, fmt.name)
    return spec.kind is InputKind.TOKEN_IDS and spec.vocab_size is None


def _input_kind(settings: RunSettings, format_name: str) -> InputKind:
    if format_name == "chat":
        return InputKind(settings.model.chat.input)
    return InputKind(settings.model.prompt)


def _text(path: Path | None, key: str, otherwise: str | None) -> str | None:
    """The text of the file, or otherwise the text where there is none."""
    if path is None:
        return otherwise
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from None


def _json_schema(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    import msgspec

    try:
        schema = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise ConfigError(f"model.chat.guided_json_schema: {path} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ConfigError(f"model.chat.guided_json_schema: {path} holds no JSON object; write a JSON schema")
    return schema


# ---- LoadGen


def loadgen_settings(settings: RunSettings, n_samples: int) -> LoadGenSettings:
    """The test in LoadGen's words: only what differs from its own mlperf.conf."""
    values = settings.loadgen_values
    conf: dict[str, int | float | None] = {
        "target_qps": values.target_qps,
        "min_duration": _ms(values.min_duration_s),
        "max_duration": _ms(values.max_duration_s),
        "min_query_count": values.min_query_count,
        "max_query_count": values.max_query_count,
        "ttft_latency": values.ttft_limit_ms,
        "tpot_latency": values.tpot_limit_ms,
        "target_latency": values.latency_limit_ms,
        "target_latency_percentile": None if values.percentile is None else values.percentile * 100,
        "coalesce_queries": None if values.coalesce_queries is None else int(values.coalesce_queries),
    }
    seeds = {
        "qsl_rng_seed": values.qsl_seed,
        "sample_index_rng_seed": values.sample_seed,
        "schedule_rng_seed": values.schedule_seed,
    }
    official = settings.model.official
    if n_samples != official.performance_samples:  # LoadGen sizes what it loads by it, in both modes
        conf["performance_sample_count_override"] = n_samples
    if settings.mode == "accuracy" and n_samples != official.accuracy_samples:
        conf["accuracy_sample_count_override"] = n_samples
    return LoadGenSettings(
        model=settings.loadgen_model_name,
        scenario=settings.scenario.loadgen,
        mode=settings.mode,
        samples=n_samples,
        values={key: value for key, value in conf.items() if value is not None},
        seeds={key: seed for key, seed in seeds.items() if seed is not None},
        user_conf=settings.scenario.user_conf,
        audit_conf=settings.scenario.audit_conf,
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


# ---- policies


def retry_policy(settings: RunSettings) -> RetryPolicy:
    """The dispatcher's policy."""
    servers, retry = settings.servers, settings.servers.retry
    return RetryPolicy(
        max_retries_per_server=servers.max_retries_per_server,
        wait_base_s=retry.wait_base_ms / 1000,
        wait_cap_s=retry.wait_cap_ms / 1000,
        grace_s=servers.grace_s,
        budget_share=retry.budget_share,
        budget_per_s=retry.budget_per_s,
        paced=settings.max_in_flight is None,
        stop_on_bad_request=servers.on_bad_request == "stop",
    )


def health_policy(settings: RunSettings) -> HealthPolicy:
    """The numbers of server health."""
    servers, health = settings.servers, settings.servers.health
    return HealthPolicy(
        failures_in_a_row=health.failures_in_a_row,
        failure_share=health.failure_share,
        window_s=health.window_s,
        window_min=health.window_min,
        stall_s=health.stall_s,
        probe_interval_s=health.probe_interval_s,
        ready_timeout_s=servers.ready_timeout_s,
        backoff_base_s=health.backoff_base_s,
        backoff_cap_s=health.backoff_cap_s,
        ramp_s=health.ramp_s,
        recovery=servers.recovery == "probe",
        late_join=settings.late_join,
    )


# ---- the pool and who works with it


@dataclass(slots=True)
class Parts:
    """What a test runs with, besides LoadGen and the dispatcher."""

    pool: Pool
    worker: Worker
    trial_worker: Worker
    prober: Prober
    readiness: ReadinessSettings
    monitor: Monitor | None = None

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

    def start_monitor(self) -> asyncio.Task[None]:
        """Look after the servers' health from now on."""
        self.monitor = Monitor(self.pool, self.prober, last_byte_ns=self.worker.last_byte_ns)
        return self.monitor.start()

    def worker_reports(self) -> list[dict[str, float]]:
        """What each worker process has cost (``cpu_s``, ``busy``), after `close`."""
        return self.worker.reports() if isinstance(self.worker, ProcessWorkers) else []

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
) -> Parts:
    """Pool, worker and prober. Raises ConfigError for what only shows here (a strategy, a header).

    on_broken: called when the worker cannot go on, with the reason.
    """
    servers, strategy = settings.servers, settings.strategy
    api_key = os.environ[servers.api_key_env] if servers.api_key_env else None
    headers = {**servers.headers, **{name: os.environ[v] for name, v in servers.headers_env.items()}}
    ca_file = str(servers.ca_file) if servers.ca_file else None
    tls = make_ssl_context(ca_file) if any(url.startswith("https:") for url in urls) else None
    path = prepared.request_format.path
    endpoints = [make_endpoint(url, path, headers=headers, api_key=api_key) for url in urls]
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
            tuple(endpoints), format_name(settings), format_options(settings), timeouts, limits, ca_file
        )
        worker = ProcessWorkers(
            n_workers(settings),
            setup,
            prepared.bodies,
            on_broken=on_broken,
            cpus=client.cpus,
        )
    else:
        worker = inline(bodies=prepared.bodies)
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
            redact=endpoints[0].redact,
        ),
    )
    return Parts(
        pool=pool,
        worker=worker,
        trial_worker=inline(bodies=[prepared.first_body]),
        prober=prober,
        readiness=ReadinessSettings(servers.min_ready, servers.settle_s),
    )
