"""A sweep's comparison lists every job: valid, failed, running, broken and not begun."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from outcomes import lost, outcome_of, record, steady

from lbrun.results.result import ResultFile, replace_json
from lbrun.results.sweep import NO_RESULT, finished, read_sweep, render_sweep, write_sweep
from lbrun.results.verdict import State


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Job 0 valid, 1 failed, 2 on its way, 3 without a result, 4 with half a result, 10 valid."""
    for name in ("0", "1", "2", "3", "4", "10"):
        hydra = tmp_path / name / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "overrides.yaml").write_text(f"- strategy=random\n- 'scenario.target_qps={name}'\n")
    record(tmp_path / "0", steady(30))
    ResultFile(tmp_path / "0").finish(outcome_of(tmp_path / "0"))
    record(tmp_path / "1", [*steady(9), lost(9)])
    ResultFile(tmp_path / "1").finish(outcome_of(tmp_path / "1"))
    ResultFile(tmp_path / "2").begin({"model": "llama3.1-8b"})
    (tmp_path / "4" / "result.json").write_text('{"schema": 1,')
    record(tmp_path / "10", steady(3, streamed=False))
    ResultFile(tmp_path / "10").finish(outcome_of(tmp_path / "10"))
    return tmp_path


def test_every_job_has_its_row_in_order(sweep: Path) -> None:
    rows = write_sweep(sweep)
    assert [(row.folder, row.verdict, row.samples, row.failed) for row in rows] == [
        ("0", "VALID", 30, 0),
        ("1", "FAILED", 10, 1),
        ("2", "FAILED", None, None),
        ("3", NO_RESULT, None, None),
        ("4", NO_RESULT, None, None),
        ("10", "VALID", 3, 0),
    ]
    assert rows[0].overrides == "strategy=round_robin"
    assert rows[3].overrides == "strategy=random scenario.target_qps=3"
    assert rows[0].ttft_p99_ms == 5.0
    assert rows[5].ttft_p99_ms is None
    assert rows[1].error == "1 of 10 samples failed"
    assert rows[2].error == "the run was cut: no process finished it"
    assert rows[4].error == "result.json cannot be read"


def test_both_files_hold_what_the_table_shows(sweep: Path) -> None:
    rows = write_sweep(sweep)
    document = json.loads((sweep / "sweep.json").read_text())
    assert document["schema"] == 1
    assert [job["verdict"] for job in document["jobs"]] == [row.verdict for row in rows]
    with (sweep / "sweep.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["folder"] for line in table] == [row.folder for row in rows]
    assert table[0]["ttft_p99_ms"] == "5.0"
    assert table[3]["samples"] == ""
    text = render_sweep(rows, sweep)
    assert text.startswith("6 jobs: 2 VALID, 2 FAILED, 2 NO RESULT\n")
    assert max(len(line) for line in text.splitlines()[:-1]) < 100
    assert "1: 1 of 10 samples failed" in text
    assert "3: no result.json" in text


def test_a_planned_job_that_has_not_begun_is_listed(sweep: Path) -> None:
    rows = write_sweep(sweep, {"0": ["a=1"], "11": ["a=2", "b=3"]})
    assert [row.folder for row in rows] == ["0", "11", "1", "2", "3", "4", "10"]
    assert (rows[1].overrides, rows[1].verdict) == ("a=2 b=3", NO_RESULT)


def test_writing_again_replaces_the_comparison(sweep: Path) -> None:
    write_sweep(sweep)
    ResultFile(sweep / "3").finish(outcome_of(sweep / "0"))
    write_sweep(sweep)
    document = json.loads((sweep / "sweep.json").read_text())
    assert document["jobs"][3]["verdict"] == "VALID"
    assert not list(sweep.glob(".*.part"))


def test_an_empty_sweep_says_so(tmp_path: Path) -> None:
    assert read_sweep(tmp_path) == []
    assert render_sweep([], tmp_path).startswith("no jobs")


def test_a_result_of_a_strange_shape_is_a_row_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text(
        '{"verdict": "VALID", "samples": 3, "metrics": [], "errors": 1}'
    )
    (row,) = read_sweep(tmp_path)
    assert (row.verdict, row.samples, row.error) == ("VALID", None, "")


def test_only_a_finished_job_of_the_same_configuration_may_be_skipped(sweep: Path) -> None:
    assert finished(sweep / "0", "0123456789abcdef")
    assert finished(sweep / "1", "0123456789abcdef")
    assert not finished(sweep / "0", "another")
    assert not finished(sweep / "2", "0123456789abcdef")
    assert not finished(sweep / "3", "0123456789abcdef")
    assert not finished(sweep / "4", "0123456789abcdef")
    ResultFile(sweep / "0").finish(replace(outcome_of(sweep / "0"), state=State.INTERRUPTED))
    assert not finished(sweep / "0", "0123456789abcdef")
    ResultFile(sweep / "0").finish(replace(outcome_of(sweep / "0"), config_hash=""))
    assert not finished(sweep / "0", "")


def test_what_all_jobs_have_in_common_is_said_once(tmp_path: Path) -> None:
    common = ["dataset.path=my data.json", "scenario.target_qps=20"]
    rows = write_sweep(tmp_path, {str(i): [f"strategy={name}", *common] for i, name in enumerate("ab")})
    text = render_sweep(rows, tmp_path)
    assert "All of them with dataset.path=my data.json scenario.target_qps=20\n" in text
    assert re.search(r"^0 +strategy=a +NO RESULT", text, re.MULTILINE)
    assert re.search(r"^1 +strategy=b +NO RESULT", text, re.MULTILINE)


def test_an_error_that_heads_a_list_is_told_with_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    replace_json(
        tmp_path / "0" / "result.json",
        {
            "verdict": "FAILED",
            "errors": ["No API servers became ready:", "  http://a: refused", "  http://b: x"],
        },
    )
    (row,) = write_sweep(tmp_path)
    assert row.error == "No API servers became ready: http://a: refused"
