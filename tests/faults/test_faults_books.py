"""The audit finds each way in which lbrun's records can disagree with the servers' own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from lbrun.embedded.journal import Journal, answer_key, read_journal
from lbrun.faults.books import audit

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import FakeRun


def test_books_that_agree_bring_no_complaint(run: FakeRun) -> None:
    assert list(audit(run.evidence())) == []


def credit_another_server(run: FakeRun) -> None:
    run.rows[1]["server"] = 0


def answer_that_was_never_given(run: FakeRun) -> None:
    run.journals[1].answered.clear()


def answer_given_once_and_credited_twice(run: FakeRun) -> None:
    run.rows.append({**run.rows[0], "query_id": 999})


def request_that_nobody_recorded(run: FakeRun) -> None:
    run.journals[0].asked.update(list(run.journals[0].asked)[:1])


def tokens_that_do_not_add_up(run: FakeRun) -> None:
    run.result["metrics"] = {"output_tokens": 1}


def server_that_completed_more(run: FakeRun) -> None:
    run.result["servers"] = [{"url": "http://127.0.0.1:8001", "completed": 3}]


@pytest.mark.parametrize(
    "lie",
    [
        credit_another_server,
        answer_that_was_never_given,
        answer_given_once_and_credited_twice,
        request_that_nobody_recorded,
        tokens_that_do_not_add_up,
        server_that_completed_more,
    ],
)
def test_a_disagreement_is_found(run: FakeRun, lie: Callable[[FakeRun], None]) -> None:
    lie(run)
    assert list(audit(run.evidence()))


def entry(index: int, ids: list[int], count: int | None = None) -> dict[str, object]:
    data = struct.pack(f"<{len(ids)}i", *ids).hex()
    return {
        "seq_id": index,
        "qsl_idx": index,
        "data": data,
        "token_count": len(ids) if count is None else count,
    }


@pytest.fixture
def accuracy(run: FakeRun, answers: list[list[int]]) -> FakeRun:
    """An accuracy run in which nothing is wrong."""
    run.result["config"] = {**run.result["config"], "mode": "accuracy"}
    run.accuracy = [entry(i, ids) for i, ids in enumerate(answers)]
    return run


def test_a_right_accuracy_log_brings_no_complaint(accuracy: FakeRun) -> None:
    assert list(audit(accuracy.evidence())) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda log, ids: log.pop(), "lacks 1 samples"),
        (lambda log, ids: log.append(entry(0, ids[0])), "2 entries for sample 0"),
        (lambda log, ids: log.__setitem__(0, entry(0, ids[1])), "another answer for sample 0"),
        (lambda log, ids: log.__setitem__(0, entry(0, ids[0], 1)), "counts 1 of"),
    ],
)
def test_a_wrong_accuracy_log_is_found(
    accuracy: FakeRun, answers: list[list[int]], change: Callable[..., object], said: str
) -> None:
    change(accuracy.accuracy, answers)
    assert any(said in line for line in audit(accuracy.evidence()))


def test_a_failed_sample_has_no_answer_in_the_accuracy_log(accuracy: FakeRun) -> None:
    accuracy.fail(2)
    assert any("failed sample 2" in line for line in audit(accuracy.evidence()))
    accuracy.accuracy[2] = entry(2, [])  # type: ignore[index]
    assert list(audit(accuracy.evidence())) == []


def test_a_journal_reads_back_and_forgives_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.asked([1, 2])
    journal.asked([1, 2])
    journal.answered([1, 2])
    entries = read_journal([*path.read_text().splitlines(), '["answer'])
    key = answer_key([1, 2])
    assert (entries.asked[key], entries.answered[key]) == (2, 1)
