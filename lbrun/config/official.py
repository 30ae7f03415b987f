"""Which of MLPerf's rules a run relaxes, so that nobody takes a trial for a result.

The figures are those of mlcommons/inference for round v6.1: mlperf.conf, and the reference
implementations of the three benchmarks. A run is *official* when nothing is relaxed. What the servers do
(prefix caching, quantisation) cannot be seen from here and is not judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lbrun.config.schema import RunSettings

MIN_DURATION_S = 600
PERCENTILE = 0.99
MIN_QUERIES = 100
"""LoadGen's own, where mlperf.conf has no other; early stopping asks for more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Latency limits at the 99th percentile, in milliseconds; None: not limited."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark's rules. offline_samples: LoadGen's minimum in the Offline scenario.

    sampling_accuracy holds what differs from sampling with mode=accuracy. Interactive runs of some
    benchmarks use a smaller data set. instruction_in_ids: only the prompt as token ids has the reference
    instruction in it; the text beside it is the bare article.
    """

    performance_samples: int
    accuracy_samples: int
    limits: Mapping[str, Limits]
    offline_samples: int | None = None
    interactive_samples: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    sampling_accuracy: Mapping[str, Any] = field(default_factory=dict)
    own_template: bool = False
    instruction_in_ids: bool = False

    @property
    def token_latencies(self) -> bool:
        """Whether the limits are those of tokens, and LoadGen counts tokens."""
        return self.limits["server"].ttft_ms is not None


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "llama3_1-8b": Benchmark(
            performance_samples=13_368,
            accuracy_samples=13_368,
            offline_samples=13_368,
            limits={"server": Limits(2_000, 100), "interactive": Limits(500, 30)},
            sampling={
                "temperature": 0,
                "top_p": 1,
                "top_k": 1,
                "seed": 42,
                "max_tokens": 128,
                "min_tokens": 1,
            },
            instruction_in_ids=True,
        ),
        "gpt-oss-120b": Benchmark(
            performance_samples=6_396,
            accuracy_samples=4_395,
            limits={"server": Limits(3_000, 80), "interactive": Limits(2_000, 15)},
            sampling={"temperature": 1, "top_p": 1, "top_k": -1, "max_tokens": 10_240},
            sampling_accuracy={"max_tokens": 32_768},
        ),
        "qwen3-vl-235b-a22b": Benchmark(
            performance_samples=48_289,
            accuracy_samples=48_289,
            offline_samples=48_289,
            interactive_samples=8_000,
            limits={"server": Limits(latency_ms=12_000), "interactive": Limits(latency_ms=1_500)},
            own_template=True,
        ),
    }
)

# Keys of user.conf that a submission sets by itself, and those that are compared below.
_FREE_KEYS = {"target_qps", "coalesce_queries"}
_SIZES = {"performance_sample_count_override", "accuracy_sample_count_override"}
_COMPARED = {
    "min_duration": ("min_duration_s", 1e-3),
    "max_duration": ("max_duration_s", 1e-3),
    "min_query_count": ("min_query_count", 1),
    "max_query_count": ("max_query_count", 1),
    "ttft_latency": ("ttft_limit_ms", 1),
    "tpot_latency": ("tpot_limit_ms", 1),
    "target_latency": ("latency_limit_ms", 1),
    "target_latency_percentile": ("percentile", 1e-2),
}


def relaxed_rules(
    settings: RunSettings,
    user_conf: Mapping[str, str] | None = None,
    *,
    n_samples: int | None = None,
    left_out: Collection[str] = (),
) -> tuple[str, ...]:
    """The rules that a run relaxes, one short phrase each; empty for an official run.

    user_conf: LoadGen keys and values of the user's own user.conf, those that apply to this test.
    n_samples: of the data set as it was read; None where it was not. left_out: sampling keys that are not
    sent, since the servers' backend does not take them.
    """
    benchmark = BENCHMARKS.get(settings.model.mlperf_name)
    if benchmark is None:
        return (f"{settings.model.name} is not a benchmark of MLPerf",)
    values = {key: getattr(settings.loadgen_values, key) for key in settings.loadgen_values.__slots__}
    other = []
    for key, text in (user_conf or {}).items():
        if key in _COMPARED:
            name, scale = _COMPARED[key]
            values[name] = float(text) * scale
        elif key == "use_token_latencies":
            if text != str(int(benchmark.token_latencies)):
                other.append(f"{key} to {text}")
        elif key not in _FREE_KEYS and not (key in _SIZES and text == str(_n_official(settings, benchmark))):
            other.append(key)
    return (
        *_loadgen_model(settings),
        *_pool(settings),
        *_data(settings, benchmark, n_samples),
        *(_length(settings, benchmark, values) if settings.mode == "performance" else ()),
        *_latencies(settings, benchmark, values),
        *_seeds(values),
        *_sampling(settings, benchmark, left_out),
        *_prompt(settings, benchmark),
        *_payload(settings, benchmark),
        *(f"user.conf sets {key}" for key in other),
        # whose settings LoadGen puts over all others: a test of its own, and no performance result
        *(("a compliance test by audit.config",) if settings.scenario.audit_conf is not None else ()),
    )


def _pool(s: RunSettings) -> Iterator[str]:
    if s.servers.embedded is not None:
        yield "embedded servers instead of real ones"
    if s.late_join and s.servers.embedded is None:
        yield "servers may join late"


def _loadgen_model(s: RunSettings) -> Iterator[str]:
    name = s.loadgen_model_name
    if name not in (s.model.mlperf_name, f"{s.model.mlperf_name}-interactive"):
        yield f"LoadGen's settings are those of {name}"


def _n_official(s: RunSettings, benchmark: Benchmark) -> int:
    if s.scenario.name == "interactive" and benchmark.interactive_samples:
        return benchmark.interactive_samples
    return benchmark.accuracy_samples if s.mode == "accuracy" else benchmark.performance_samples


def _data(s: RunSettings, benchmark: Benchmark, n_samples: int | None) -> Iterator[str]:
    samples = _n_official(s, benchmark)
    own = s.dataset.path
    if s.mode == "accuracy" and s.dataset.accuracy_path is not None:
        own = s.dataset.accuracy_path
    if own is None:
        yield "lbrun's sample data instead of the official data set"
    elif n_samples is None:
        if s.dataset.max_samples is not None and s.dataset.max_samples < samples:
            yield f"{s.dataset.max_samples:,} samples of the data set instead of {samples:,}"
    elif n_samples != samples:
        yield f"a data set of {n_samples:,} samples instead of {samples:,}"


def _length(s: RunSettings, benchmark: Benchmark, values: Mapping[str, Any]) -> Iterator[str]:
    shortest = values["min_duration_s"]
    if shortest is not None and shortest < MIN_DURATION_S:
        yield f"minimum duration {shortest:g} s instead of {MIN_DURATION_S} s"
    longest = values["max_duration_s"]
    if longest:
        yield f"maximum duration {longest:g} s instead of none"
    fewest, least, what = values["min_query_count"], benchmark.offline_samples, "samples"
    if s.scenario.name != "offline":
        least, what = MIN_QUERIES, "queries"
    if least is not None and fewest is not None and fewest < least:
        yield f"at least {fewest:,.0f} {what} instead of {least:,}"
    most = values["max_query_count"]
    if most:
        yield f"at most {most:,.0f} queries instead of no limit"


def _latencies(s: RunSettings, benchmark: Benchmark, values: Mapping[str, Any]) -> Iterator[str]:
    limits = benchmark.limits.get(s.scenario.name)
    if limits is None or s.mode != "performance":
        return
    # without a value of its own a run has those that mlperf.conf has under the model's name
    in_conf = limits if s.loadgen_model_name != s.model.mlperf_name else benchmark.limits["server"]
    for key, official, unless_set, name in (
        ("ttft_limit_ms", limits.ttft_ms, in_conf.ttft_ms, "TTFT"),
        ("tpot_limit_ms", limits.tpot_ms, in_conf.tpot_ms, "TPOT"),
        ("latency_limit_ms", limits.latency_ms, in_conf.latency_ms, "latency"),
    ):
        own = unless_set if values[key] is None else values[key]
        if own is not None and official is not None and own > official:
            yield f"{name} limit {own:,.10g} ms instead of {official:,.10g} ms"
    percentile = values["percentile"]
    if percentile is not None and percentile < PERCENTILE:
        yield f"limits at the {percentile * 100:g}th percentile instead of the 99th"


def _seeds(values: Mapping[str, Any]) -> Iterator[str]:
    names = [key for key in ("qsl_seed", "sample_seed", "schedule_seed") if values[key] is not None]
    if names:
        yield f"{', '.join(names)} instead of the round's own"


def _sampling(s: RunSettings, benchmark: Benchmark, left_out: Collection[str]) -> Iterator[str]:
    official = dict(benchmark.sampling)
    if s.mode == "accuracy":
        official |= benchmark.sampling_accuracy
    own = {key: value for key, value in s.effective_sampling.items() if key not in left_out}
    extra = s.model.extra_body
    sent = own | extra
    for key in dict.fromkeys((*official, *own)):
        if sent.get(key) != official.get(key):
            yield f"{key} {_sent(sent.get(key))} instead of {_sent(official.get(key))}"
    further = [key for key in extra if key not in official]
    if further:
        yield f"further request fields: {', '.join(further)}"


def _prompt(s: RunSettings, benchmark: Benchmark) -> Iterator[str]:
    chat = s.model.chat
    if not benchmark.own_template:
        if (s.model.request_format or s.model.formats.get(s.servers.backend)) == "chat":
            yield "chat messages instead of the data set's own prompts"
        elif benchmark.instruction_in_ids and s.model.prompt == "text":
            yield "prompts as text instead of the data set's token ids"
        return
    if chat.input != "product":
        yield f"prompts from {chat.input} instead of the reference one"
        return
    if chat.template_file is None:
        yield "lbrun's prompt template instead of the reference one"
    if chat.system_prompt_file is None:
        yield "lbrun's system prompt instead of the reference one"
    if chat.image_position == "before":
        yield "images before the text instead of after it"
    if chat.guided_json_schema is not None:
        yield "guided decoding"


def _payload(s: RunSettings, benchmark: Benchmark) -> Iterator[str]:
    wanted = "token_ids" if benchmark.token_latencies else "text"
    if s.mode == "accuracy" and s.model.payload != wanted:
        yield f"answers logged as {s.model.payload} instead of {wanted}"


def _sent(value: Any) -> str:
    return "not sent" if value is None else f"{value}"
