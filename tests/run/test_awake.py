"""A watchdog's clock leaves out the time in which the process was stopped."""

from __future__ import annotations

from lbrun.run.awake import AwakeClock


def test_a_long_gap_does_not_count() -> None:
    times = iter([0.0, 0.5, 125.5, 126.0])
    clock = AwakeClock(lambda: next(times))
    assert [clock.now_s() for _ in range(3)] == [0.5, 0.5, 1.0]
    assert clock.held_up_s == 125.0


def test_short_gaps_count() -> None:
    times = iter([0.0, 1.0, 3.0])
    clock = AwakeClock(lambda: next(times))
    assert [clock.now_s(), clock.now_s()] == [1.0, 3.0]
    assert clock.held_up_s == 0.0
