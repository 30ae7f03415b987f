"""vLLM's page of metrics."""

from __future__ import annotations

from lbrun.embedded.engine import Engine
from lbrun.embedded.metrics import Exposition
from lbrun.embedded.settings import ServerSettings

_REASONS = ("stop", "length", "abort", "error", "repetition")


def vllm_metrics(engine: Engine, settings: ServerSettings) -> bytes:
    """The text of /metrics."""
    counted = engine.metrics
    page = Exposition({"engine": "0", "model_name": settings.model})

    def single(name: str, kind: str, meaning: str, value: float) -> None:
        page.family(name, kind, meaning)
        page.value(name, value)

    single(
        "vllm:num_requests_running",
        "gauge",
        "Number of requests in model execution batches.",
        engine.n_running,
    )
    single(
        "vllm:num_requests_waiting",
        "gauge",
        "Number of requests waiting to be processed.",
        engine.n_waiting,
    )
    single(
        "vllm:kv_cache_usage_perc",
        "gauge",
        "KV-cache usage. 1 means 100 percent usage.",
        engine.tokens_held() / (settings.slots * settings.max_model_len),
    )
    # the simulated cache keeps every sequence that runs, so nothing is ever preempted
    single("vllm:num_preemptions_total", "counter", "Cumulative number of preemption from the engine.", 0)
    single(
        "vllm:prompt_tokens_total",
        "counter",
        "Number of prefill tokens processed.",
        counted.prompt_tokens.total(),
    )
    single(
        "vllm:generation_tokens_total",
        "counter",
        "Number of generation tokens processed.",
        counted.generation_tokens.total(),
    )
    name = "vllm:request_success_total"
    page.family(name, "counter", "Count of successfully processed requests.")
    for reason in _REASONS:
        page.value(name, counted.finished[reason], finished_reason=reason)
    for name, meaning, histogram in (
        ("time_to_first_token", "Histogram of time to first token in seconds.", counted.ttft[False]),
        ("inter_token_latency", "Histogram of inter-token latency in seconds.", counted.inter_token),
        ("e2e_request_latency", "Histogram of e2e request latency in seconds.", counted.e2e[False]),
        (
            "request_queue_time",
            "Histogram of time spent in WAITING phase for request.",
            counted.queue_time,
        ),
    ):
        page.family(f"vllm:{name}_seconds", "histogram", meaning)
        page.histogram(f"vllm:{name}_seconds", histogram)
    return page.text()
