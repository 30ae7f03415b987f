"""An accuracy log is looked at before its run is called VALID: LoadGen writes it without looking."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from lbrun.loadgen.accuracy_log import check_accuracy_log
from lbrun.loadgen.logs import ACCURACY


def entry(index: int, ids: list[int], *, count: int | None = None, first: list[int] | None = None) -> str:
    """A line as LoadGen writes it."""

    def packed(ids: list[int]) -> str:
        return struct.pack(f"<{len(ids)}i", *ids).hex().upper()

    first_token = "" if first is None else f', "token_data" : "{packed(first)}"'
    n = len(ids) if count is None else count
    return (
        f'{{ "seq_id" : 0, "qsl_idx" : {index}, "data" : "{packed(ids)}"{first_token}, "token_count" : {n} }}'
    )


def log(tmp_path: Path, *entries: str, end: str = "]\n") -> Path:
    path = tmp_path / ACCURACY
    path.write_text("[\n" + ",\n".join(entries) + "\n" * bool(entries) + end)
    return path


def test_a_whole_log_has_no_problems(tmp_path: Path) -> None:
    path = log(tmp_path, entry(0, [1, 2], first=[1]), entry(1, [300, 4, 5], first=[300, 4]))
    assert check_accuracy_log(path, token_ids=True, samples=2, first_tokens=True) == []


def test_a_log_of_text_has_no_counts_and_may_hold_an_empty_answer(tmp_path: Path) -> None:
    path = log(tmp_path, '{ "seq_id" : 0, "qsl_idx" : 0, "data" : "" }')
    assert check_accuracy_log(path, token_ids=False, samples=1) == []


def test_ids_made_again_of_text_need_not_be_as_many_as_the_server_counted(tmp_path: Path) -> None:
    path = log(tmp_path, entry(0, [1, 2], count=3))
    assert check_accuracy_log(path, token_ids=True, samples=1, counted=False) == []


@pytest.mark.parametrize(
    ("entries", "end", "told"),
    [
        ((), "]\n", "has 0 answers for 2 samples"),
        ((entry(0, [1]),), "]\n", "has 1 answer for 2 samples"),
        ((entry(0, [1]), entry(0, [1])), "]\n", "has several answers of 1 sample"),
        ((entry(0, [1]), entry(1, [1])), "", "incomplete after 2 answers: it has no end"),
        ((entry(0, [1]), entry(1, [1])[:40]), "", "incomplete after 1 answer: line 3 is cut or no answer"),
        ((entry(0, [1]), entry(1, [])), "]\n", "has 1 answer without token ids"),
        ((entry(0, [1]), entry(1, [1, 2], count=3)), "]\n", "has 1 answer of another length"),
        ((entry(0, [1]), entry(1, [1, 2], first=[2])), "]\n", "has 1 answer not beginning with"),
        ((entry(0, [1]), entry(1, [1, 2], first=[])), "]\n", "has 1 answer not beginning with"),
    ],
)
def test_what_a_log_lacks_is_told(tmp_path: Path, entries: tuple[str, ...], end: str, told: str) -> None:
    path = log(tmp_path, *entries, end=end)
    (problem,) = check_accuracy_log(path, token_ids=True, samples=2, first_tokens=True)
    assert path.name in problem
    assert re.search(told, problem)


def test_a_missing_log_is_a_problem_and_so_is_an_empty_one_of_a_compliance_test(tmp_path: Path) -> None:
    (problem,) = check_accuracy_log(tmp_path / ACCURACY, token_ids=True)
    assert "incomplete after 0 answers" in problem
    assert check_accuracy_log(log(tmp_path), token_ids=True) == [f"{ACCURACY} has no answers"]
    assert check_accuracy_log(log(tmp_path, entry(5, [1])), token_ids=True) == []
