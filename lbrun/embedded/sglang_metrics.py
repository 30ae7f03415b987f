"""SGLang's page of metrics."""

from __future__ import annotations

from lbrun.embedded.engine import Engine
from lbrun.embedded.metrics import Exposition
from lbrun.embedded.settings import ServerSettings

_RANK = {"moe_ep_rank": "0", "pp_rank": "0", "tp_rank": "0"}


def sglang_metrics(engine: Engine, settings: ServerSettings) -> bytes:
    """The text of /metrics."""
    counted = engine.metrics
    page = Exposition({"engine_type": "unified", "model_name": settings.model})
    held, capacity = engine.tokens_held(), settings.slots * settings.max_model_len
    for name, meaning, value in (
        ("max_total_num_tokens", "Maximum total number of tokens in the KV cache pool.", capacity),
        ("context_len", "Maximum context length.", settings.max_model_len),
        ("num_running_reqs", "The number of running requests.", engine.n_running),
        ("num_queue_reqs", "The number of requests in the waiting queue.", engine.n_waiting),
        ("gen_throughput", "The generation throughput (token/s).", engine.tokens_per_s()),
        ("cache_hit_rate", "The prefix cache hit rate.", 0),  # the simulated engine has no prefix cache
        ("token_usage", "The token usage.", held / capacity),
        ("num_used_tokens", "The number of used tokens.", held),
        ("utilization", "The utilization.", engine.n_running / settings.slots),
    ):
        page.family(f"sglang:{name}", "gauge", meaning)
        page.value(f"sglang:{name}", value, **_RANK)
    page.family("sglang:queue_time_seconds", "histogram", "Histogram of queueing time in seconds.")
    page.histogram("sglang:queue_time_seconds", counted.queue_time, **_RANK)

    seen = [streamed for streamed in (False, True) if counted.requests[streamed]]
    for name, meaning, histograms in (
        ("time_to_first_token", "Histogram of time to first token in seconds.", counted.ttft),
        ("e2e_request_latency", "Histogram of End-to-end request latency in seconds", counted.e2e),
    ):
        page.family(f"sglang:{name}_seconds", "histogram", meaning)
        for streamed in seen:
            labels = {"is_streaming": str(streamed).lower()}
            page.histogram(f"sglang:{name}_seconds", histograms[streamed], **labels)
    for name, meaning, counter in (
        ("prompt_tokens_total", "Number of prefill tokens processed.", counted.prompt_tokens),
        ("generation_tokens_total", "Number of generation tokens processed.", counted.generation_tokens),
        ("num_requests_total", "Number of requests processed.", counted.requests),
    ):
        page.family(f"sglang:{name}", "counter", meaning)
        for streamed in seen:
            page.value(f"sglang:{name}", counter[streamed], is_streaming=str(streamed).lower())
    return page.text()
