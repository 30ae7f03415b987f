"""The state machine of one server: events and the time go in, a transition or none comes out.

It does no I/O and reads no clock. `next_probe_s` says when the server wants to be probed; the monitor does so
and reports what it found. Every event makes at most one transition.
"""

from __future__ import annotations

from math import inf
from random import Random

from lbrun.attempt import FailureKind
from lbrun.balance.backoff import Backoff
from lbrun.balance.states import (
    BLAME,
    CONNECTION_LOST,
    Blame,
    DueProbe,
    HealthPolicy,
    ProbeOutcome,
    ServerState,
    Transition,
)
from lbrun.balance.window import OutcomeWindow

_STARTING, _READY, _SUSPECT = ServerState.STARTING, ServerState.READY, ServerState.SUSPECT
_EJECTED, _TRIAL = ServerState.EJECTED, ServerState.TRIAL
_EXCLUDED, _DRAINING = ServerState.EXCLUDED, ServerState.DRAINING

_FIRST_GAP_S = 0.1  # the first polls of a starting server follow each other quickly; the gap doubles


class ServerHealth:
    """What is known of one server's health. Times are seconds of one monotonic clock.

    last_ok_s: when it last gave a full answer. next_probe_s: when it wants to be probed.
    """

    __slots__ = (
        "_asks_model",
        "_backoff",
        "_blame_from_s",
        "_deadline_s",
        "_earliest_trial_s",
        "_failures_in_a_row",
        "_may_join",
        "_policy",
        "_poll_gap_s",
        "_probes_agreeing",
        "_probing",
        "_quiet_until_s",
        "_ready_since_s",
        "_resume",
        "_served",
        "_server",
        "_suspected_of_failure",
        "_ticket",
        "_window",
        "_wrong_model_answers",
        "last_ok_s",
        "next_probe_s",
        "state",
    )

    def __init__(self, server: int, policy: HealthPolicy, random: Random, now_s: float) -> None:
        self._server, self._policy = server, policy
        self._backoff = Backoff(policy, random)
        self._window = OutcomeWindow(policy.window_s, now_s)
        self._failures_in_a_row = 0
        self.last_ok_s = -inf
        self._blame_from_s = -inf  # attempts that started earlier belong to a past that is settled
        self._ready_since_s = now_s
        self._quiet_until_s = -inf  # no suspicion before, but of a failure
        self._resume = _READY  # where a cleared suspect goes back to
        self._suspected_of_failure = self._asks_model = False
        self._earliest_trial_s = inf
        self._may_join = policy.late_join
        self._served = False  # has been ready before
        self._ticket = 0
        self.state = _STARTING
        self.next_probe_s: float
        self._poll_gap_s: float
        self._enter(_STARTING, now_s, next_probe_s=now_s)
        self._deadline_s = inf  # how long to wait before the run is for the one who waits to say

    # -- attempts

    def attempt_ok(self, now_s: float) -> Transition | None:
        """An attempt had a full answer. A server on trial has passed it."""
        self._failures_in_a_row = 0
        self.last_ok_s = now_s
        self._window.ok(now_s)
        if self.state is _TRIAL:
            return self._to_ready("a request succeeded", now_s)
        return None

    def attempt_failed(
        self,
        kind: FailureKind,
        now_s: float,
        *,
        started_s: float = inf,
        message: str = "",
        is_last: bool = False,
        in_flight: int = 0,
    ) -> Transition | None:
        """An attempt failed.

        started_s: when it was begun; attempts from before the last ejection blame nobody.
        is_last: no other server may answer; slowness does not eject this one then.
        in_flight: other attempts there, which may still succeed (see `_grounds`).
        """
        blame = BLAME[kind]
        if started_s < self._blame_from_s:
            return None
        if kind is FailureKind.HTTP_4XX and self.state is _TRIAL and not is_last:
            # the request may be at fault, but a trial asks for a success, and a server that refuses all at
            # once, one attempt at a time, would swallow the whole load
            return self._eject(f"refused on trial: {_described(kind, message)}", now_s)
        if blame is Blame.NONE:
            return None
        spared = is_last and blame is Blame.SLOW
        gone = kind in CONNECTION_LOST
        what = _described(kind, message)
        if self.state is _TRIAL:
            return None if spared else self._eject(f"failed on trial: {what}", now_s, gone=gone)
        if self.state is not _READY:
            return None  # a suspect's probe decides; the others are out of service already
        if blame is Blame.SUSPICIOUS:
            return self._suspect(what, now_s, of_failure=True)
        self._count_failure(now_s)
        reason = self._grounds(now_s, in_flight)
        return self._eject(f"{reason}: {what}", now_s, gone=gone) if reason and not spared else None

    def blame(
        self, reason: str, now_s: float, *, started_s: float = inf, in_flight: int = 0
    ) -> Transition | None:
        """Count a failure that turned out to be the server's afterwards, e.g. a 400 that others serve.

        started_s, in_flight: as in `attempt_failed`.
        """
        if started_s < self._blame_from_s:
            return None
        if self.state is _TRIAL:
            return self._eject(f"failed on trial: {reason}", now_s)
        if self.state is not _READY:
            return None
        if started_s < self.last_ok_s:
            # a verdict comes late; whoever has answered meanwhile has broken the row already
            self._window.failed(now_s)
        else:
            self._count_failure(now_s)
        grounds = self._grounds(now_s, in_flight)
        return self._eject(f"{grounds}: {reason}", now_s) if grounds else None

    def stalled(self, now_s: float) -> Transition | None:
        """Attempts are in flight and no byte has come for `stall_s`; that may also be a long queue."""
        return self.doubted(f"no byte for {self._policy.stall_s:g} s", now_s, asks_model=False)

    def doubted(self, reason: str, now_s: float, *, asks_model: bool = True) -> Transition | None:
        """Let a probe tell whether the server is there, without counting anything against it.

        Where one has told so within the last `stall_s`, that answer holds. asks_model: the probe also asks
        for the model, since the process may be another one.
        """
        if self.state not in (_READY, _TRIAL) or now_s < self._quiet_until_s:
            return None
        return self._suspect(reason, now_s, of_failure=False, asks_model=asks_model)

    def differs(self, reason: str, now_s: float) -> Transition | None:
        """The server tells another model than before: no new work until probes have confirmed it, or not."""
        return self._suspect(reason, now_s, of_failure=False) if self.state in (_READY, _TRIAL) else None

    def answered_lately(self, now_s: float) -> int:
        """Full answers within the window."""
        return self._window.totals(now_s)[0]

    # -- probes

    def begin_probe(self, now_s: float) -> DueProbe | None:
        """The probe that is due now, if any; no other is due until its result is in."""
        if now_s < self.next_probe_s:
            return None
        self.next_probe_s = inf
        self._ticket += 1
        self._probing = True
        is_suspect = self.state is _SUSPECT
        return DueProbe(
            self._server,
            self._ticket,
            with_model=self._asks_model or not is_suspect,
            must_tell=not is_suspect,
        )

    def hurry_probe(self, now_s: float) -> None:
        """Have the next probe made now, unless one is under way."""
        if self.next_probe_s < inf:
            self.next_probe_s = min(self.next_probe_s, now_s)

    def probe_result(
        self, ticket: int, outcome: ProbeOutcome, detail: str, now_s: float
    ) -> Transition | None:
        """What the probe with that ticket found; ignored where the state has changed since it was sent."""
        if ticket != self._ticket or not self._probing:
            return None
        self._probing = False
        if outcome is ProbeOutcome.LOCAL:
            self.next_probe_s = now_s + self._policy.confirm_gap_s
            return None
        if self.state is _SUSPECT:
            return self._probed_suspect(outcome, detail, now_s)
        if outcome is ProbeOutcome.OK:
            return self._probed_ok(now_s)
        if self.state is _STARTING:
            return self._probed_starting(outcome, detail, now_s)
        self._probes_agreeing = 0
        self.next_probe_s = now_s + self._interval_s()
        return None

    def _probed_suspect(self, outcome: ProbeOutcome, detail: str, now_s: float) -> Transition | None:
        policy = self._policy
        if outcome is ProbeOutcome.OK:
            return self._clear(now_s)
        if outcome is ProbeOutcome.LOADING and policy.recovery:
            return self._to_starting(detail, now_s)
        self._probes_agreeing += 1
        if self._probes_agreeing >= policy.confirmations:
            return self._eject(detail, now_s, gone=outcome is ProbeOutcome.REFUSED)
        self.next_probe_s = now_s + policy.confirm_gap_s
        return None

    def _probed_ok(self, now_s: float) -> Transition | None:
        policy = self._policy
        self._probes_agreeing += 1
        self._wrong_model_answers = 0
        confirmed = self._probes_agreeing >= policy.confirmations
        self.next_probe_s = now_s + (self._interval_s() if confirmed else policy.confirm_gap_s)
        if not confirmed:
            return None
        if self.state is _EJECTED:
            return self._try(now_s)
        return self._to_ready(f"answers {policy.confirmations} probes", now_s)

    def _probed_starting(self, outcome: ProbeOutcome, detail: str, now_s: float) -> Transition | None:
        policy = self._policy
        if outcome is ProbeOutcome.WRONG_MODEL:
            # a model list does not change by waiting, so this need not last until the deadline
            self._probes_agreeing = 0
            self._wrong_model_answers += 1
            if self._wrong_model_answers >= policy.confirmations:
                if self._served:
                    return self._eject(detail, now_s)  # it comes back with the model that it had
                return self._exclude(detail, now_s, may_join=policy.late_join)
            self.next_probe_s = now_s + policy.confirm_gap_s
            return None
        self._probes_agreeing = self._wrong_model_answers = 0
        self.next_probe_s = now_s + self._poll_gap_s
        self._poll_gap_s = min(policy.probe_interval_s, self._poll_gap_s * 2)
        if self._served and outcome is not ProbeOutcome.LOADING:
            gone = outcome is ProbeOutcome.REFUSED
            return self._eject(f"stopped loading: {detail}", now_s, gone=gone)
        return None

    # -- time and orders

    def tick(self, now_s: float) -> Transition | None:
        """Let time pass: a back-off may be over, or the patience with a starting server."""
        if self.state is _EJECTED:
            return self._try(now_s)
        if self.state is _STARTING and now_s >= self._deadline_s:
            waited_s = self._policy.ready_timeout_s
            return self._exclude(f"not ready within {waited_s:g} s", now_s, may_join=self._policy.late_join)
        return None

    def exclude(self, reason: str, now_s: float, *, may_join: bool = False) -> Transition | None:
        """Take the server out of the run; for good unless it may join late."""
        if self.state is _EXCLUDED:
            if not may_join:
                self._never_probe_again()
            return None
        return self._exclude(reason, now_s, may_join=may_join)

    def drain(self, now_s: float) -> Transition | None:
        """The run is ending: no new work, no more probes, no more blame."""
        if self.state in (_DRAINING, _EXCLUDED):
            self._never_probe_again()
            return None
        return self._enter(_DRAINING, now_s, "the run is ending", next_probe_s=inf)

    def _never_probe_again(self) -> None:
        self._may_join = False
        self.next_probe_s = inf
        self._probing = False  # not even the one that is under way counts

    @property
    def may_return(self) -> bool:
        """Whether the server can still come into service, now or later."""
        if self.state is _EJECTED:
            return self._policy.recovery
        return self._may_join if self.state is _EXCLUDED else self.state is not _DRAINING

    # -- transitions

    def _enter(
        self, state: ServerState, now_s: float, reason: str = "", *, next_probe_s: float = inf
    ) -> Transition:
        old, self.state = self.state, state
        self.next_probe_s = next_probe_s
        self._probing = False  # whatever an open probe finds, it was asked of another state
        self._probes_agreeing = self._wrong_model_answers = 0
        if state is _STARTING:
            self._deadline_s = now_s + self._policy.ready_timeout_s
            self._poll_gap_s = min(_FIRST_GAP_S, self._policy.probe_interval_s)
        return Transition(self._server, old, state, reason, now_s)

    def _to_ready(self, reason: str, now_s: float) -> Transition:
        self._ready_since_s = now_s
        self._failures_in_a_row = 0
        self._window.clear(now_s)
        self._served = True
        return self._enter(_READY, now_s, reason)

    def _to_starting(self, reason: str, now_s: float) -> Transition:
        self._blame_from_s = now_s
        return self._enter(_STARTING, now_s, reason, next_probe_s=now_s + _FIRST_GAP_S)

    def _suspect(self, reason: str, now_s: float, *, of_failure: bool, asks_model: bool = True) -> Transition:
        self._resume = self.state
        self._suspected_of_failure, self._asks_model = of_failure, asks_model
        return self._enter(_SUSPECT, now_s, reason, next_probe_s=now_s)

    def _clear(self, now_s: float) -> Transition:
        """A suspect has answered its probe. However many attempts failed at once, they count as one."""
        if self._suspected_of_failure:
            self._count_failure(now_s)
            reason = self._grounds(now_s)
            if reason:
                return self._eject(f"{reason}, though it answers probes", now_s)
        else:
            self._quiet_until_s = now_s + self._policy.stall_s
        return self._enter(self._resume, now_s, "answers a probe")

    def _eject(self, reason: str, now_s: float, *, gone: bool = False) -> Transition:
        policy = self._policy
        on_trial = self.state is _TRIAL or (self.state is _SUSPECT and self._resume is _TRIAL)
        healthy_s = 0.0 if on_trial or self.state is _STARTING else now_s - self._ready_since_s
        answered, failed = self._window.totals(now_s)
        useful = self.state is _READY and not gone and answered >= failed
        self._earliest_trial_s = now_s + self._backoff.next_delay_s(healthy_s, useful=useful)
        self._blame_from_s = now_s
        next_probe_s = now_s + policy.probe_interval_s if policy.recovery else inf
        return self._enter(_EJECTED, now_s, reason, next_probe_s=next_probe_s)._replace(gone=gone)

    def _try(self, now_s: float) -> Transition | None:
        if self._probes_agreeing < self._policy.confirmations or now_s < self._earliest_trial_s:
            return None
        return self._enter(_TRIAL, now_s, f"answers {self._policy.confirmations} probes")

    def _exclude(self, reason: str, now_s: float, *, may_join: bool) -> Transition:
        self._may_join = may_join
        self._blame_from_s = now_s
        next_probe_s = now_s + self._policy.late_join_interval_s if may_join else inf
        return self._enter(_EXCLUDED, now_s, reason, next_probe_s=next_probe_s)

    def _interval_s(self) -> float:
        policy = self._policy
        return policy.late_join_interval_s if self.state is _EXCLUDED else policy.probe_interval_s

    def _count_failure(self, now_s: float) -> None:
        self._failures_in_a_row += 1
        self._window.failed(now_s)

    def _grounds(self, now_s: float, in_flight: int = 0) -> str:
        """Why the server is to be ejected, "" if it is not.

        A failure is told at once, an answer takes its time: of many attempts that were sent together the bad
        ones end first. So those that are still out count as if they were to succeed, or a server that fails
        now and then would look like one that always does.
        """
        policy, in_a_row = self._policy, self._failures_in_a_row
        share = policy.failure_share
        if in_a_row >= policy.failures_in_a_row and in_a_row >= share * (in_a_row + in_flight):
            return f"{in_a_row} failures in a row"
        ok, failed = self._window.totals(now_s)
        if ok + failed >= policy.window_min and failed >= share * (ok + failed + in_flight):
            return f"{failed} of {ok + failed} attempts failed within {policy.window_s:g} s"
        return ""


def _described(kind: FailureKind, message: str) -> str:
    name = kind.name.lower().replace("_", " ").replace("http ", "HTTP ")
    return f"{name} ({message})" if message else name
