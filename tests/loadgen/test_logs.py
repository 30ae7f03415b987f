"""LoadGen's logs are read for its verdict, its reasons and its errors."""

from __future__ import annotations

import json
from pathlib import Path

from lbrun.loadgen.logs import DETAIL, SUMMARY, read_logs, set_aside

INVALID = """================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 200.05
Completed tokens per second: 991.90
Result is : INVALID
  Performance constraints satisfied : Yes
  Min duration satisfied : NO
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
 * Increase the target QPS so the loadgen pre-generates more queries.
TTFT Early Stopping Result:

================================================
Additional Stats
================================================
99.00 percentile first token latency (ns)   : 212461

No warnings encountered during test.

13 ERRORS encountered. See detailed log.
"""


def test_an_invalid_result_is_read_with_its_reasons(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text(INVALID)
    result = read_logs(tmp_path)
    assert result.valid is False
    assert result.fields["Completed tokens per second"] == "991.90"
    assert result.fields["99.00 percentile first token latency (ns)"] == "212461"
    assert "min duration: not met" in result.reasons
    assert "early stopping: not met" in result.reasons
    assert any("Increase the target QPS" in reason for reason in result.reasons)


EARLY_STOPPING = """\
Result is : INVALID
  Performance constraints satisfied : NO
  Early stopping satisfied: NO
Recommendations:
 * TTFT constrain not met: Reduce target QPS to improve latency.
TTFT Early Stopping Result:
 * Run unsuccessful.
 * Processed 24 queries.
 * Would need to run at least 160 more queries,
 with the run being successful if every additional
 query were under latency.
TPOT Early Stopping Result:
 * Run successful.

================================================
Additional Stats
================================================
Scheduled samples per second : 50.59
"""


def test_each_statement_on_early_stopping_is_one_reason_and_a_good_one_is_none(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text(EARLY_STOPPING)
    assert read_logs(tmp_path).reasons == (
        "performance constraints: not met",
        "early stopping: not met",
        "TTFT constrain not met: Reduce target QPS to improve latency.",
        "TTFT early stopping: Run unsuccessful. Processed 24 queries. Would need to run at least 160 more "
        "queries, with the run being successful if every additional query were under latency.",
    )


def test_what_early_stopping_lacks_is_one_whole_sentence(tmp_path: Path) -> None:
    result = "TTFT Early Stopping Result:\n"
    more = (
        " * Run successful.\n\nTPOT Early Stopping Result:\n * Run unsuccessful.\n * Processed 256 queries.\n"
        " * Would need to run at least 203 more queries,\n with the run being successful if every\n"
        " additional query were under latency.\n"
    )
    (tmp_path / SUMMARY).write_text(INVALID.replace(result, result + more))
    assert read_logs(tmp_path).reasons[2:] == (
        "Increase the target QPS so the loadgen pre-generates more queries.",
        "TPOT early stopping: Run unsuccessful. Processed 256 queries. Would need to run at least 203 more "
        "queries, with the run being successful if every additional query were under latency.",
    )


def test_a_valid_result_has_no_reasons(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text(
        INVALID.replace("INVALID", "VALID")
        .replace(": NO", ": Yes")
        .replace(
            "Recommendations:\n * Increase the target QPS so the loadgen pre-generates more queries.\n", ""
        )
    )
    assert read_logs(tmp_path).valid is True
    assert read_logs(tmp_path).reasons == ()


def test_a_test_that_did_not_end_has_no_result(tmp_path: Path) -> None:
    assert read_logs(tmp_path).valid is None


def test_errors_of_the_detail_log_are_counted_and_named_once(tmp_path: Path) -> None:
    line = {"key": "error_runtime", "value": "n_tokens argument missing", "metadata": {"is_error": True}}
    good = {"key": "x", "value": 1, "metadata": {"is_error": False}}
    (tmp_path / DETAIL).write_text(
        "".join(f":::MLLOG {json.dumps(entry)}\n" for entry in (good, line, line, good))
        + ":::MLLOG {broken\n"
    )
    result = read_logs(tmp_path)
    assert (result.error_count, result.errors) == (2, ("n_tokens argument missing (2 times)",))


def test_logs_without_the_end_that_every_finished_test_writes_are_cut(tmp_path: Path) -> None:
    end = {"key": "power_end", "value": "", "metadata": {"is_error": False}}
    (tmp_path / SUMMARY).write_text(INVALID)
    (tmp_path / DETAIL).write_text(f":::MLLOG {json.dumps(end)}\n")
    assert read_logs(tmp_path).cut == ()
    (tmp_path / SUMMARY).write_text(INVALID[:300])
    assert read_logs(tmp_path).cut == (SUMMARY,)
    (tmp_path / DETAIL).write_text(f":::MLLOG {json.dumps(end)}\n:::MLLOG {{")
    assert read_logs(tmp_path).cut == (SUMMARY, DETAIL)


def test_the_logs_of_a_failed_run_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text("x")
    set_aside(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mlperf_log_summary.not-for-submission.txt"]
