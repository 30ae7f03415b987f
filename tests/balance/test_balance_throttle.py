"""A 429 pauses a server that is full, and no other."""

from __future__ import annotations

from lbrun.balance.states import HealthPolicy
from lbrun.balance.throttle import Throttle

DAY_S = 86_400.0


def test_a_server_that_serves_more_than_it_refuses_is_not_paused() -> None:
    throttle = Throttle(HealthPolicy(), 0.0)
    assert [throttle.pause_s(DAY_S, 97, t / 10) for t in range(3)] == [0.0, 0.0, 0.0]
    assert (throttle.refusals, throttle.paused_s, throttle.longest_wish_s) == (3, 0.0, DAY_S)


def test_a_full_server_gets_the_pause_that_it_asks_for_up_to_the_cap() -> None:
    policy = HealthPolicy()
    throttle = Throttle(policy, 0.0)
    assert throttle.pause_s(5.0, 0, 0.0) == 5.0
    assert throttle.pause_s(DAY_S, 0, 0.1) == policy.throttle_cap_s
    assert throttle.pause_s(None, 0, 0.2) == policy.throttle_default_s
    assert throttle.pause_s(0.0, 0, 0.3) == policy.throttle_floor_s


def test_refusals_of_long_ago_do_not_count() -> None:
    policy = HealthPolicy()
    throttle = Throttle(policy, 0.0)
    for _ in range(50):
        throttle.pause_s(None, 0, 0.0)
    assert throttle.pause_s(None, 10, 2 * policy.window_s) == 0.0
