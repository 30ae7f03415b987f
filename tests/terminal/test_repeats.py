"""Repeated warnings: the first at once, the rest counted, none lost from the count."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from lbrun.terminal.repeats import RepeatFilter


def test_the_first_passes_and_the_rest_is_counted_per_interval() -> None:
    repeats = RepeatFilter(10)
    assert repeats.offer("k", "down", 0) == "down"
    assert repeats.offer("k", "down", 1) is None
    assert repeats.offer("other", "up", 1) == "up"
    assert repeats.due(9) == []
    assert repeats.due(10) == ["down (1 more like it in 10 s)"]
    assert repeats.offer("k", "down", 11) is None
    assert repeats.offer("k", "down", 20.5) == "down (2 more like it in 10 s)"


def test_what_was_quiet_for_an_interval_passes_at_once_again() -> None:
    repeats = RepeatFilter(10)
    repeats.offer("k", "down", 0)
    assert repeats.due(10) == []
    assert repeats.offer("k", "down again", 11) == "down again"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 30), st.booleans()),
        max_size=60,
    )
)
def test_every_warning_is_shown_or_counted_once(steps: list[tuple[str, float, bool]]) -> None:
    repeats = RepeatFilter(10)
    now_s, offered, accounted = 0.0, 0, 0

    def account(line: str) -> int:
        counted = re.search(r"\((\d+) more", line)
        return int(counted[1]) if counted else 1

    for key, passed_s, look in steps:
        now_s += passed_s
        if look:
            accounted += sum(account(line) for line in repeats.due(now_s))
        line = repeats.offer(key, f"{key} happened", now_s)
        offered += 1
        accounted += account(line) if line else 0
    accounted += sum(account(line) for line in repeats.due(now_s, everything=True))
    assert accounted == offered
