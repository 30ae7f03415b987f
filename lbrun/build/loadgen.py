"""A run's test, in LoadGen's words."""

from __future__ import annotations

from lbrun.config import RunSettings
from lbrun.loadgen.test import LoadGenSettings


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
