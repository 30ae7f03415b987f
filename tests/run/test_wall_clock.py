"""A wall clock that is set during a test is noticed; one that is steered, or a busy machine, is not."""

from __future__ import annotations

import pytest

from lbrun.run.wall_clock import WallClockWatch


class Clocks:
    def __init__(self) -> None:
        self.monotonic_s = 50.0
        self.wall_s = 1_000_000.0

    def pass_time(self, seconds: float, drift: float = 0.0) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds * (1 + drift)

    def watch(self) -> WallClockWatch:
        return WallClockWatch(lambda: self.wall_s, lambda: self.monotonic_s)


def test_a_clock_that_is_steered_for_ten_hours_makes_no_step() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    for _ in range(36_000):
        clocks.pass_time(1.0, drift=0.0005)
        watch.look()
    assert watch.describe() == ""
    assert not watch.makes_figures_worthless


@pytest.mark.parametrize("step_s", [0.3, 3600.0])
def test_a_step_forward_is_told_and_counts_once_it_is_large(step_s: float) -> None:
    clocks = Clocks()
    watch = clocks.watch()
    clocks.wall_s += step_s
    watch.look()
    clocks.pass_time(1.0)
    watch.look()
    assert f"forward by {step_s:,.1f} s" in watch.describe()
    assert watch.makes_figures_worthless == (step_s > 1)
    assert not watch.makes_loadgen_wait


def test_a_step_back_may_make_loadgen_wait_also_after_one_forward() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    clocks.wall_s += 3600
    watch.look()
    clocks.wall_s -= 3600
    watch.look()
    assert watch.makes_loadgen_wait
    assert watch.makes_figures_worthless
    assert "forward by 3,600.0 s and back by 3,600.0 s" in watch.describe()


def test_a_process_that_is_held_up_between_its_two_looks_at_the_clocks_sees_no_step() -> None:
    clocks = Clocks()
    held_up_s = [0.0, 0.0, 5.0, 0.0]

    def monotonic_s() -> float:
        clocks.pass_time(held_up_s.pop(0) if held_up_s else 0.0)
        return clocks.monotonic_s

    watch = WallClockWatch(lambda: clocks.wall_s, monotonic_s)
    for _ in range(3):
        watch.look()
    assert watch.describe() == ""
