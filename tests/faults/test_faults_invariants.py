"""A run that lies, or loses, is found out; a good one is not accused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from lbrun.faults.evidence import Mark
from lbrun.faults.invariants import check_cut, check_expected, check_run, completed_twice, false_successes
from lbrun.faults.scenario import Expected

if TYPE_CHECKING:
    from conftest import FakeRun

URL = "http://127.0.0.1:8002"
FAILED = Expected(exit_status=frozenset({1}), lost=(1, 1))


def test_a_good_run_is_not_accused(run: FakeRun) -> None:
    evidence = run.evidence()
    assert list(check_run(evidence)) == []
    assert list(check_expected(evidence, Expected(stays_in=True, attempts_per_sample=1.0))) == []
    assert (completed_twice(evidence), false_successes(evidence)) == (0, [])


def test_a_run_that_fails_and_says_so_keeps_the_invariants(run: FakeRun) -> None:
    run.fail(2)
    evidence = run.evidence()
    assert list(check_run(evidence)) == []
    assert list(check_expected(evidence, FAILED)) == []
    assert false_successes(evidence) == []


def spoil_output(run: FakeRun) -> None:
    run.outputs[1]["token_ids"] = [*run.outputs[1]["token_ids"][:-1], 7]  # type: ignore[misc]


def cut_output(run: FakeRun) -> None:
    run.outputs[1]["token_ids"] = run.outputs[1]["token_ids"][:-3]  # type: ignore[index]


def swap_outputs(run: FakeRun) -> None:
    first, second = run.outputs[:2]
    first["token_ids"], second["token_ids"] = second["token_ids"], first["token_ids"]


def lose_output(run: FakeRun) -> None:
    del run.outputs[1]


def miscount(run: FakeRun) -> None:
    run.rows[1]["n_tokens"] = 1 + int(str(run.rows[1]["n_tokens"]))


@pytest.mark.parametrize(
    ("lie", "n"),
    [
        (spoil_output, 1),
        (cut_output, 1),
        (swap_outputs, 2),
        (lose_output, 1),
        (miscount, 1),
    ],
)
def test_a_false_success_is_found(run: FakeRun, lie: Callable[[FakeRun], None], n: int) -> None:
    lie(run)
    assert len(false_successes(run.evidence())) == n


def test_a_second_completion_is_found_in_the_records_and_in_loadgens_log(run: FakeRun) -> None:
    run.loadgen.append(("error_runtime", "The system under test tried to complete a sample twice"))
    assert completed_twice(run.evidence()) == 1


def test_a_second_row_of_a_sample_is_found(run: FakeRun) -> None:
    run.rows[3]["query_id"] = run.rows[0]["query_id"]
    assert completed_twice(run.evidence()) == 1


def lose_a_row(run: FakeRun) -> None:
    del run.rows[0]


def forget_a_sample(run: FakeRun) -> None:
    run.result["samples"]["completed"] = 3


def report_the_first_token_late(run: FakeRun) -> None:
    run.rows[0]["first_token_ns"] = int(str(run.rows[0]["done_ns"])) + 1


def have_no_first_token(run: FakeRun) -> None:
    run.rows[0]["first_token_ns"] = 0


def pass_as_valid(run: FakeRun) -> None:
    run.fail(0)
    run.result["verdict"] = "VALID"
    run.exit_status = 0


def exit_well(run: FakeRun) -> None:
    run.fail(0)
    run.exit_status = 0


def give_a_failed_sample_tokens(run: FakeRun) -> None:
    run.fail(0)
    run.rows[0]["n_tokens"] = 5


def disagree_with_loadgen(run: FakeRun) -> None:
    run.loadgen = [("result_query_count", 5)]


def leave_something_in_flight(run: FakeRun) -> None:
    run.result["errors"] = ["attempts still counted as in flight at the end: {'a': 1}"]


def hide_a_failure(run: FakeRun) -> None:
    run.fail(0)
    run.result["samples"] = {"issued": 4, "completed": 4, "failed": 0}


@pytest.mark.parametrize(
    "lie",
    [
        lose_a_row,
        forget_a_sample,
        report_the_first_token_late,
        have_no_first_token,
        pass_as_valid,
        exit_well,
        give_a_failed_sample_tokens,
        disagree_with_loadgen,
        leave_something_in_flight,
        hide_a_failure,
    ],
)
def test_a_broken_invariant_is_found(run: FakeRun, lie: Callable[[FakeRun], None]) -> None:
    lie(run)
    assert list(check_run(run.evidence()))


def test_a_summary_that_could_be_submitted_is_found_beside_a_failed_verdict(run: FakeRun) -> None:
    run.fail(0)
    evidence = run.evidence()
    (run.folder / "mlperf" / "mlperf_log_summary.txt").write_text("")
    assert any("submitted" in problem for problem in check_run(evidence))


def test_a_killed_run_must_say_that_it_was_cut(run: FakeRun) -> None:
    assert list(check_cut(run.evidence()))
    run.result |= {"verdict": "FAILED", "state": "running", "errors": ["the run was cut"]}
    (run.folder / "requests.parquet").unlink()
    assert list(check_cut(run.evidence())) == []


def test_a_result_that_cannot_be_read_is_a_problem(run: FakeRun) -> None:
    evidence = run.evidence()
    (run.folder / "result.json").write_text("{")
    assert list(check_run(evidence)) == list(check_cut(evidence)) == ["result.json cannot be read"]


# -- times


def test_times_are_measured_from_the_fault_and_from_the_return(
    run: FakeRun, wall: Callable[[float], float]
) -> None:
    run.marks = [Mark(1, wall(2.0), wall(6.0))]
    run.events = [
        (0.5, URL, "starting", "ready"),
        (2.1, URL, "ready", "suspect"),
        (2.4, URL, "suspect", "ejected"),
        (6.8, URL, "ejected", "trial"),
        (7.0, URL, "trial", "ready"),
    ]
    evidence = run.evidence()
    assert evidence.eject_s() == pytest.approx(0.4, abs=0.002)
    assert evidence.recover_s() == pytest.approx(1.0, abs=0.002)
    assert list(check_expected(evidence, Expected(out_within_s=0.5, back_within_s=1.1))) == []
    assert len(list(check_expected(evidence, Expected(out_within_s=0.3, back_within_s=0.9)))) == 2
    assert any("taken out" in problem for problem in check_expected(evidence, Expected(stays_in=True)))


def test_a_server_that_stays_in_or_out_against_expectation_is_named(
    run: FakeRun, wall: Callable[[float], float]
) -> None:
    run.marks = [Mark(0, wall(2.0)), Mark(1, wall(2.0), wall(3.0))]
    run.events = [(2.4, URL, "ready", "ejected")]
    problems = list(check_expected(run.evidence(), Expected(out_within_s=1.0, back_within_s=1.0)))
    assert problems == ["server 0 was never taken out", "server 1 never came back"]


def test_what_has_to_be_said_is_looked_for(run: FakeRun) -> None:
    run.fail(0)
    evidence = run.evidence()
    assert (
        list(check_expected(evidence, Expected(exit_status=frozenset({1}), lost=(1, None), says=("1 of 4",))))
        == []
    )
    (problem,) = check_expected(
        evidence, Expected(exit_status=frozenset({1}), lost=(1, None), says=("poison",))
    )
    assert "poison" in problem
