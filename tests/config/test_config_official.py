"""A run is official only when nothing is relaxed, and says what is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from config_samples import changed

from lbrun.config import RunSettings, load_settings
from lbrun.config.official import relaxed_rules


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "cnn_eval.json"
    path.write_text("[]")
    return path


def settings(data: Path | None, **values: Any) -> RunSettings:
    return load_settings(changed(dataset__path=data and str(data), **values), environ={})


def test_a_run_that_changes_nothing_is_official(data: Path) -> None:
    assert relaxed_rules(settings(data)) == ()
    assert relaxed_rules(settings(data, mode="accuracy")) == ()


SERVER = {"scenario__name": "server", "scenario__loadgen": "Server", "scenario__target_qps": 5}


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ({"scenario__min_duration_s": 10}, "minimum duration 10 s instead of 600 s"),
        ({"scenario__max_duration_s": 700}, "maximum duration 700 s instead of none"),
        ({"scenario__min_query_count": 1000}, "at least 1,000 samples instead of 13,368"),
        ({"scenario__min_query_count": 99, **SERVER}, "at least 99 queries instead of 100"),
        ({"scenario__max_query_count": 20_000}, "at most 20,000 queries instead of no limit"),
        ({"scenario__ttft_limit_ms": 5000, **SERVER}, "TTFT limit 5,000 ms instead of 2,000 ms"),
        ({"scenario__tpot_limit_ms": 200, **SERVER}, "TPOT limit 200 ms instead of 100 ms"),
        ({"scenario__percentile": 0.5, **SERVER}, "limits at the 50th percentile instead of the 99th"),
        ({"scenario__qsl_seed": 1}, "qsl_seed instead of the round's own"),
        ({"model__sampling__temperature": 0.7}, "temperature 0.7 instead of 0"),
        ({"model__sampling__seed": None}, "seed not sent instead of 42"),
        ({"model__sampling__min_p": 0.1}, "min_p 0.1 instead of not sent"),
        ({"model__extra_body": {"ignore_eos": True}}, "further request fields: ignore_eos"),
        ({"dataset__max_samples": 100}, "100 samples of the data set instead of 13,368"),
        ({"servers__late_join": True}, "servers may join late"),
    ],
)
def test_each_relaxed_rule_is_named(data: Path, values: dict[str, Any], phrase: str) -> None:
    assert relaxed_rules(settings(data, **values)) == (phrase,)


@pytest.mark.parametrize(
    "values",
    [
        {"scenario__min_duration_s": 1200},
        {"scenario__min_query_count": 20_000},
        {"scenario__ttft_limit_ms": 1000, **SERVER},
        {"scenario__target_qps": 40},
        {"dataset__max_samples": 13_368},
        {"scenario__coalesce_queries": True},
    ],
)
def test_stricter_or_free_values_relax_nothing(data: Path, values: dict[str, Any]) -> None:
    assert relaxed_rules(settings(data, **values)) == ()


def test_an_embedded_trial_says_so() -> None:
    raw = {"servers__urls": [], "servers__embedded": {}, "scenario__trial": {"min_query_count": 1000}}
    assert relaxed_rules(settings(None, **raw)) == (
        "embedded servers instead of real ones",
        "lbrun's sample data instead of the official data set",
        "minimum duration 0 s instead of 600 s",
        "at least 1,000 samples instead of 13,368",
    )


def test_the_users_user_conf_counts_and_wins(data: Path) -> None:
    run = settings(data, scenario__min_duration_s=10)
    assert relaxed_rules(run, {"min_duration": "600000", "target_qps": "12"}) == ()
    assert relaxed_rules(settings(data), {"min_duration": "60000"}) == (
        "minimum duration 60 s instead of 600 s",
    )
    assert relaxed_rules(settings(data), {"performance_sample_count_override": "5"}) == (
        "user.conf sets performance_sample_count_override",
    )
    assert relaxed_rules(settings(data, **SERVER), {"target_latency_percentile": "90"}) == (
        "limits at the 90th percentile instead of the 99th",
    )


def test_sizes_in_user_conf_that_are_the_official_ones_relax_nothing(data: Path) -> None:
    assert relaxed_rules(settings(data), {"performance_sample_count_override": "13368"}) == ()


def test_what_a_backend_is_not_sent_is_relaxed_unless_sent_by_other_means(data: Path) -> None:
    run = settings(data, servers__backend="openai")
    assert relaxed_rules(run, left_out=("top_k", "min_tokens")) == (
        "top_k not sent instead of 1",
        "min_tokens not sent instead of 1",
    )
    run = settings(data, servers__backend="openai", model__extra_body={"top_k": 1, "min_tokens": 1})
    assert relaxed_rules(run, left_out=("top_k", "min_tokens")) == ()


def test_other_prompts_than_the_data_sets_own_are_relaxed(data: Path) -> None:
    assert relaxed_rules(settings(data, model__prompt="text")) == (
        "prompts as text instead of the data set's token ids",
    )
    assert relaxed_rules(settings(data, model__request_format="chat")) == (
        "chat messages instead of the data set's own prompts",
    )


def test_interactive_limits_are_judged_by_the_name_that_loadgen_gets(data: Path) -> None:
    values = {**SERVER, "scenario__name": "interactive"}
    assert relaxed_rules(settings(data, **values)) == ()
    assert relaxed_rules(
        settings(data, model__mlperf_name_interactive=None, scenario__ttft_limit_ms=500, **values)
    ) == ("TPOT limit 100 ms instead of 30 ms",)
    assert relaxed_rules(
        settings(data, model__mlperf_name_interactive="llama2-70b-interactive", **values)
    ) == ("LoadGen's settings are those of llama2-70b-interactive",)


def test_text_in_the_accuracy_log_of_a_text_model_is_relaxed(data: Path) -> None:
    assert relaxed_rules(settings(data, model__payload="text")) == ()
    assert relaxed_rules(settings(data, model__payload="text", mode="accuracy")) == (
        "answers logged as text instead of token_ids",
    )


def test_token_latencies_are_the_benchmarks_own(data: Path) -> None:
    assert relaxed_rules(settings(data), {"use_token_latencies": "1"}) == ()
    assert relaxed_rules(settings(data), {"use_token_latencies": "0"}) == (
        "user.conf sets use_token_latencies to 0",
    )


def test_a_data_file_of_another_size_is_not_the_official_one(data: Path) -> None:
    assert relaxed_rules(settings(data), n_samples=13_368) == ()
    assert relaxed_rules(settings(data), n_samples=10) == ("a data set of 10 samples instead of 13,368",)
    assert relaxed_rules(settings(data, dataset__max_samples=10), n_samples=10) == (
        "a data set of 10 samples instead of 13,368",
    )


def test_a_compliance_test_is_no_performance_result(data: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit.config"
    audit.write_text("*.*.mode = 2\n")
    assert relaxed_rules(settings(data, scenario__audit_conf=str(audit))) == (
        "a compliance test by audit.config",
    )


def test_a_model_outside_mlperf_is_never_official(data: Path) -> None:
    assert relaxed_rules(settings(data, model__mlperf_name="mine", model__name="mine")) == (
        "mine is not a benchmark of MLPerf",
    )
