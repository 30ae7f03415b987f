"""Retries are paced, never refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbrun.dispatch.budget import RetryBudget


def test_the_burst_is_granted_and_then_the_rate() -> None:
    budget = RetryBudget(0.2, 10.0, now_s=0.0, burst=20.0)
    assert [budget.take(0.0) for _ in range(20)] == [0.0] * 20
    assert budget.take(0.0) > 0
    assert budget.take(0.1) == 0.0
    assert budget.take(0.1) > 0


def test_load_pays_for_its_share_of_retries() -> None:
    budget = RetryBudget(0.2, 0.0, now_s=0.0, burst=1.0)
    assert budget.take(0.0) == 0.0
    for _ in range(4):
        budget.first_attempt()
    assert budget.take(0.0) > 0
    budget.first_attempt()
    assert budget.take(0.0) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.05)), max_size=300))
def test_granted_retries_stay_below_share_plus_rate_plus_burst(steps: list[tuple[bool, float]]) -> None:
    budget, now, granted, load = RetryBudget(0.2, 10.0, now_s=0.0, burst=5.0), 0.0, 0, 0
    for is_load, dt in steps:
        now += dt
        if is_load:
            budget.first_attempt()
            load += 1
        elif budget.take(now) == 0.0:
            granted += 1
    assert granted <= 5.0 + 0.2 * load + 10.0 * now + 1e-6


@given(st.floats(0.01, 100))
def test_the_wait_it_names_is_enough(per_s: float) -> None:
    budget = RetryBudget(0.0, per_s, now_s=0.0, burst=1.0)
    budget.take(0.0)
    wait = budget.take(0.0)
    assert budget.take(wait + 1e-6) == 0.0
