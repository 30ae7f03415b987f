"""result.json: a true statement at every moment, strict JSON, the names that scripts rely on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from outcomes import lost, outcome_of, record, steady

from lbrun.results.environment import environment
from lbrun.results.result import (
    CUT,
    ResultFile,
    ServerOutcome,
    config_hash,
    read_result,
    replace_json,
)

KEYS = {
    "schema", "verdict", "official", "model", "scenario", "mode", "strategy", "samples", "attempts",
    "metrics", "servers", "errors", "environment", "config",
}  # fmt: skip


def test_a_run_that_has_begun_is_failed_until_somebody_finishes_it(tmp_path: Path) -> None:
    ResultFile(tmp_path).begin({"model": "llama3.1-8b", "config": {"a": 1}, "verdict": "VALID", "errors": []})
    result = read_result(tmp_path)
    assert result is not None
    assert result["schema"] == 1
    assert result["verdict"] == "FAILED"
    assert result["state"] == "running"
    assert result["errors"] == [CUT]
    assert result["model"] == "llama3.1-8b"
    assert result["samples"]["issued"] is None
    assert result.keys() >= {"official", "attempts", "metrics", "servers"}


def test_the_final_document_has_the_names_that_scripts_rely_on(tmp_path: Path) -> None:
    record(tmp_path, [*steady(9), lost(9, server=1)])
    file = ResultFile(tmp_path)
    file.begin({})
    file.finish(outcome_of(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result.keys() >= KEYS
    assert result["verdict"] == "FAILED"
    assert result["exit_status"] == 1
    assert result["samples"] == {"issued": 10, "completed": 9, "failed": 1}
    assert result["attempts"] == {"total": 12, "retried": 2, "restarted_streams": 0}
    assert result["errors"] == ["1 of 10 samples failed"]
    server = result["servers"][1]
    assert (server["requests"], server["completed"], server["failed"]) == (6, 3, 3)
    assert (server["ejections"], server["recoveries"]) == (0, 0)
    assert server["metrics"]["ttft_ms"]["p99"] == 5.0
    assert result["failures"][0]["samples_lost"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.parquet", "result.json"]


def test_a_server_of_which_nothing_was_measured_has_zeros(tmp_path: Path) -> None:
    record(tmp_path, steady(3))
    outcome = replace(outcome_of(tmp_path), servers=(ServerOutcome("http://a:1", "excluded"),))
    assert outcome.document()["servers"] == [
        {
            "url": "http://a:1",
            "state": "excluded",
            "requests": 0,
            "completed": 0,
            "failed": 0,
            "ejections": 0,
            "recoveries": 0,
            "last_error": "",
            "model": None,
            "model_change": "",
            "metrics": None,
        }
    ]


def test_what_json_has_no_words_for_becomes_null(tmp_path: Path) -> None:
    replace_json(tmp_path / "x.json", {"a": [float("nan"), (float("inf"), 1.5)], 3: Path("p")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, [None, 1.5]], "3": "p"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    replace_json(tmp_path / "x.json", {"a": 1})
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(RecursionError):
        replace_json(tmp_path / "x.json", circle)
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_result_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    for text in ("", "{", "[1]", "\udcff"):
        (tmp_path / "result.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert read_result(tmp_path) is None


def test_the_config_hash_knows_values_and_not_their_order() -> None:
    assert config_hash({"a": 1, "b": {"c": 2, "d": 3}}) == config_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})


def test_the_environment_names_versions_and_no_host() -> None:
    import platform

    found = environment()
    assert found["lbrun"]
    assert found["python"] == platform.python_version()
    assert isinstance(found["packages"], dict)
    assert found["packages"]["numpy"]
    assert "node" not in found
    json.dumps(found)
