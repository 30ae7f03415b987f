"""Samples under which a server has died are kept apart, and none of them waits for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbrun.dispatch.retry import History
from lbrun.dispatch.sample import OpenSample
from lbrun.dispatch.trials import HARMLESS_AFTER_S, KILLS_WITHIN_S, Trials


def a_sample(index: int = 0, server: int = -1) -> OpenSample:
    sample = OpenSample(index, index, 0, 1)
    sample.server = server
    return sample


def test_a_server_takes_one_suspect_at_a_time() -> None:
    trials = Trials()
    first = a_sample(1, server=0)
    trials.begin(0, first, 10.0)
    assert trials.open_among([0, 1], 10.0) == [1]
    trials.end(first)
    assert trials.open_among([0, 1], 10.0) == [0, 1]


def test_a_server_that_outlives_a_suspect_for_long_enough_takes_the_next() -> None:
    trials = Trials()
    trials.begin(0, a_sample(server=0), 10.0)
    assert trials.open_among([0], 10.0 + HARMLESS_AFTER_S * 0.9) == []
    assert trials.open_among([0], 10.0 + HARMLESS_AFTER_S * 1.1) == [0]


def test_the_end_of_a_trial_is_the_turn_of_the_next_and_of_nobody_else() -> None:
    trials = Trials()
    tried, waiting, bystander = a_sample(1, server=0), a_sample(2), a_sample(3, server=0)
    trials.begin(0, tried, 0.0)
    trials.wait(waiting)
    assert trials.end(bystander) is None
    assert trials.end(tried) is waiting
    assert trials.end(tried) is None


@given(st.integers(0, 20), st.integers(1, 5))
def test_all_that_wait_come_out_once_and_in_order(n: int, at_once: int) -> None:
    trials = Trials()
    waiting = [a_sample(i) for i in range(n)]
    for sample in waiting:
        trials.wait(sample)
    out = [*trials.due(at_once), *trials.clear()]
    assert out == waiting
    assert trials.clear() == []


def test_a_sample_is_a_suspect_while_a_server_that_lost_it_may_be_dead() -> None:
    history = History(undecided={1})
    assert history.is_suspect(in_doubt=[1])
    assert not history.is_suspect(in_doubt=[0])
    assert History(deaths={1}).is_suspect(in_doubt=[])
    assert not History().is_suspect(in_doubt=[0, 1])


def test_only_the_last_suspect_of_a_server_may_have_killed_it_and_not_for_long() -> None:
    trials = Trials()
    first, second = a_sample(1, server=0), a_sample(2, server=0)
    trials.begin(0, first, 10.0)
    assert trials.may_have_killed(first, 10.0 + KILLS_WITHIN_S)
    assert not trials.may_have_killed(first, 10.1 + KILLS_WITHIN_S)
    trials.begin(0, second, 10.1)
    assert not trials.may_have_killed(first, 10.1)
    assert trials.may_have_killed(second, 10.1)


def test_deaths_that_came_late_make_a_sample_poison_only_when_they_are_many() -> None:
    assert History(deaths={0, 1}).is_poison
    assert not History(deaths={0, 1}, outlived={1}).is_poison
    assert History(deaths={0, 1, 2}, outlived={1}).is_poison
    assert History(deaths={0, 1, 2}, outlived={1, 2}).is_poison


def test_a_sample_that_was_not_sent_as_a_suspect_has_outlived_nothing() -> None:
    trials = Trials()
    trials.begin(0, a_sample(1, server=0), 10.0)
    assert trials.may_have_killed(a_sample(2, server=0), 20.0)
