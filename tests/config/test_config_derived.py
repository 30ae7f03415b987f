"""What follows from the keys: rules, streaming, limits, LoadGen's values."""

from __future__ import annotations

from typing import Any

import pytest
from config_samples import changed

from lbrun.config import RunSettings, load_settings


def settings(**values: Any) -> RunSettings:
    return load_settings(changed(**values), environ={})


SERVER = {"scenario__name": "server", "scenario__loadgen": "Server", "scenario__target_qps": 5}
EMBEDDED = {"servers__urls": [], "servers__embedded": {}}


def test_real_servers_run_by_mlperfs_rules_and_embedded_ones_as_a_trial() -> None:
    assert not settings().trial
    assert settings(**EMBEDDED).trial
    assert settings(rules="trial").trial
    assert not settings(rules="mlperf", **EMBEDDED).trial


def test_a_trial_fills_nulls_only() -> None:
    trial = {"min_query_count": 100, "target_qps": 50}
    values = settings(rules="trial", scenario__trial=trial, scenario__min_query_count=7).loadgen_values
    assert (values.min_query_count, values.target_qps, values.min_duration_s) == (7, 50, 0)


def test_mlperfs_own_values_are_left_to_loadgen() -> None:
    values = settings(scenario__trial={"min_query_count": 100}).loadgen_values
    assert all(getattr(values, name) is None for name in values.__slots__)


def test_a_models_own_limits_hold_for_their_scenario_and_give_way_to_the_user() -> None:
    interactive = {**SERVER, "scenario__name": "interactive"}
    limits = {"interactive": {"latency_limit_ms": 1500}}
    assert settings(model__limits=limits, **interactive).loadgen_values.latency_limit_ms == 1500
    assert settings(model__limits=limits, **SERVER).loadgen_values.latency_limit_ms is None
    own = settings(model__limits=limits, scenario__latency_limit_ms=9, **interactive)
    assert own.loadgen_values.latency_limit_ms == 9


def test_interactive_goes_by_its_own_name_in_mlperf_conf() -> None:
    assert settings(**SERVER).loadgen_model_name == "llama3_1-8b"
    assert (
        settings(**{**SERVER, "scenario__name": "interactive"}).loadgen_model_name
        == "llama3_1-8b-interactive"
    )


def test_answers_are_streamed_where_the_first_token_counts() -> None:
    assert not settings().streaming
    assert settings(**SERVER).streaming
    assert settings(scenario__stream=True).streaming


@pytest.mark.parametrize(
    ("limit", "offline", "server"), [("auto", 256, None), (None, None, None), (8, 8, 8), ("12", 12, 12)]
)
def test_requests_in_flight_are_limited_by_scenario_unless_said(
    limit: object, offline: int | None, server: int | None
) -> None:
    assert settings(servers__max_in_flight=limit).max_in_flight == offline
    assert settings(servers__max_in_flight=limit, **SERVER).max_in_flight == server


def test_accuracy_runs_lay_their_sampling_over_the_usual_one() -> None:
    values = {"model__sampling_accuracy": {"max_tokens": 9}}
    assert settings(**values).effective_sampling["max_tokens"] == 128
    accuracy = settings(mode="accuracy", **values).effective_sampling
    assert accuracy["max_tokens"] == 9
    assert accuracy["seed"] == 42
    assert "min_p" not in accuracy


def test_the_served_model_is_the_hugging_face_id_unless_said() -> None:
    assert settings().served_model == "meta-llama/Llama-3.1-8B-Instruct"
    assert settings(servers__served_model="mine").served_model == "mine"


def test_servers_join_late_in_trials_only_unless_said() -> None:
    assert not settings().late_join
    assert settings(rules="trial").late_join
    assert settings(servers__late_join=True).late_join


def test_server_scenarios_need_a_rate() -> None:
    with pytest.raises(Exception, match=r"^scenario.target_qps: it is not set"):
        settings(scenario__name="server", scenario__loadgen="Server")


def test_interactive_needs_limits_from_somewhere() -> None:
    values = {**SERVER, "scenario__name": "interactive", "model__mlperf_name_interactive": None}
    with pytest.raises(Exception, match="has no interactive limits"):
        settings(**values)
    assert settings(scenario__latency_limit_ms=1500, **values)


def test_settings_never_change() -> None:
    with pytest.raises(Exception, match="frozen"):
        settings().servers.min_ready = 3  # type: ignore[misc]
