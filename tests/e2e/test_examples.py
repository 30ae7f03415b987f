"""What the README and the help show, run as written, and every model in every scenario."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from embedded_servers import Servers
from lbrun_process import RESULT_KEYS, SMALL, SMALL_SERVER, Ended, Lbrun, loadgen_log

from lbrun.datasets import bundled

Pool = Callable[..., Servers]

ROWS = 24
NAMES = {"llama3_1_8b": "llama3.1-8b", "gpt_oss_120b": "gpt-oss-120b", "qwen3vl": "qwen3-vl-235b-a22b"}


def check_valid(ended: Ended, samples: int | None = None) -> dict[str, Any]:
    """The run is VALID, and everything that it says of itself fits together; returns result.json."""
    assert ended.status == 0, ended.err + ended.out
    result = ended.check_books()
    assert result["verdict"] == "VALID"
    assert result["state"] == "finished"
    assert not result["official"]
    assert result["relaxed"]
    if samples is not None:
        assert result["samples"] == {"issued": samples, "completed": samples, "failed": 0}
    assert (ended.folder / "summary.txt").read_text() == ended.out
    return result


# the commands of the README


def test_the_command_alone_runs_a_valid_trial_and_leaves_everything_it_names(lbrun: Lbrun) -> None:
    ended = lbrun.start_plain(env={"PYTHONWARNINGS": "default"}).wait()
    (result_file,) = (lbrun.base / "outputs").glob("*/*/result.json")
    ended = Ended(ended.status, ended.out, ended.err, result_file.parent)
    result = check_valid(ended, samples=1024)
    assert result.keys() >= RESULT_KEYS
    assert (result["model"], result["scenario"], result["mode"]) == ("llama3.1-8b", "offline", "performance")
    assert result["strategy"] == "round_robin"
    assert result["metrics"]["output_tokens"] > 0
    assert [server["requests"] > 300 for server in result["servers"]] == [True] * 3
    for name in ("requests.parquet", "events.jsonl", "report.html", "lbrun.log", "summary.txt"):
        assert (ended.folder / name).stat().st_size > 0, name
    assert not (ended.folder / "requests.arrows").exists()
    assert (ended.folder / "mlperf" / "mlperf_log_summary.txt").is_file()
    assert ended.headline.startswith("VALID, trial (embedded servers instead of real ones; ")
    assert not ended.told
    assert "1,024 / 1,024 (100.0 %)" in ended.err


def test_gpt_oss_on_three_sglang_servers(lbrun: Lbrun, healthy: Pool) -> None:
    pool = healthy(model="gpt_oss_120b", backend="sglang", count=3)
    result = check_valid(
        lbrun("model=gpt_oss_120b", "servers=sglang_x3", pool.override, "rules=trial", *SMALL), ROWS
    )
    assert result["model"] == "gpt-oss-120b"
    assert result["config"]["servers"]["backend"] == "sglang"
    assert [server["url"] for server in result["servers"]] == pool.urls
    assert "embedded servers instead of real ones" not in result["relaxed"]


def test_servers_and_data_of_the_users_own(lbrun: Lbrun, healthy: Pool) -> None:
    shutil.copy(bundled("llama3_1_8b"), lbrun.base / "cnn_eval.json")
    pool = healthy()
    ended = lbrun(
        pool.override,
        "model=llama3_1_8b",
        "dataset.path=./cnn_eval.json",
        "rules=trial",
        "scenario.trial.min_query_count=256",
    )
    result = check_valid(ended, samples=256)
    assert [server["requests"] for server in result["servers"]] == [128, 128]
    assert not list(ended.folder.glob("embedded-*.log"))
    assert sorted(ended.records.column("sample_index").to_pylist()) == list(range(256))


def test_server_scenario_with_its_rate_and_strategy(lbrun: Lbrun) -> None:
    ended = lbrun("scenario=server", "scenario.target_qps=20", "strategy=least_outstanding", *SMALL_SERVER)
    result = check_valid(ended, ROWS)
    assert (result["scenario"], result["strategy"]) == ("server", "least_outstanding")
    assert loadgen_log(ended.folder)["effective_target_qps"] == [20]
    assert result["metrics"]["ttft_ms"]["n"] == ROWS
    assert ended.records.column("first_token_ns").null_count == 0


def test_interactive_gpt_oss(lbrun: Lbrun) -> None:
    ended = lbrun("scenario=interactive", "model=gpt_oss_120b", *SMALL_SERVER)
    result = check_valid(ended, ROWS)
    assert result["scenario"] == "interactive"
    log = loadgen_log(ended.folder)
    assert log["effective_scenario"] == ["Server"]
    text = (ended.folder / "mlperf" / "user.conf").read_text()
    assert "gpt-oss-120b-interactive.Server." in text
    summary = (ended.folder / "mlperf" / "mlperf_log_summary.txt").read_text()
    assert "ttft_latency (ns): 2000000000" in summary
    assert "tpot_latency (ns): 15000000" in summary


def test_accuracy_mode_asks_every_sample_of_the_data_once(lbrun: Lbrun) -> None:
    ended = lbrun("mode=accuracy")
    check_valid(ended, samples=256)
    rows = accuracy_log(ended)
    assert sorted(row["qsl_idx"] for row in rows) == list(range(256))


# every model, scenario and request format


@pytest.mark.parametrize(
    ("model", "backend"),
    [("llama3_1_8b", "vllm"), ("gpt_oss_120b", "sglang"), ("qwen3vl", "vllm")],
)
def test_every_model_runs_in_every_scenario(lbrun: Lbrun, healthy: Pool, model: str, backend: str) -> None:
    pool = healthy(model=model, backend=backend)
    common = [f"model={model}", f"servers.backend={backend}", pool.override, "rules=trial"]
    ended = lbrun.all(
        {
            "offline": [*common, "scenario=offline", *SMALL],
            "server": [*common, "scenario=server", *SMALL_SERVER],
            "interactive": [*common, "scenario=interactive", *SMALL_SERVER],
        }
    )
    for scenario, run in ended.items():
        result = check_valid(run, ROWS)
        assert (result["model"], result["scenario"]) == (NAMES[model], scenario)
        assert result["metrics"]["output_tokens"] >= ROWS
        streamed = scenario != "offline"
        assert (result["metrics"]["ttft_ms"] is not None) is streamed
        assert (run.records.column("first_token_ns").null_count == 0) is streamed


def test_every_model_runs_with_its_other_request_formats(lbrun: Lbrun, healthy: Pool) -> None:
    def command(model: str, backend: str, *more: str) -> list[str]:
        pool = healthy(model=model, backend=backend)
        return [f"model={model}", f"servers.backend={backend}", pool.override, "rules=trial", *more, *SMALL]

    ended = lbrun.all(
        {
            "llama-chat": command("llama3_1_8b", "vllm", "model.request_format=chat"),
            "llama-text": command("llama3_1_8b", "vllm", "model.prompt=text"),
            "llama-generate": command("llama3_1_8b", "sglang", "model.request_format=sglang_generate"),
            "gpt-oss-completions": command("gpt_oss_120b", "vllm"),
            "qwen-sglang": command("qwen3vl", "sglang"),
        }
    )
    for run in ended.values():
        check_valid(run, ROWS)


# what LoadGen gets of the answers


def accuracy_log(ended: Ended) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        (ended.folder / "mlperf" / "mlperf_log_accuracy.json").read_text()
    )
    return rows


def token_ids(hexadecimal: str) -> list[int]:
    data = bytes.fromhex(hexadecimal)
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]


@pytest.mark.parametrize(("model", "backend"), [("llama3_1_8b", "vllm"), ("gpt_oss_120b", "sglang")])
def test_the_accuracy_log_holds_each_answers_token_ids(
    lbrun: Lbrun, healthy: Pool, model: str, backend: str
) -> None:
    """TEST06's demands: as many ids as tokens were counted, and the first token's is the first of them.

    And they are those of that very sample, not of another.
    """
    for scenario, run in accuracy_runs(lbrun, healthy, model, backend).items():
        rows = accuracy_log(run)
        records = {row["sample_index"]: row for row in run.records.to_pylist()}
        for row in rows:
            ids = token_ids(row["data"])
            assert len(ids) == row["token_count"] == records[row["qsl_idx"]]["n_tokens"] > 0
            if scenario == "server":
                first = token_ids(row["token_data"])
                assert first
                assert ids[: len(first)] == first
        if model == "llama3_1_8b":
            check_against_the_server(healthy(model=model, backend=backend), run)


def check_against_the_server(pool: Servers, ended: Ended) -> None:
    """Servers answer by the prompt: asked directly for the same rows of the data, they give the same ids."""
    data = json.loads(bundled("llama3_1_8b").read_text())
    sampling = {"temperature": 0, "top_p": 1, "top_k": 1, "seed": 42, "max_tokens": 128, "min_tokens": 1}
    model = "meta-llama/Llama-3.1-8B-Instruct"
    for row in accuracy_log(ended)[:5]:
        prompt = data[row["qsl_idx"]]["tok_input"]
        body = {"model": model, "prompt": prompt, "return_token_ids": True, **sampling}
        answer = pool.ask(0, "/v1/completions", body)
        assert answer["choices"][0]["token_ids"] == token_ids(row["data"])


def test_the_accuracy_log_of_qwen_holds_texts(lbrun: Lbrun, healthy: Pool) -> None:
    for run in accuracy_runs(lbrun, healthy, "qwen3vl", "vllm").values():
        for row in accuracy_log(run):
            text = bytes.fromhex(row["data"]).decode()
            assert text.isprintable()
            assert " " in text


def accuracy_runs(lbrun: Lbrun, healthy: Pool, model: str, backend: str) -> dict[str, Ended]:
    """VALID accuracy runs by scenario, each of which has asked for all rows."""
    pool = healthy(model=model, backend=backend)
    common = ["mode=accuracy", f"model={model}", f"servers.backend={backend}", pool.override, "rules=trial"]
    ended = lbrun.all(
        {scenario: [*common, f"scenario={scenario}", *SMALL] for scenario in ("offline", "server")}
    )
    for run in ended.values():
        check_valid(run, ROWS)
        assert sorted(row["qsl_idx"] for row in accuracy_log(run)) == list(range(ROWS))
    return ended


# data


def write_rows(folder: Path, file_format: str) -> Path:
    """Rows of the bundled data, in one of the file formats."""
    rows = json.loads(bundled("llama3_1_8b").read_text())[:ROWS]
    frame = pd.DataFrame(rows)
    path = folder / f"rows.{'pkl' if file_format == 'pickle' else file_format}"
    if file_format == "json":
        path.write_text(json.dumps(rows))
    elif file_format == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file_format == "csv":
        frame.to_csv(path, index=False)
    elif file_format == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_pickle(path)
    return path


def test_every_file_format_gives_the_same_samples(lbrun: Lbrun, healthy: Pool) -> None:
    ended = lbrun.all(
        {
            name: [healthy().override, "rules=trial", f"dataset.path={write_rows(lbrun.base, name).name}",
                   f"scenario.trial.min_query_count={ROWS}"]
            for name in ("json", "jsonl", "csv", "parquet", "pickle")
        }
    )  # fmt: skip
    rows = json.loads(bundled("llama3_1_8b").read_text())[:ROWS]
    lengths = {index: len(row["tok_input"]) for index, row in enumerate(rows)}
    for run in ended.values():
        check_valid(run, ROWS)
        columns = (run.records.column(name).to_pylist() for name in ("sample_index", "n_input_tokens"))
        assert dict(zip(*columns, strict=True)) == lengths
