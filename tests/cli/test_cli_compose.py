"""Every combination of groups composes and is valid, and so do the commands of the README."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from lbrun.cli.compose import plan
from lbrun.cli.conf_dir import group_options
from lbrun.config import RunSettings, load_settings
from lbrun.config.official import relaxed_rules

GROUPS = group_options()
COMBINATIONS = list(itertools.product(*(GROUPS[name] for name in ("model", "servers", "scenario"))))


def settings_of(*overrides: str, multirun: bool = False) -> list[RunSettings]:
    jobs = plan(overrides, multirun=multirun).jobs
    return [load_settings(job.config, environ={}) for job in jobs]


@pytest.mark.parametrize(("model", "servers", "scenario"), COMBINATIONS)
def test_every_model_pool_and_scenario_go_together(model: str, servers: str, scenario: str) -> None:
    rate = [] if servers == "embedded" or scenario == "offline" else ["scenario.target_qps=3"]
    (settings,) = settings_of(f"model={model}", f"servers={servers}", f"scenario={scenario}", *rate)
    assert settings.trial == (servers == "embedded")
    assert settings.streaming == (scenario != "offline")
    assert settings.max_in_flight == (256 if scenario == "offline" else None)


def test_every_strategy_goes_with_every_mode() -> None:
    strategies = GROUPS["strategy"]
    found = settings_of(f"strategy={','.join(strategies)}", "mode=performance,accuracy", multirun=True)
    assert [(s.strategy.name, s.mode) for s in found] == list(
        itertools.product(strategies, ("performance", "accuracy"))
    )


def test_gpt_oss_speaks_generate_to_sglang_only() -> None:
    (sglang,) = settings_of("model=gpt_oss_120b", "servers=sglang_x3")
    assert sglang.model.formats[sglang.servers.backend] == "sglang_generate"
    (embedded,) = settings_of("scenario=interactive", "model=gpt_oss_120b")
    assert embedded.model.formats[embedded.servers.backend] == "completions"
    assert embedded.loadgen_model_name == "gpt-oss-120b-interactive"


def test_urls_on_the_command_line_are_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cnn_eval.json").write_text("[]")
    (settings,) = settings_of(
        "servers.urls=[http://a:8000,http://b:8000]", "model=llama3_1_8b", "dataset.path=./cnn_eval.json"
    )
    assert settings.servers.urls == ("http://a:8000", "http://b:8000")
    assert settings.servers.embedded is None
    assert settings.servers.ready_timeout_s == 600  # real servers load for minutes
    assert relaxed_rules(settings) == ()


def test_the_default_is_a_short_trial_on_three_embedded_servers() -> None:
    (settings,) = settings_of()
    assert settings.trial
    assert settings.servers.n_servers == 3
    values = settings.loadgen_values
    assert (values.min_query_count, values.min_duration_s) == (1000, 0)


def test_a_server_trial_has_a_rate_that_can_be_overridden() -> None:
    (default,) = settings_of("scenario=server")
    assert (default.loadgen_values.target_qps, default.loadgen_values.min_query_count) == (50, 600)
    (own,) = settings_of("scenario=server", "scenario.target_qps=20", "strategy=least_outstanding")
    assert own.loadgen_values.target_qps == 20


def test_a_sweep_has_a_job_for_each_combination_in_order() -> None:
    planned = plan(["strategy=round_robin,random", "scenario=offline,server"], multirun=True)
    assert planned.sweep
    assert [job.overrides for job in planned.jobs] == [
        ("strategy=round_robin", "scenario=offline"),
        ("strategy=round_robin", "scenario=server"),
        ("strategy=random", "scenario=offline"),
        ("strategy=random", "scenario=server"),
    ]


def test_sweeps_expand_globs_and_ranges_as_hydra_does() -> None:
    planned = plan(["strategy=glob(r*)", "strategy.seed=range(1,3)"], multirun=True)
    assert [job.overrides for job in planned.jobs] == [
        ("strategy=random", "strategy.seed=1"),
        ("strategy=random", "strategy.seed=2"),
        ("strategy=round_robin", "strategy.seed=1"),
        ("strategy=round_robin", "strategy.seed=2"),
    ]


def test_experiments_give_way_to_the_command_line() -> None:
    (settings,) = settings_of("experiment=unequal_pool")
    assert settings.strategy.name == "least_outstanding"
    assert settings.servers.embedded is not None
    assert settings.servers.embedded.speeds == (1, 1, 0.33)
    (settings,) = settings_of("experiment=unequal_pool", "strategy=random")
    assert settings.strategy.name == "random"


def test_users_own_groups_experiments_and_sweeps_come_from_their_folder(tmp_path: Path) -> None:
    own = tmp_path / "it's mine"
    for group in ("servers", "experiment"):
        (own / group).mkdir(parents=True)
    (own / "servers" / "mypool.yaml").write_text("urls: [http://gpu1:1]\nbackend: sglang\n")
    (own / "experiment" / "night.yaml").write_text(
        "# @package _global_\ndefaults: [override /servers: mypool]\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {strategy: 'round_robin,random'}}}\n"
    )
    (job,) = plan(["servers=mypool"], config_dir=own).jobs
    settings = load_settings(job.config, environ={})
    assert (settings.servers.urls, settings.servers.backend) == (("http://gpu1:1",), "sglang")
    night = plan(["experiment=night"], config_dir=own)
    assert night.sweep
    assert [load_settings(job.config, environ={}).strategy.name for job in night.jobs] == [
        "round_robin",
        "random",
    ]


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBRUN_TEST_MODEL", "mine")
    (settings,) = settings_of("servers=local", "servers.served_model=${oc.env:LBRUN_TEST_MODEL}")
    assert settings.served_model == "mine"
