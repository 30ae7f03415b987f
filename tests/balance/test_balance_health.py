"""The state machine, driven through a pool with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbrun.attempt import FailureKind
from lbrun.balance import ProbeOutcome, ServerState
from lbrun.balance.states import BLAME, Blame, DueProbe

OK, REFUSED, TIMEOUT = ProbeOutcome.OK, ProbeOutcome.REFUSED, ProbeOutcome.TIMEOUT
LOADING, WRONG_MODEL = ProbeOutcome.LOADING, ProbeOutcome.WRONG_MODEL

COUNTING = [kind for kind, blame in BLAME.items() if blame in (Blame.COUNTS, Blame.SLOW)]
SUSPICIOUS = [kind for kind, blame in BLAME.items() if blame is Blame.SUSPICIOUS]
BLAMELESS = [kind for kind, blame in BLAME.items() if blame is Blame.NONE]


def always(outcome: ProbeOutcome) -> Callable[[DueProbe], ProbeOutcome]:
    return lambda probe: outcome


def fail(bench, kind=FailureKind.HTTP_5XX, server=0, times=1, started_s=None) -> None:
    """Let attempts at the server fail; they were begun just now unless said otherwise."""
    for _ in range(times):
        started = bench.now_s if started_s is None else started_s
        bench.pool.failed_attempt(server, kind, bench.now_s, started_s=started, message="boom")


def states(bench) -> list[ServerState]:
    return [transition.new for transition in bench.transitions]


def test_every_kind_of_failure_is_judged() -> None:
    assert set(BLAME) == set(FailureKind)


# -- starting


def test_a_server_is_ready_after_two_answers_with_the_model_listed(make_bench) -> None:
    bench = make_bench(1, ready=False)
    asked = []

    def answer(probe: DueProbe) -> ProbeOutcome:
        asked.append(probe.with_model)
        return OK

    bench.probe(answer)
    assert bench.pool.state(0) is ServerState.STARTING
    bench.pass_time(0.3, answer)
    assert bench.pool.state(0) is ServerState.READY
    assert asked == [True, True]


def test_a_starting_server_is_polled_quickly_at_first_and_then_once_a_second(make_bench) -> None:
    bench = make_bench(1, ready=False)
    gaps = []
    for _ in range(8):
        bench.probe(always(REFUSED))
        gaps.append(bench.pool.next_probe_s() - bench.now_s)
        bench.now_s = bench.pool.next_probe_s()
    assert gaps == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0])


def test_two_answers_with_a_failure_between_do_not_make_a_server_ready(make_bench) -> None:
    bench = make_bench(1, ready=False)
    answers = iter([OK, LOADING, OK, REFUSED])
    for _ in range(4):
        bench.probe(lambda probe: next(answers))
        bench.now_s += 1.0
    assert bench.pool.state(0) is ServerState.STARTING


def test_a_server_of_the_wrong_model_is_excluded_without_waiting_for_the_deadline(make_bench) -> None:
    bench = make_bench(1, ready=False)
    bench.pass_time(1.0, always(WRONG_MODEL))
    assert bench.pool.state(0) is ServerState.EXCLUDED


def test_a_server_that_was_not_ready_in_time_may_join_late(make_bench) -> None:
    bench = make_bench(1, ready=False)
    bench.pass_time(4.0, always(LOADING))
    bench.pool.exclude(0, "not ready", bench.now_s, may_join=bench.pool.policy.late_join)
    assert not bench.pool.lost_for_good
    bench.pass_time(6.0, always(OK))
    assert bench.pool.state(0) is ServerState.READY
    assert bench.pool.recoveries == [0]


def test_without_late_join_an_excluded_server_is_never_probed_again(make_bench) -> None:
    bench = make_bench(1, ready=False, late_join=False)
    bench.pass_time(1.0, always(WRONG_MODEL))
    assert bench.pool.state(0) is ServerState.EXCLUDED
    assert bench.pool.next_probe_s() == float("inf")
    assert bench.pool.lost_for_good


# -- failures that count


@pytest.mark.parametrize("kind", COUNTING)
def test_three_failures_in_a_row_eject(make_bench, kind: FailureKind) -> None:
    bench = make_bench(2)
    fail(bench, kind, times=2)
    assert bench.transitions == []
    fail(bench, kind)
    assert states(bench) == [ServerState.EJECTED]
    assert bench.transitions[0].evicts
    assert bench.transitions[0].gone is (kind is FailureKind.CUT)
    assert bench.pool.eligible == [1]
    assert bench.pool.ejections == [1, 0]


def test_a_success_between_starts_the_count_anew(make_bench) -> None:
    bench = make_bench(2)
    for _ in range(2):
        fail(bench, times=2)
        for _ in range(3):
            bench.pool.succeeded(0, bench.now_s)
    assert bench.transitions == []


def test_half_of_twenty_within_ten_seconds_eject(make_bench) -> None:
    bench = make_bench(2)
    for _ in range(9):
        fail(bench)
        bench.pool.succeeded(0, bench.now_s)
    assert bench.transitions == []
    bench.pool.succeeded(0, bench.now_s)
    fail(bench)
    assert states(bench) == [ServerState.EJECTED]
    assert "10 of 20 attempts failed within 10 s" in bench.transitions[0].reason


def test_half_of_twenty_over_a_longer_time_do_not_eject(make_bench) -> None:
    bench = make_bench(2)
    for _ in range(40):
        fail(bench)
        bench.pool.succeeded(0, bench.now_s)
        bench.now_s += 1.5
    assert bench.transitions == []


def test_thirty_percent_of_failures_do_not_eject(make_bench) -> None:
    bench = make_bench(2)
    for i in range(200):
        if i % 10 in (0, 3, 6):
            fail(bench)
        else:
            bench.pool.succeeded(0, bench.now_s)
        bench.now_s += 0.02
    assert bench.transitions == []


@pytest.mark.parametrize("kind", BLAMELESS)
def test_a_blameless_failure_never_changes_a_state(make_bench, kind: FailureKind) -> None:
    bench = make_bench(1)
    fail(bench, kind, times=50)
    assert bench.transitions == []
    assert bench.pool.failed == [50]


@pytest.mark.parametrize(
    "kind", [FailureKind.FIRST_BYTE_TIMEOUT, FailureKind.IDLE_TIMEOUT, FailureKind.TOTAL_TIMEOUT]
)
def test_slowness_never_ejects_the_last_server(make_bench, kind: FailureKind) -> None:
    bench = make_bench(2)
    fail(bench, kind, server=0, times=3)
    fail(bench, kind, server=1, times=30)
    assert [t.server for t in bench.transitions] == [0]
    assert bench.pool.eligible == [1]


def test_hard_failures_may_eject_the_last_server(make_bench) -> None:
    bench = make_bench(1)
    fail(bench, FailureKind.HTTP_5XX, times=3)
    assert states(bench) == [ServerState.EJECTED]
    assert bench.pool.all_down_since_s == bench.now_s
    assert not bench.pool.lost_for_good


def test_a_refusal_that_others_serve_counts_when_it_is_found_out(make_bench) -> None:
    bench = make_bench(2)
    for _ in range(3):
        bench.pool.blame(0, "400 that server-1 serves", bench.now_s)
    assert states(bench) == [ServerState.EJECTED]


def test_a_refusal_on_trial_ends_it_while_others_can_answer(make_bench) -> None:
    """Or a server that refuses everything at once would be sent one sample after another."""
    bench = ejected(make_bench)
    bench.pass_time(2.0, always(OK))
    assert bench.pool.state(0) is ServerState.TRIAL
    fail(bench, FailureKind.HTTP_4XX)
    assert bench.pool.state(0) is ServerState.EJECTED


def test_refusals_do_not_end_the_trial_of_the_last_server(make_bench) -> None:
    """The request may be at fault: a 4xx never empties the pool."""
    bench = ejected(make_bench, n=1)
    bench.pass_time(2.0, always(OK))
    fail(bench, FailureKind.HTTP_4XX, times=5)
    assert bench.pool.state(0) is ServerState.TRIAL
    bench.pool.blame(0, "400 that server-1 serves", bench.now_s)
    assert bench.pool.state(0) is ServerState.EJECTED


def test_refusals_from_before_the_ejection_blame_nobody_when_they_are_found_out(make_bench) -> None:
    bench = ejected(make_bench)
    before_s = bench.now_s - 1.0
    bench.pass_time(2.0, always(OK))
    bench.pool.blame(0, "400 that server-1 serves", bench.now_s, started_s=before_s)
    assert bench.pool.state(0) is ServerState.TRIAL
    bench.pool.succeeded(0, bench.now_s)
    for _ in range(5):
        bench.pool.blame(0, "400 that server-1 serves", bench.now_s, started_s=before_s)
    assert bench.pool.state(0) is ServerState.READY


# -- suspicion


@pytest.mark.parametrize("kind", SUSPICIOUS)
def test_a_suspect_gets_no_new_work_and_is_probed_at_once(make_bench, kind: FailureKind) -> None:
    bench = make_bench(2)
    fail(bench, kind)
    assert states(bench) == [ServerState.SUSPECT]
    assert bench.pool.eligible == [1]
    assert bench.pool.due_probes(bench.now_s) == [DueProbe(0, 3, with_model=True, must_tell=False)]


def test_a_killed_server_is_out_within_a_second(make_bench) -> None:
    bench = make_bench(2)
    fail(bench, FailureKind.REFUSED)
    started_s = bench.now_s
    bench.probe(always(REFUSED))
    bench.pass_time(1.0, always(REFUSED))
    assert states(bench) == [ServerState.SUSPECT, ServerState.EJECTED]
    assert bench.transitions[-1].now_s - started_s < 0.5
    assert bench.transitions[-1].gone


def test_a_suspect_that_answers_its_probe_is_ready_again_with_one_failure_for_the_incident(
    make_bench,
) -> None:
    bench = make_bench(2)
    for _ in range(2):
        fail(bench, FailureKind.LOST_BEFORE_BYTE, times=64)
        bench.probe(always(OK))
        assert bench.pool.state(0) is ServerState.READY
    fail(bench, FailureKind.LOST_BEFORE_BYTE, times=64)
    bench.probe(always(OK))
    assert bench.pool.state(0) is ServerState.EJECTED
    assert "3 failures in a row, though it answers probes" in bench.transitions[-1].reason


def test_a_server_that_loads_again_goes_back_to_starting_and_returns(make_bench) -> None:
    bench = make_bench(2)
    fail(bench, FailureKind.HTTP_503)
    bench.probe(always(LOADING))
    assert bench.pool.state(0) is ServerState.STARTING
    assert bench.transitions[-1].evicts
    bench.pass_time(5.0, always(LOADING))
    bench.pass_time(2.0, always(OK))
    assert bench.pool.state(0) is ServerState.READY
    assert (bench.pool.ejections[0], bench.pool.recoveries[0]) == (0, 1)


def test_a_server_that_loads_again_for_longer_than_it_may_is_excluded(make_bench) -> None:
    bench = make_bench(2, ready_timeout_s=3.0)
    fail(bench, FailureKind.HTTP_503)
    bench.probe(always(LOADING))
    bench.pass_time(3.5, always(LOADING))
    assert bench.pool.state(0) is ServerState.EXCLUDED


def test_a_server_that_dies_while_it_loads_again_is_ejected(make_bench) -> None:
    bench = make_bench(2)
    fail(bench, FailureKind.HTTP_503)
    bench.probe(always(LOADING))
    bench.pass_time(1.0, always(REFUSED))
    assert bench.pool.state(0) is ServerState.EJECTED
    assert bench.transitions[-1].gone


def test_a_stalled_server_that_answers_its_probe_is_left_alone_for_another_stall(make_bench) -> None:
    bench = make_bench(2, stall_s=4.0)
    bench.pool.stalled(0, bench.now_s)
    bench.probe(always(OK))
    assert states(bench) == [ServerState.SUSPECT, ServerState.READY]
    bench.pool.stalled(0, bench.now_s + 3.9)
    assert bench.pool.state(0) is ServerState.READY
    bench.pool.stalled(0, bench.now_s + 4.0)
    assert bench.pool.state(0) is ServerState.SUSPECT


def test_however_long_a_queue_is_a_server_that_answers_probes_stays_in_the_pool(make_bench) -> None:
    """A server ten times slower, or one whose answers take minutes, is never ejected for it."""
    bench = make_bench(2)
    for _ in range(600):
        bench.pool.stalled(0, bench.now_s)
        bench.probe(always(OK))
        bench.now_s += 0.5
    assert ServerState.EJECTED not in states(bench)


def test_a_probe_that_this_machine_could_not_make_blames_nobody(make_bench) -> None:
    bench = make_bench(1)
    fail(bench, FailureKind.REFUSED)
    bench.probe(always(ProbeOutcome.LOCAL))
    bench.pass_time(5.0, always(ProbeOutcome.LOCAL))
    assert bench.pool.state(0) is ServerState.SUSPECT
    bench.pass_time(0.3, always(OK))
    assert bench.pool.state(0) is ServerState.READY


def test_the_result_of_an_overtaken_probe_is_ignored(make_bench) -> None:
    bench = make_bench(2)
    fail(bench, FailureKind.REFUSED)
    (probe,) = bench.pool.due_probes(bench.now_s)
    bench.pool.exclude(0, "401", bench.now_s)
    bench.pool.probe_result(probe, OK, "", bench.now_s)
    assert bench.pool.state(0) is ServerState.EXCLUDED


# -- ejection and return


def ejected(make_bench, n=2, **options):
    bench = make_bench(n, **options)
    fail(bench, times=3)
    assert bench.pool.state(0) is ServerState.EJECTED
    bench.transitions.clear()
    return bench


def test_an_ejected_server_returns_through_a_trial(make_bench) -> None:
    bench = ejected(make_bench)
    bench.pass_time(2.0, always(OK))
    assert states(bench) == [ServerState.TRIAL]
    bench.pool.succeeded(0, bench.now_s)
    assert states(bench) == [ServerState.TRIAL, ServerState.READY]
    assert bench.pool.recoveries == [1, 0]


def test_a_server_dead_for_long_is_back_within_two_seconds_of_its_return(make_bench) -> None:
    bench = ejected(make_bench)
    bench.pass_time(120.0, always(REFUSED))
    bench.pass_time(2.0, always(OK))
    assert bench.pool.state(0) is ServerState.TRIAL


def test_on_trial_one_request_at_a_time(make_bench) -> None:
    bench = ejected(make_bench, n=1)
    bench.pass_time(2.0, always(OK))
    assert bench.pool.acquire(1) == 0
    assert bench.pool.acquire(1) is None
    bench.pool.release(0, 1)
    bench.pool.succeeded(0, bench.now_s)
    assert bench.pool.acquire(1) == 0


def test_a_pause_during_the_trial_does_not_end_it_for_ever(make_bench) -> None:
    bench = ejected(make_bench, n=1)
    bench.pass_time(2.0, always(OK))
    assert bench.pool.acquire(1) == 0
    bench.pool.release(0, 1)
    fail(bench, FailureKind.HTTP_429)
    assert bench.pool.eligible == []
    bench.pass_time(1.5)
    assert bench.pool.state(0) is ServerState.TRIAL
    assert bench.pool.acquire(1) == 0


def test_a_flapping_server_is_kept_out_longer_and_longer_up_to_the_cap(make_bench) -> None:
    bench = ejected(make_bench, backoff_jitter=0.0)
    out_s = []
    for _ in range(8):
        left_s = bench.now_s
        while bench.pool.state(0) is not ServerState.TRIAL:
            bench.pass_time(0.1, always(OK))
        out_s.append(bench.now_s - left_s)
        fail(bench, FailureKind.CUT)
        assert bench.pool.state(0) is ServerState.EJECTED
    assert out_s[0] <= 1.5
    assert out_s[1:] == pytest.approx([2, 4, 8, 16, 30, 30, 30], abs=0.3)


def test_health_for_minutes_is_forgiveness(make_bench) -> None:
    bench = ejected(make_bench, backoff_jitter=0.0)
    for _ in range(4):
        bench.pass_time(40.0, always(OK))
        fail(bench, FailureKind.CUT)
    assert bench.pool.health[0]._backoff.exponent == 4
    bench.pass_time(40.0, always(OK))
    bench.pool.succeeded(0, bench.now_s)
    bench.now_s += 185.0
    fail(bench, times=3)
    assert bench.pool.health[0]._backoff.exponent == 1


def test_attempts_from_before_the_ejection_blame_nobody_afterwards(make_bench) -> None:
    bench = ejected(make_bench)
    before_s = bench.now_s - 1.0
    bench.pass_time(2.0, always(OK))
    fail(bench, FailureKind.IDLE_TIMEOUT, times=5, started_s=before_s)
    assert bench.pool.state(0) is ServerState.TRIAL
    bench.pool.succeeded(0, bench.now_s)
    fail(bench, FailureKind.CUT, times=5, started_s=before_s)
    assert bench.pool.state(0) is ServerState.READY


def test_a_stall_on_trial_is_cleared_up_by_a_probe_and_the_trial_goes_on(make_bench) -> None:
    bench = ejected(make_bench, n=1)
    bench.pass_time(2.0, always(OK))
    assert bench.pool.acquire(1) == 0
    bench.pool.stalled(0, bench.now_s)
    bench.probe(always(OK))
    assert bench.pool.state(0) is ServerState.TRIAL
    assert bench.pool.acquire(1) is None
    bench.pool.stalled(0, bench.now_s + 10)
    bench.now_s += 10
    bench.probe(always(TIMEOUT))
    bench.pass_time(0.3, always(TIMEOUT))
    assert bench.pool.state(0) is ServerState.EJECTED


def test_what_was_left_in_flight_and_hangs_does_not_take_the_trials_place(make_bench) -> None:
    bench = make_bench(1)
    assert bench.pool.acquire(1) == 0
    fail(bench, FailureKind.CUT, times=3)
    bench.pass_time(2.0, always(OK))
    assert bench.pool.state(0) is ServerState.TRIAL
    bench.pool.stalled(0, bench.now_s)
    bench.probe(always(OK))
    assert bench.pool.state(0) is ServerState.TRIAL
    assert bench.pool.acquire(1) == 0
    assert bench.pool.acquire(1) is None


def test_without_recovery_an_ejected_server_stays_out_for_good(make_bench) -> None:
    bench = ejected(make_bench, n=1, recovery=False)
    assert bench.pool.lost_for_good
    bench.pass_time(120.0, always(OK))
    assert bench.transitions == []


def test_without_recovery_a_loading_server_is_ejected(make_bench) -> None:
    bench = make_bench(2, recovery=False)
    fail(bench, FailureKind.HTTP_503)
    bench.probe(always(LOADING))
    bench.pass_time(0.3, always(LOADING))
    assert states(bench) == [ServerState.SUSPECT, ServerState.EJECTED]


def test_a_restart_with_another_model_does_not_come_back(make_bench) -> None:
    bench = ejected(make_bench)
    bench.pass_time(20.0, always(WRONG_MODEL))
    assert bench.transitions == []
    assert bench.pool.last_error[0] == "probe says wrong_model"


# -- orders


def test_an_excluded_server_is_out_for_good(make_bench) -> None:
    bench = make_bench(2)
    bench.pool.exclude(0, "401: others serve the same request", bench.now_s)
    bench.pass_time(60.0, always(OK))
    assert states(bench) == [ServerState.EXCLUDED]
    assert bench.pool.last_error[0].startswith("401")


def test_excluding_for_good_ends_a_late_join(make_bench) -> None:
    bench = make_bench(1, ready=False)
    bench.pool.exclude(0, "slow", bench.now_s, may_join=True)
    bench.pool.exclude(0, "401", bench.now_s)
    assert bench.pool.lost_for_good
    bench.pass_time(20.0, always(OK))
    assert bench.pool.state(0) is ServerState.EXCLUDED


def test_draining_ends_new_work_probes_and_blame(make_bench) -> None:
    bench = make_bench(2)
    assert bench.pool.acquire(1) == 0
    fail(bench, FailureKind.REFUSED, server=1)
    bench.pool.drain(bench.now_s)
    assert bench.pool.acquire(1) is None
    bench.transitions.clear()
    fail(bench, times=5)
    bench.pass_time(10.0, always(OK))
    bench.pool.release(0, 1)
    assert bench.transitions == []
    assert bench.pool.in_flight == [0, 0]


# -- failures are told before answers


def test_attempts_that_are_still_out_may_succeed_and_speak_for_a_server(make_bench) -> None:
    """Of 16 attempts sent together 5 fail at once, as on a server that fails now and then."""
    bench = make_bench(2)
    for _ in range(16):
        bench.pool.acquire_among([0], 1)
    for _ in range(5):
        bench.pool.release(0, 1)
        fail(bench)
    assert bench.pool.state(0) is ServerState.READY
    for _ in range(11):
        bench.pool.release(0, 1)
        bench.pool.succeeded(0, bench.now_s)
    assert bench.transitions == []


def test_a_server_that_fails_every_attempt_is_ejected_when_half_of_what_it_had_has_failed(make_bench) -> None:
    bench = make_bench(2)
    for _ in range(16):
        bench.pool.acquire_among([0], 1)
    for n in range(1, 9):
        assert bench.pool.state(0) is ServerState.READY, n
        bench.pool.release(0, 1)
        fail(bench)
    assert bench.pool.state(0) is ServerState.EJECTED
    assert "8 failures in a row" in bench.transitions[-1].reason


def test_late_blame_for_what_was_before_a_success_makes_no_row(make_bench) -> None:
    bench = make_bench(2)
    refused_s = bench.now_s
    bench.pass_time(1.0)
    bench.pool.succeeded(0, bench.now_s)
    for _ in range(5):
        bench.pool.blame(0, "HTTP 422", bench.now_s, started_s=refused_s)
    assert bench.pool.state(0) is ServerState.READY
    for _ in range(3):
        bench.pool.blame(0, "HTTP 422", bench.now_s, started_s=bench.now_s)
    assert bench.pool.state(0) is ServerState.EJECTED
