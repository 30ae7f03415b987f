"""What LoadGen is told for an official run: nothing but what differs from its own mlperf.conf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lbrun.build import loadgen_settings
from lbrun.cli.compose import plan
from lbrun.config import RunSettings, load_settings
from lbrun.config.official import BENCHMARKS, relaxed_rules
from lbrun.loadgen.test import LoadGenTest

PROMPTS = (
    "lbrun's prompt template instead of the reference one",
    "lbrun's system prompt instead of the reference one",
)


def composed(tmp_path: Path, *overrides: str) -> RunSettings:
    data = tmp_path / "data.json"
    data.write_text("[]")
    job = plan(["servers=vllm_x3", f"dataset.path={data}", *overrides]).jobs[0]
    return load_settings(job.config)


@pytest.mark.parametrize("mode", ["performance", "accuracy"])
@pytest.mark.parametrize("scenario", ["offline", "server", "interactive"])
@pytest.mark.parametrize(
    ("model", "name", "interactive_name"),
    [
        ("llama3_1_8b", "llama3_1-8b", "llama3_1-8b-interactive"),
        ("gpt_oss_120b", "gpt-oss-120b", "gpt-oss-120b-interactive"),
        ("qwen3vl", "qwen3-vl-235b-a22b", "qwen3-vl-235b-a22b"),
    ],
)
def test_an_official_run_leaves_everything_to_mlperf_conf_that_stands_there(
    tmp_path: Path, model: str, name: str, interactive_name: str, scenario: str, mode: str
) -> None:
    rate = [] if scenario == "offline" else ["scenario.target_qps=20"]
    settings = composed(tmp_path, f"model={model}", f"scenario={scenario}", f"mode={mode}", *rate)
    benchmark = BENCHMARKS[settings.model.mlperf_name]
    n = benchmark.accuracy_samples if mode == "accuracy" else benchmark.performance_samples
    expected: dict[str, Any] = {} if scenario == "offline" else {"target_qps": 20}
    if scenario == "interactive" and model == "qwen3vl":  # neither limit nor set size stand in mlperf.conf
        n = 8_000
        expected |= {"target_latency": 1_500, "performance_sample_count_override": n}
        expected |= {"accuracy_sample_count_override": n} if mode == "accuracy" else {}
    if model == "gpt_oss_120b" and mode == "accuracy":  # its accuracy set is smaller than the other
        expected["performance_sample_count_override"] = n

    test = loadgen_settings(settings, n)

    assert test.model == (interactive_name if scenario == "interactive" else name)
    assert test.scenario == ("Offline" if scenario == "offline" else "Server")
    assert (test.mode, test.samples, test.seeds) == (mode, n, {})
    assert dict(test.values) == expected
    relaxed = relaxed_rules(settings, n_samples=n)
    assert relaxed == (PROMPTS if model == "qwen3vl" else ())


def test_a_data_set_of_ones_own_is_used_whole(tmp_path: Path) -> None:
    test = loadgen_settings(composed(tmp_path), 10)
    assert dict(test.values) == {"performance_sample_count_override": 10}
    test = loadgen_settings(composed(tmp_path, "mode=accuracy"), 10)
    assert dict(test.values) == {
        "performance_sample_count_override": 10,
        "accuracy_sample_count_override": 10,
    }


def test_seeds_of_ones_own_reach_loadgen_which_takes_them_from_no_user_conf(tmp_path: Path) -> None:
    settings = composed(
        tmp_path, "scenario.qsl_seed=7", "scenario.sample_seed=8", f"scenario.schedule_seed={2**64 - 1}"
    )
    test = LoadGenTest(loadgen_settings(settings, 10), tmp_path / "mlperf").test_settings
    assert (test.qsl_rng_seed, test.sample_index_rng_seed, test.schedule_rng_seed) == (7, 8, 2**64 - 1)


def test_qwen3_vl_is_official_with_both_reference_texts(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Answer in JSON.")
    (tmp_path / "user.txt").write_text("{title} {description} {categories}")
    system = f"model.chat.system_prompt_file={tmp_path / 'system.txt'}"
    user = f"model.chat.template_file={tmp_path / 'user.txt'}"
    assert relaxed_rules(composed(tmp_path, "model=qwen3vl", system, user), n_samples=48_289) == ()
    one = composed(tmp_path, "model=qwen3vl", user)
    assert relaxed_rules(one, n_samples=48_289) == PROMPTS[1:]
    turned = composed(tmp_path, "model=qwen3vl", system, user, "model.chat.image_position=before")
    assert relaxed_rules(turned, n_samples=48_289) == ("images before the text instead of after it",)
