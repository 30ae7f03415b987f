"""What follows from each kind of failure, without sockets or clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.attempt import AttemptFailure, FailureKind
from lbrun.dispatch.retry import (
    LOST_PAUSE_S,
    VERDICT_S,
    History,
    Plan,
    RetryPolicy,
    RetryRules,
    is_charged,
)

ALL = [0, 1, 2]
SERVER_FAULTS = [
    FailureKind.HTTP_5XX,
    FailureKind.HTTP_503,
    FailureKind.MALFORMED,
    FailureKind.ERROR_IN_ANSWER,
    FailureKind.NO_END_MARK,
    FailureKind.CUT,
    FailureKind.EMPTY_ANSWER,
    FailureKind.IDLE_TIMEOUT,
    FailureKind.FIRST_BYTE_TIMEOUT,
    FailureKind.REFUSED,
    FailureKind.CONNECT_TIMEOUT,
    FailureKind.DNS,
    FailureKind.TLS,
]


def rules(**policy: float) -> RetryRules:
    return RetryRules(RetryPolicy(**policy))  # type: ignore[arg-type]


def failure(kind: FailureKind, **fields: object) -> AttemptFailure:
    return AttemptFailure(kind, f"it was {kind.name}", 0, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SERVER_FAULTS)
def test_a_servers_fault_sends_the_sample_to_an_untried_server_at_once(kind: FailureKind) -> None:
    r, h = rules(), History()
    r.note(h, 0, failure(kind), 10.0)
    assert r.plan(h, ALL, ALL, [], 10.0).candidates == [1, 2]


def test_the_same_server_is_asked_again_only_after_a_wait_that_doubles() -> None:
    r, h = rules(max_retries_per_server=5), History()
    waits = []
    now = 0.0
    for _ in range(4):
        r.note(h, 0, failure(FailureKind.HTTP_5XX), now)
        plan = r.plan(h, [0], [0], [], now)
        assert not plan.candidates
        waits.append(h.ready_at_s[0] - now)
        now = h.ready_at_s[0]
        assert r.plan(h, [0], [0], [], now).candidates == [0]
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4])


@pytest.mark.parametrize("n_servers", [1, 2, 3])
@pytest.mark.parametrize("per_server", [1, 3])
def test_a_sample_gets_at_most_n_attempts_on_each_server(n_servers: int, per_server: int) -> None:
    r, h = rules(max_retries_per_server=per_server), History()
    servers = list(range(n_servers))
    now, attempts = 0.0, 0
    while True:
        plan = r.plan(h, servers, servers, [], now)
        if plan.failure:
            break
        if plan.candidates:
            attempts += 1
            r.note(h, plan.candidates[0], failure(FailureKind.HTTP_5XX), now)
        now = plan.again_at_s if plan.again_at_s is not None else now
    assert attempts == n_servers * per_server
    assert "on every server" in plan.failure


def test_a_closed_keep_alive_connection_means_the_same_server_again_on_a_new_connection() -> None:
    r, h = rules(), History()
    r.note(h, 1, failure(FailureKind.STALE_CONNECTION, sent=True, reused=True), 0.0)
    plan = r.plan(h, ALL, ALL, [], 0.0)
    assert (list(plan.candidates), plan.fresh) == ([1], True)
    assert not h.counts


def test_4xx_is_tried_once_on_each_other_server_and_never_again_on_the_same() -> None:
    r, h = rules(), History()
    for server in ALL:
        plan = r.plan(h, ALL, ALL, [], 0.0)
        assert server in plan.candidates
        r.note(h, server, failure(FailureKind.HTTP_4XX, status=400), 0.0)
        assert server not in r.plan(h, ALL, ALL, [], 99.0).candidates
    plan = r.plan(h, ALL, ALL, [], 0.0)
    assert plan.bad_request
    assert "refused by every server" in (plan.failure or "")


def test_429_waits_for_its_retry_after_and_is_no_attempt() -> None:
    r, h = rules(max_retries_per_server=1), History()
    r.note(h, 0, failure(FailureKind.HTTP_429, retry_after_s=1.5), 100.0)
    assert r.plan(h, [0], [0], [], 101.4).again_at_s == 101.5
    assert r.plan(h, [0], [0], [], 101.5).candidates == [0]
    assert r.plan(h, ALL, ALL, [], 100.0).candidates == [1, 2], "load shifts meanwhile"


def test_a_long_retry_after_is_for_the_pool_to_grant_not_for_the_sample_to_wait() -> None:
    r, h = rules(wait_cap_s=2.0), History()
    r.note(h, 0, failure(FailureKind.HTTP_429, retry_after_s=30.0), 100.0)
    assert r.plan(h, [0], [0], [], 102.0).candidates == [0]


def test_429_is_never_the_end_however_often_but_after_minutes_of_nothing_else() -> None:
    r, h = rules(put_off_s=60.0), History()
    for second in range(60):
        r.note(h, 0, failure(FailureKind.HTTP_429), float(second))
        r.note(h, 1, failure(FailureKind.HTTP_429), float(second))
    assert r.plan(h, ALL, ALL, [], 60.0).candidates
    plan = r.plan(h, ALL, ALL, [], 60.1)
    assert "put off 120 times, for 60 s" in (plan.failure or "")
    assert plan.put_off


def test_an_attempt_that_was_let_in_ends_the_time_of_being_put_off() -> None:
    r, h = rules(put_off_s=60.0), History()
    r.note(h, 0, failure(FailureKind.HTTP_429), 0.0)
    r.note(h, 0, failure(FailureKind.HTTP_5XX), 59.0)
    r.note(h, 0, failure(FailureKind.HTTP_429), 60.0)
    assert r.plan(h, ALL, ALL, [], 119.0).failure is None


def test_a_503_that_asks_for_more_time_gets_it_at_that_server() -> None:
    r, h = rules(), History()
    r.note(h, 0, failure(FailureKind.HTTP_503, retry_after_s=7.0), 100.0)
    assert r.plan(h, [0], [0], [], 100.0).again_at_s == 107.0
    assert r.plan(h, ALL, ALL, [], 100.0).candidates == [1, 2]


def test_an_evicted_attempt_costs_the_sample_nothing() -> None:
    r, h = rules(max_retries_per_server=1), History()
    for _ in range(50):
        r.note(h, 0, failure(FailureKind.EVICTED, sent=True), 0.0)
    assert r.plan(h, [1], [1], [0], 0.0).candidates == [1]


def test_two_deaths_under_a_sample_make_it_poison() -> None:
    r, h = rules(), History()
    h.deaths = {0, 1}
    plan = r.plan(h, [2], [2], [], 5.0)
    assert not plan.candidates
    assert "death of two servers" in (plan.failure or "")


def test_a_sample_waits_while_it_is_undecided_whether_it_killed_a_second_server() -> None:
    r, h = rules(), History()
    h.deaths = {0}
    r.note(h, 1, failure(FailureKind.LOST_BEFORE_BYTE, sent=True), 5.0)
    h.undecided = {1}
    now = 5.0 + LOST_PAUSE_S
    assert r.plan(h, [2], [1, 2], [], now, in_doubt=[1]).again_at_s is not None
    h.undecided.clear()
    assert r.plan(h, [2], [1, 2], [], now, in_doubt=[1]).candidates == [2]


def test_a_sample_does_not_wait_for_a_verdict_that_nobody_is_about_to_give() -> None:
    r, h = rules(), History()
    for server in (0, 1):
        r.note(h, server, failure(FailureKind.CUT, sent=True, any_byte=True), 5.0)
    h.undecided = {0, 1}
    now = 5.0 + LOST_PAUSE_S
    assert r.plan(h, ALL, ALL, [], now, in_doubt=[]).candidates == [2]
    assert r.plan(h, [2], ALL, [], now, in_doubt=[0]).again_at_s is not None
    assert r.plan(h, [2], ALL, [], 5.0 + VERDICT_S, in_doubt=[0]).candidates == [2]


def test_want_of_descriptors_puts_a_sample_off_wherever_it_would_go() -> None:
    r, h = rules(max_retries_per_server=1), History()
    r.note(h, 0, failure(FailureKind.LOCAL), 7.0)
    assert r.plan(h, ALL, ALL, [], 7.0).again_at_s == pytest.approx(7.05)
    assert r.plan(h, ALL, ALL, [], 7.05).candidates == ALL


def test_the_wait_for_the_same_server_is_as_long_as_it_was_set_and_no_longer() -> None:
    r, h = rules(), History()
    r.note(h, 0, failure(FailureKind.HTTP_5XX), 7.0)
    assert r.plan(h, [0], [0], [], 7.0).again_at_s == pytest.approx(7.05)


@pytest.mark.parametrize("kind", [FailureKind.LOST_BEFORE_BYTE, FailureKind.CUT])
@pytest.mark.parametrize("reused", [False, True])
def test_a_lost_sample_pauses_so_that_servers_that_go_together_are_known_to_be_gone(
    kind: FailureKind, reused: bool
) -> None:
    r, h = rules(), History()
    r.note(h, 0, failure(kind, sent=True, reused=reused), 1.0)
    assert r.plan(h, [1], [1], [0], 1.0).again_at_s == pytest.approx(1.0 + LOST_PAUSE_S)
    assert r.plan(h, [1], [1], [0], 1.0 + LOST_PAUSE_S).candidates == [1]


def test_a_stale_connection_is_replaced_at_once_and_pauses_only_where_its_server_is_gone() -> None:
    r, h = rules(), History()
    r.note(h, 0, failure(FailureKind.STALE_CONNECTION, sent=True, reused=True), 1.0)
    h.undecided = {0}
    assert r.plan(h, ALL, ALL, [], 1.0) == Plan(candidates=(0,), fresh=True)
    assert r.plan(h, [1, 2], ALL, [], 1.0).again_at_s == pytest.approx(1.0 + LOST_PAUSE_S)
    r.note(h, 0, failure(FailureKind.REFUSED), 1.0)
    assert r.plan(h, [1, 2], ALL, [], 1.0).again_at_s == pytest.approx(1.0 + LOST_PAUSE_S)
    assert r.plan(h, [1, 2], ALL, [], 1.0 + LOST_PAUSE_S).candidates == [1, 2]


def test_full_servers_are_waited_for_without_end_and_dead_ones_for_the_grace_time() -> None:
    r, h = rules(grace_s=30.0), History()
    r.note(h, 0, failure(FailureKind.HTTP_5XX), 0.0)
    assert r.plan(h, [], [0, 1], [], 10_000.0).again_at_s is not None
    assert r.plan(h, [], [], [0, 1], 20_000.0).again_at_s is not None
    assert r.plan(h, [], [], [0, 1], 20_029.0).again_at_s is not None
    assert r.plan(h, [], [], [0, 1], 20_031.0).failure


def test_only_retries_that_cost_a_server_work_are_paced() -> None:
    assert is_charged(FailureKind.HTTP_5XX)
    assert is_charged(FailureKind.CUT)
    assert not is_charged(FailureKind.EVICTED)
    assert not is_charged(FailureKind.REFUSED)
    assert not is_charged(FailureKind.HTTP_4XX)


KINDS = st.sampled_from(list(FailureKind))


@given(
    st.lists(st.tuples(st.integers(0, 3), KINDS, st.booleans()), max_size=60),
    st.sets(st.integers(0, 3)),
    st.sets(st.integers(0, 3)),
    st.floats(0, 1e6),
)
def test_a_plan_is_always_one_thing_and_never_breaks_the_bounds(
    events: list[tuple[int, FailureKind, bool]], eligible: set[int], returning: set[int], now: float
) -> None:
    """Whatever a sample has been through: it is sent, put off, or failed; never to an exhausted server."""
    r, h = rules(), History()
    for server, kind, sent in events:
        r.note(h, server, failure(kind, sent=sent, status=400), now)
    up = sorted(eligible)
    plan = r.plan(h, up, up, sorted(returning - eligible), now)
    assert [bool(plan.candidates), plan.again_at_s is not None, plan.failure is not None].count(True) == 1
    if plan.again_at_s is not None:
        assert plan.again_at_s > now or now > 1e5
    for server in plan.candidates:
        assert server in eligible
        assert plan.fresh or not r.exhausted_at(h, server)
