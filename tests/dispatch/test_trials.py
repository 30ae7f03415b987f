"""Samples under which a server has died are kept apart, and none of them waits for ever."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lbrun.attempt import AttemptFailure, FailureKind
from lbrun.dispatch.retry import History
from lbrun.dispatch.sample import OpenSample
from lbrun.dispatch.suspects import SEEN_TO_LIVE_S, Suspects
from lbrun.dispatch.trials import ALL_WITHIN_S, THOROUGH_WATCH_S, WATCH_S, Trials

TICK_S = 0.05


class Heard:
    """When each server last sent a byte."""

    def __init__(self) -> None:
        self.at_s: dict[int, float] = {}

    def __call__(self, server: int) -> int:
        return int(self.at_s.get(server, 0.0) * 1e9)


def a_sample(index: int = 0, server: int = -1, deaths: set[int] | None = None) -> OpenSample:
    sample = OpenSample(index, index, 0, 1)
    sample.server = server
    sample.history = History(deaths=deaths or {9})
    return sample


def tick(trials: Trials, from_s: float, n: int) -> float:
    for i in range(1, n + 1):
        trials.tick(0, from_s + i * TICK_S)
    return from_s + n * TICK_S


def test_a_server_takes_one_suspect_at_a_time() -> None:
    trials = Trials(Heard())
    first = a_sample(1, server=0)
    trials.begin(0, first, 10.0)
    assert trials.open_among([0, 1], 10.0) == [1]
    trials.end(first, 10.1)
    assert trials.open_among([0, 1], 10.1) == [0, 1]


def test_a_server_that_is_heard_of_after_it_got_a_suspect_takes_the_next() -> None:
    heard = Heard()
    trials = Trials(heard)
    trials.begin(0, a_sample(server=0), 10.0)
    now_s = tick(trials, 10.0, 4)
    assert trials.open_among([0], now_s) == []
    heard.at_s[0] = now_s
    assert trials.open_among([0], now_s) == [0]


def test_bytes_that_were_read_late_are_no_sign_of_life() -> None:
    """A loop that was held up reads what came before the suspect did any harm, and stamps it late."""
    heard = Heard()
    trials = Trials(heard)
    trials.begin(0, a_sample(server=0), 10.0)
    heard.at_s[0] = 10.9
    trials.tick(0, 11.0)
    assert trials.open_among([0], 11.0) == []


def test_a_silent_server_is_not_waited_for_without_end() -> None:
    trials = Trials(Heard())
    trials.begin(0, a_sample(server=0), 10.0)
    assert trials.open_among([0], 10.0 + WATCH_S * 0.9) == []
    assert trials.open_among([0], 10.0 + WATCH_S * 1.1) == [0]


def test_a_suspect_of_the_second_degree_is_watched_until_it_is_answered() -> None:
    heard = Heard()
    trials = Trials(heard)
    suspect = a_sample(server=0, deaths={8, 9})
    trials.begin(0, suspect, 10.0)
    now_s = heard.at_s[0] = tick(trials, 10.0, 10)
    assert trials.open_among([0], now_s) == []
    assert trials.may_have_killed(suspect, 10.0 + THOROUGH_WATCH_S * 0.9)
    trials.end(suspect, now_s)
    assert trials.open_among([0], now_s) == [0]


def test_the_end_of_a_trial_is_the_turn_of_the_next_and_of_nobody_else() -> None:
    trials = Trials(Heard())
    tried, waiting, bystander = a_sample(1, server=0), a_sample(2), a_sample(3, server=0)
    trials.begin(0, tried, 0.0)
    trials.wait(waiting)
    assert trials.end(bystander, 1.0) is None
    assert trials.end(tried, 1.0) is waiting
    assert trials.end(tried, 1.0) is None


@given(st.integers(0, 20), st.integers(1, 5))
def test_all_that_wait_come_out_once_and_in_order(n: int, n_servers: int) -> None:
    trials = Trials(Heard())
    waiting = [a_sample(i) for i in range(n)]
    for sample in waiting:
        trials.wait(sample)
    out = [*trials.tick(n_servers, 1.0), *trials.clear()]
    assert out == waiting
    assert trials.clear() == []


@settings(deadline=None)
@given(st.integers(1, 600), st.floats(0.0, 60.0), st.integers(1, 4))
def test_suspects_of_servers_that_answer_slowly_are_soon_all_on_their_way(
    n: int, answer_s: float, n_servers: int
) -> None:
    heard, servers, now_s = Heard(), list(range(n_servers)), 100.0
    heard.at_s[9] = now_s
    trials = Trials(heard)
    trials.server_died(9, now_s)
    waiting = [a_sample(i) for i in range(n)]
    out: list[tuple[float, OpenSample]] = []
    while waiting:
        for sample in waiting:
            where = trials.open_among(servers, now_s)
            if where:
                sample.server = where[0]
                trials.begin(where[0], sample, now_s)
                out.append((now_s + answer_s, sample))
            else:
                trials.wait(sample)
        now_s += TICK_S
        ended = [sample for end_s, sample in out if end_s <= now_s]
        out = [(end_s, sample) for end_s, sample in out if end_s > now_s]
        followers = [trials.end(sample, now_s) for sample in ended]
        waiting = [f for f in followers if f is not None] + list(trials.tick(n_servers, now_s))
        if not waiting and out:
            waiting = list(trials.tick(n, now_s))
        assert now_s < 100.0 + 3 * ALL_WITHIN_S


def test_a_sample_is_a_suspect_while_a_server_that_lost_it_may_be_dead() -> None:
    history = History(undecided={1})
    assert history.is_suspect(in_doubt=[1])
    assert not history.is_suspect(in_doubt=[0])
    assert History(deaths={1}).is_suspect(in_doubt=[])
    assert not History().is_suspect(in_doubt=[0, 1])
    assert not History(deaths={1}, outlived={1}).is_suspect(in_doubt=[])
    assert History(deaths={1, 2}, outlived={1, 2}).is_suspect(in_doubt=[])


def test_only_the_suspect_that_its_server_was_trying_may_have_killed_it() -> None:
    trials = Trials(Heard())
    first, second = a_sample(1, server=0), a_sample(2, server=0)
    trials.begin(0, first, 10.0)
    assert trials.may_have_killed(first, 10.0 + WATCH_S)
    assert not trials.may_have_killed(first, 10.1 + WATCH_S)
    trials.begin(0, second, 20.1)
    assert not trials.may_have_killed(first, 20.1)
    assert trials.may_have_killed(second, 20.1)


def test_deaths_that_a_sample_has_outlived_do_not_make_it_poison() -> None:
    assert History(deaths={0, 1}).is_poison
    assert not History(deaths={0, 1}, outlived={1}).is_poison
    assert not History(deaths={0, 1, 2}, outlived={1, 2}).is_poison
    assert History(deaths={0, 1, 2}, outlived={1}).is_poison


def test_a_sample_that_was_not_sent_as_a_suspect_has_outlived_nothing() -> None:
    trials = Trials(Heard())
    trials.begin(0, a_sample(1, server=0), 10.0)
    assert trials.may_have_killed(a_sample(2, server=0), 20.0)


# -- the books


def lose(suspects: Suspects, sample: OpenSample, server: int, sent_s: float, lost_s: float) -> History:
    """The sample loses its attempt at a server, which is then found dead."""
    sample.server = server
    history = sample.history = sample.history or History()
    failure = AttemptFailure(
        FailureKind.LOST_BEFORE_BYTE, "gone", int(lost_s * 1e9), sent_ns=int(sent_s * 1e9), sent=True
    )
    suspects.note(sample, history, failure, lost_s)
    suspects.died(server, lost_s)
    return history


def fresh_sample(index: int = 0) -> OpenSample:
    return OpenSample(index, index, 0, 1)


def test_servers_that_die_the_same_way_under_a_sample_convict_it() -> None:
    for lasted_s in (0.01, 5.4):
        suspects, sample = Suspects(Heard()), fresh_sample()
        lose(suspects, sample, 0, 10.0, 10.0 + lasted_s)
        assert lose(suspects, sample, 1, 20.0, 20.1 + lasted_s).is_poison


def test_a_server_that_went_on_for_long_with_a_sample_has_not_died_of_it() -> None:
    heard = Heard()
    suspects, sample = Suspects(heard), fresh_sample()
    heard.at_s[0] = 10.1 + SEEN_TO_LIVE_S
    history = lose(suspects, sample, 0, 10.0, 20.0)
    assert history.deaths == {0}
    assert not history.is_suspect(in_doubt=[])


def test_a_sample_that_was_there_by_chance_is_not_given_up_with_two_servers() -> None:
    """The first had it for 3 s before it went down, the second for no time: nothing kills so differently."""
    suspects, sample = Suspects(Heard()), fresh_sample()
    lose(suspects, sample, 0, 10.0, 13.0)
    history = lose(suspects, sample, 1, 14.0, 14.01)
    assert history.deaths == {0, 1}
    assert not history.is_poison


def test_once_the_guilty_is_found_the_others_are_free() -> None:
    suspects, guilty, innocent = Suspects(Heard()), fresh_sample(1), fresh_sample(2)
    lose(suspects, innocent, 0, 10.0, 10.01)
    lose(suspects, guilty, 0, 10.0, 10.01)
    suspects.trials.wait(innocent)
    history = lose(suspects, guilty, 1, 11.0, 11.01)
    assert history.is_poison
    assert suspects.convict(history) == [innocent]
    assert innocent.history is not None
    assert not innocent.history.is_suspect(in_doubt=[])
