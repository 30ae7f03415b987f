"""The small parts: the window of outcomes, pauses, back-off and the watch for stalls."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from lbrun.balance import HealthPolicy
from lbrun.balance.backoff import Backoff
from lbrun.balance.pauses import Pauses
from lbrun.balance.stall import StallWatch
from lbrun.balance.window import OutcomeWindow


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=60))
def test_a_window_counts_everything_recent_and_nothing_old(events: list[tuple[int, bool]]) -> None:
    """Exact up to one slice (a tenth of the window), against all events kept."""
    window = OutcomeWindow(10.0, 0.0)
    now_s, kept = 0.0, list[tuple[float, bool]]()
    for tenths, ok in events:
        now_s += tenths / 10
        (window.ok if ok else window.failed)(now_s)
        kept.append((now_s, ok))
        counts = window.totals(now_s)
        for i, wanted in enumerate((True, False)):
            surely = sum(1 for at, outcome in kept if outcome is wanted and at > now_s - 9.0)
            at_most = sum(1 for at, outcome in kept if outcome is wanted and at > now_s - 10.0 - 1e-6)
            assert surely <= counts[i] <= at_most


def test_the_last_of_several_pauses_holds() -> None:
    pauses = Pauses()
    pauses.add(0, 10.0)
    pauses.add(0, 20.0)
    pauses.add(0, 15.0)
    pauses.add(1, 12.0)
    assert pauses.ended(12.0) == [1]
    assert 0 in pauses
    assert pauses.ended(20.0) == [0]
    assert pauses.ended(99.0) == []
    assert 0 not in pauses


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50), st.integers())
def test_a_back_off_stays_within_its_bounds(healthy_s: list[float], seed: int) -> None:
    policy = HealthPolicy()
    backoff = Backoff(policy, Random(seed))
    for seconds in healthy_s:
        before = backoff.exponent
        delay_s = backoff.next_delay_s(seconds)
        assert 0.8 * policy.backoff_base_s <= delay_s <= 1.2 * policy.backoff_cap_s
        assert backoff.exponent <= before + 1


def test_a_server_that_answers_more_than_it_fails_is_not_kept_out_longer_each_time() -> None:
    backoff = Backoff(HealthPolicy(), Random(0))
    for _ in range(10):
        assert backoff.next_delay_s(0.1, useful=True) <= 1.2 * HealthPolicy().backoff_base_s
    for _ in range(3):
        backoff.next_delay_s(0.1)
    assert backoff.exponent == 3
    backoff.next_delay_s(0.1, useful=True)
    assert backoff.exponent == 2


def test_back_offs_of_servers_that_died_together_differ() -> None:
    random = Random(0)
    delays = {Backoff(HealthPolicy(), random).next_delay_s(0.0) for _ in range(10)}
    assert len(delays) == 10


def test_a_server_stalls_after_silence_with_work_and_not_before() -> None:
    watch = StallWatch(1, 4.0, 0.0)
    silent_from = [now / 2 for now in range(40) if watch.silent([1], [3.0], now / 2)]
    assert silent_from[0] == 7.0
    assert watch.silent([1], [19.9], 20.0) == []


def test_an_idle_server_does_not_stall_and_starts_anew_with_its_next_attempt() -> None:
    watch = StallWatch(1, 4.0, 0.0)
    assert not any(watch.silent([0], [0.0], now / 2) for now in range(100))
    stalled = [now / 2 for now in range(100, 120) if watch.silent([1], [0.0], now / 2)]
    assert stalled[0] == 53.5


def test_when_this_process_was_held_up_nobody_is_blamed_for_its_silence() -> None:
    watch = StallWatch(2, 4.0, 0.0)
    assert watch.silent([1, 1], [0.0, 0.0], 0.5) == []
    assert watch.silent([1, 1], [0.0, 0.0], 30.0) == []
    assert watch.silent([1, 1], [0.0, 0.0], 30.5) == []
