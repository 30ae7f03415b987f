"""The verdict: what makes a run FAILED or INVALID, and the exit status that follows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.results.verdict import Judgement, SampleCounts, State, Verdict, judge

GOOD: dict[str, Any] = {"state": State.FINISHED, "mode": "performance", "loadgen_result": "VALID"}


def _judge(samples: SampleCounts = SampleCounts(10, 10, 0), **more: Any) -> Judgement:  # noqa: B008 - frozen
    return judge(samples, **{**GOOD, **more})


def test_a_run_in_which_everything_is_right_is_valid() -> None:
    assert _judge(recorded=10) == Judgement(Verdict.VALID, (), 0)


def test_loadgens_invalid_is_invalid_with_its_reasons() -> None:
    got = _judge(loadgen_result="INVALID", invalid_reasons=["min duration: not met"])
    assert got == Judgement(Verdict.INVALID, ("min duration: not met",), 3)
    assert _judge(loadgen_result="INVALID").reasons == ("LoadGen's rules were not met",)


@pytest.mark.parametrize(
    ("samples", "more", "reason"),
    [
        (SampleCounts(1000, 997, 3), {}, "3 of 1,000 samples failed"),
        (SampleCounts(1, 0, 1), {}, "1 of 1 sample failed"),
        (
            SampleCounts(10, 8, 0),
            {},
            "the books do not balance: 10 samples issued, 8 completed, 0 failed (+2)",
        ),
        (SampleCounts(10, 10, 0), {"recorded": 9}, "the records are incomplete: 9 rows for 10 samples"),
        (SampleCounts(0, 0, 0), {}, "LoadGen issued no sample"),
        (SampleCounts(10, 10, 0), {"loadgen_errors": ["sample twice"]}, "LoadGen: sample twice"),
        (SampleCounts(10, 10, 0), {"loadgen_result": None}, "LoadGen left no result"),
        (SampleCounts(10, 10, 0), {"errors": ["all servers are down"]}, "all servers are down"),
        (SampleCounts(10, 10, 0), {"state": State.BROKEN}, "the run was cut"),
    ],
)
def test_what_makes_a_run_failed(samples: SampleCounts, more: dict[str, Any], reason: str) -> None:
    assert _judge(samples, **more) == Judgement(Verdict.FAILED, (reason,), 1)


def test_failed_samples_outrank_loadgens_invalid() -> None:
    assert _judge(SampleCounts(10, 9, 1), loadgen_result="INVALID").verdict is Verdict.FAILED


def test_an_interrupted_run_is_failed_with_the_status_of_an_interrupt() -> None:
    got = _judge(SampleCounts(10, 4, 6), state=State.INTERRUPTED, loadgen_result=None)
    assert got == Judgement(Verdict.FAILED, ("interrupted", "6 of 10 samples failed"), 130)


def test_what_broke_a_run_comes_before_what_it_cost() -> None:
    got = _judge(SampleCounts(10, 4, 6), state=State.BROKEN, errors=["all servers are down"])
    assert got.reasons == ("all servers are down", "6 of 10 samples failed")


def test_an_accuracy_run_needs_no_result_of_loadgens() -> None:
    assert _judge(mode="accuracy", loadgen_result=None).verdict is Verdict.VALID


@given(
    issued=st.integers(0, 5),
    completed=st.integers(0, 5),
    failed=st.integers(0, 5),
    state=st.sampled_from(list(State)),
    loadgen_result=st.sampled_from(["VALID", "INVALID", None, "?"]),
    mode=st.sampled_from(["performance", "accuracy"]),
)
def test_valid_means_that_every_issued_sample_was_answered(
    issued: int, completed: int, failed: int, state: State, loadgen_result: str | None, mode: str
) -> None:
    got = judge(
        SampleCounts(issued, completed, failed), state=state, mode=mode, loadgen_result=loadgen_result
    )
    whole = state is State.FINISHED and issued == completed > 0 and failed == 0
    assert (got.verdict is Verdict.FAILED) >= (not whole)
    assert (got.verdict is Verdict.VALID) == (got.exit_status == 0) == (not got.reasons)
    if got.verdict is Verdict.VALID:
        assert whole
        assert loadgen_result == "VALID" or mode == "accuracy"


def test_an_error_in_loadgens_log_makes_a_complete_run_invalid() -> None:
    """Every sample has an answer, but a submission with such a log is refused."""
    judgement = _judge(loadgen_errors=["Number of tokens need to be greater than 1"])
    assert judgement == Judgement(
        Verdict.INVALID, ("LoadGen: Number of tokens need to be greater than 1",), 3
    )
