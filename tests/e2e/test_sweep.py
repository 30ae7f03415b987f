"""Several runs from one command: each as good as if it were alone, and a comparison of them all."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from embedded_servers import Servers
from lbrun_process import SMALL, SMALL_SERVER, Ended, Lbrun, loadgen_log

Pool = Callable[..., Servers]

FAST = {"ttft_base_ms": 2.0, "ttft_per_token_us": 0.0, "tpot_ms": 0.5}


def jobs(sweep: Ended) -> list[dict[str, Any]]:
    """The rows of sweep.json, which are those of sweep.csv and of the table on the terminal as well."""
    rows: list[dict[str, Any]] = json.loads((sweep.folder / "sweep.json").read_text())["jobs"]
    with (sweep.folder / "sweep.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["folder"], row["verdict"]) for row in table] == [(r["folder"], r["verdict"]) for r in rows]
    for row in rows:
        assert re.search(rf"^{row['folder']} .*\b{row['verdict']}\b", sweep.out, re.MULTILINE), sweep.out
    return rows


def job(sweep: Ended, folder: str) -> Path:
    return sweep.folder / folder


def test_strategies_by_scenarios_run_under_the_same_rules_and_end_in_a_comparison(
    lbrun: Lbrun, healthy: Pool
) -> None:
    ended = lbrun("-m", "strategy=round_robin,random", "scenario=offline,server", healthy().override,
                  "rules=trial", *SMALL_SERVER, folder="sweep")  # fmt: skip
    assert ended.status == 0, ended.err + ended.out
    rows = jobs(ended)
    assert [row["folder"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["verdict"] for row in rows] == ["VALID"] * 4
    wanted = [(s, c) for s in ("round_robin", "random") for c in ("offline", "server")]
    for row, (strategy, scenario) in zip(rows, wanted, strict=True):
        assert f"strategy={strategy} scenario={scenario}" in row["overrides"]
        assert (row["samples"], row["failed"]) == (24, 0)
        assert row["output_tokens_per_s"] > 0
        assert (row["ttft_p99_ms"] is None) is (scenario == "offline")
        result = json.loads((job(ended, row["folder"]) / "result.json").read_text())
        assert (result["strategy"], result["scenario"]) == (strategy, scenario)
    assert "4 jobs: 4 VALID" in ended.out
    check_same_rules(ended, "0", "2")
    check_same_rules(ended, "1", "3")


def check_same_rules(sweep: Ended, first: str, later: str) -> None:
    """LoadGen reads MLPerf's own settings for the first test of a process only: all jobs have got them."""
    logs = [loadgen_log(job(sweep, folder)) for folder in (first, later)]
    rules = [{key: v for key, v in log.items() if key.startswith("effective_")} for log in logs]
    assert rules[0] == rules[1]
    for seed in ("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"):
        assert rules[0][f"effective_{seed}"][0] > 0
    for folder in (first, later):
        summary = (job(sweep, folder) / "mlperf" / "mlperf_log_summary.txt").read_text()
        assert "ttft_latency (ns): 2000000000" in summary
        assert "tpot_latency (ns): 100000000" in summary
    assert not any("Multiple conf files" in json.dumps(log) for log in logs)


@pytest.fixture
def three(serve: Pool) -> Servers:
    """Three servers, of which the second is down."""
    servers = serve(count=3, **FAST)
    servers.kill(1)
    return servers


def test_a_failed_job_stops_no_other_and_is_run_again_with_the_sweep(lbrun: Lbrun, three: Servers) -> None:
    command = ("-m", "servers.urls=" + ",".join(f"[{url}]" for url in three.urls), "rules=trial",
               "servers.ready_timeout_s=1", *SMALL)  # fmt: skip
    first = lbrun(*command, folder="sweep")
    assert first.status == 1
    rows = jobs(first)
    assert [row["verdict"] for row in rows] == ["VALID", "FAILED", "VALID"]
    assert rows[1]["error"].startswith("No API servers became ready")
    assert "3 jobs: 2 VALID, 1 FAILED" in first.out
    assert first.complaint[0].startswith("lbrun: No API servers became ready")
    begun = [json.loads((job(first, f) / "result.json").read_text())["started_at"] for f in "012"]

    three.restart(1)
    asked = [three.finished(server) for server in range(3)]
    again = lbrun(*command, folder="sweep")
    assert again.status == 0, again.err + again.out
    assert [row["verdict"] for row in jobs(again)] == ["VALID"] * 3
    assert re.findall(r"job (\d) of 3: .*finished before, not run again", again.out) == ["1", "3"]
    assert [three.finished(server) - asked[server] for server in range(3)] == [0, 25, 0]
    after = [json.loads((job(again, f) / "result.json").read_text())["started_at"] for f in "012"]
    assert (after[0], after[2]) == (begun[0], begun[2])


def test_a_job_whose_data_is_wrong_stops_no_other(lbrun: Lbrun, healthy: Pool) -> None:
    (lbrun.base / "good.jsonl").write_text('{"tok_input": [1, 2, 3]}\n' * 8)
    (lbrun.base / "bad.jsonl").write_text('{"tok_input": [1, 2, "3"]}\n' * 8)
    ended = lbrun("-m", "dataset.path=good.jsonl,bad.jsonl,good.jsonl", healthy().override, "rules=trial",
                  "scenario.trial.min_query_count=8", "strategy=round_robin", folder="sweep")  # fmt: skip
    assert ended.status == 2
    rows = jobs(ended)
    assert [row["verdict"] for row in rows] == ["VALID", "FAILED", "VALID"]
    assert "bad.jsonl, row 0, column 'tok_input'" in rows[1]["error"]


def test_a_mistake_in_one_job_is_told_before_any_has_run(lbrun: Lbrun, healthy: Pool) -> None:
    ended = lbrun("-m", "strategy=round_robin,rnadom", healthy().override, folder="sweep")
    assert ended.status == 2
    assert "rnadom" in ended.complaint[0]
    assert not ended.folder.exists()
