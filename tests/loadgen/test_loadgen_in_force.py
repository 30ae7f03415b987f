"""What LoadGen says is in force: asked in a process of its own, since it reads mlperf.conf only once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lbrun.loadgen.logs import DETAIL

PROGRAM = """
import json, sys
from pathlib import Path
from lbrun.loadgen.test import LoadGenPort, LoadGenSettings, LoadGenTest
from lbrun.dispatch.ports import Finished, FirstToken

order = json.loads(sys.argv[1])
paths = {key: Path(order.pop(key)) for key in ("user_conf", "audit_conf") if key in order}
port = LoadGenPort()

def answer(ids, indices):
    port.first_tokens([FirstToken(i, b"aaaa") for i in ids])
    port.complete([Finished(i, b"aaaabbbb", 2) for i in ids])

LoadGenTest(LoadGenSettings(**order, **paths), Path(sys.argv[2])).run(answer)
"""


def in_force(tmp_path: Path, **order: Any) -> dict[str, Any]:
    """Run a test whose samples are answered at once; the values of LoadGen's detail log."""
    order = {"model": "llama3_1-8b", "scenario": "Server", "mode": "performance", "samples": 8, **order}
    order["values"] = {
        "target_qps": 1000,
        "min_duration": 0,
        "min_query_count": 8,
        "performance_sample_count_override": 8,
        **order.get("values", {}),
    }
    folder = tmp_path / "mlperf"
    subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(order), str(folder)], check=True, timeout=60)
    lines = (folder / DETAIL).read_text().splitlines()
    entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG ")]
    return {entry["key"]: entry["value"] for entry in entries}


def test_seeds_are_in_force_though_loadgen_takes_them_from_no_user_conf(tmp_path: Path) -> None:
    seeds = {"qsl_rng_seed": 11, "sample_index_rng_seed": 12, "schedule_rng_seed": 2**64 - 1}
    log = in_force(tmp_path, seeds=seeds)
    assert {key: log[f"effective_{key}"] for key in seeds} == seeds


def test_without_seeds_of_ones_own_the_rounds_are_in_force(tmp_path: Path) -> None:
    log = in_force(tmp_path)
    assert log["effective_qsl_rng_seed"] == 2085463073848966840
    assert log["effective_sample_index_rng_seed"] == 2747215439041700203
    assert log["effective_schedule_rng_seed"] == 16159082839903944936


def test_the_users_user_conf_is_in_force_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "mine.conf"
    path.write_text(
        "llama3_1-8b.Server.min_query_count = 40 # the more specific line\n*.*.min_query_count = 5\n"
        "*.Server.ttft_latency = 1234\n*.Server.coalesce_queries = 1\n"
    )
    log = in_force(tmp_path, user_conf=str(path), values={"ttft_latency": 9, "coalesce_queries": 0})
    assert log["effective_min_query_count"] == 40
    assert log["requested_server_ttft_latency"] == 1_234_000_000
    assert log["requested_server_coalesce_queries"] is True
    assert log["num_errors"] == 0


def test_a_compliance_tests_audit_config_is_in_force_over_all(tmp_path: Path) -> None:
    path = tmp_path / "audit.config"
    path.write_text(
        "*.*.mode = 2\n*.*.accuracy_log_rng_seed = 720381539243781796\n"
        "*.*.accuracy_log_sampling_target = 10000\n*.*.min_query_count = 30\n*.*.min_duration = 0\n"
        "*.*.sample_concatenate_permutation = 0\n*.*.test09_min_output_tokens = 1150.38 # 1278.2 * 0.90\n"
    )
    log = in_force(tmp_path, audit_conf=str(path))
    assert log["effective_accuracy_log_sampling_target"] == 10000
    assert log["effective_min_query_count"] == 30
    assert log["effective_sample_concatenate_permutation"] is False
    assert log["num_errors"] == 0
    logged = json.loads((tmp_path / "mlperf" / "mlperf_log_accuracy.json").read_text())
    assert len(logged) == 30


def test_an_audit_config_of_an_earlier_run_in_the_folder_is_not_applied(tmp_path: Path) -> None:
    (tmp_path / "mlperf").mkdir()
    (tmp_path / "mlperf" / "audit.config").write_text("*.*.accuracy_log_sampling_target = 100\n")
    assert in_force(tmp_path)["effective_accuracy_log_sampling_target"] == 0
