"""The words of server health: states, what a probe can say, whom a failure blames, and the policy's numbers.

STARTING --ready--> READY <--answers-- SUSPECT --2 silent probes--> EJECTED
                      |  ^                                             | back-off over,
                      |  '---- one request succeeds ---- TRIAL <-------' 2 probes answer
                      '-- refused, cut, stalled --> SUSPECT
                      '-- 3 failures in a row --> EJECTED
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

from lbrun.attempt import FailureKind


class ServerState(StrEnum):
    """What a server is to the pool. Only READY and TRIAL take new work, TRIAL one attempt at a time."""

    STARTING = "starting"  # not ready yet, or loading again
    READY = "ready"
    SUSPECT = "suspect"  # no new work until a probe has told
    EJECTED = "ejected"  # out of service, probed
    TRIAL = "trial"  # answers probes again; one real request has to succeed
    EXCLUDED = "excluded"  # not part of this run, unless it may join late
    DRAINING = "draining"  # the run is ending: what is in flight may finish


UP = frozenset({ServerState.READY, ServerState.SUSPECT, ServerState.TRIAL})
"""States of servers that may still answer; with none of them left the pool is down."""


class ProbeOutcome(StrEnum):
    """What a probe found."""

    OK = "ok"
    LOADING = "loading"  # 503: alive, and not yet (or no longer) willing
    WRONG_MODEL = "wrong_model"  # healthy, but does not list the served model
    REFUSED = "refused"  # nobody there: refused, or closed without an answer
    TIMEOUT = "timeout"
    ERROR = "error"  # any other answer, or none: DNS, TLS, unexpected status
    LOCAL = "local"  # this machine could not probe; says nothing about the server


class Blame(Enum):
    """What a kind of failure says about the server."""

    NONE = "none"  # nothing
    COUNTS = "counts"  # a failure that it is responsible for
    SLOW = "slow"  # counts as well, but never ejects the last server
    SUSPICIOUS = "suspicious"  # it may be gone: ask by a probe before any new work


BLAME: Mapping[FailureKind, Blame] = {
    FailureKind.REFUSED: Blame.SUSPICIOUS,
    FailureKind.DNS: Blame.SUSPICIOUS,
    FailureKind.TLS: Blame.SUSPICIOUS,
    FailureKind.CONNECT_TIMEOUT: Blame.SUSPICIOUS,
    FailureKind.STALE_CONNECTION: Blame.NONE,
    FailureKind.LOST_BEFORE_BYTE: Blame.SUSPICIOUS,
    FailureKind.FIRST_BYTE_TIMEOUT: Blame.SLOW,
    FailureKind.CUT: Blame.COUNTS,
    FailureKind.IDLE_TIMEOUT: Blame.SLOW,
    FailureKind.TOTAL_TIMEOUT: Blame.SLOW,
    FailureKind.MALFORMED: Blame.COUNTS,
    FailureKind.NO_END_MARK: Blame.COUNTS,
    FailureKind.ERROR_IN_ANSWER: Blame.COUNTS,
    FailureKind.EMPTY_ANSWER: Blame.COUNTS,
    FailureKind.NO_TOKEN_COUNT: Blame.COUNTS,
    FailureKind.TOO_LARGE: Blame.COUNTS,
    FailureKind.IMPLAUSIBLE: Blame.COUNTS,
    FailureKind.MISMATCH: Blame.COUNTS,
    FailureKind.HTTP_429: Blame.NONE,  # asks for a pause, which the pool grants
    FailureKind.HTTP_503: Blame.SUSPICIOUS,  # a probe tells whether it loads again
    FailureKind.HTTP_5XX: Blame.COUNTS,
    FailureKind.HTTP_MOMENT: Blame.COUNTS,
    FailureKind.HTTP_4XX: Blame.NONE,  # the request may be at fault; the dispatcher finds out
    FailureKind.LOCAL: Blame.NONE,
    FailureKind.EVICTED: Blame.NONE,
    FailureKind.WORKER_DIED: Blame.NONE,
    FailureKind.NOT_SENT: Blame.NONE,
}


NOT_SAID_BY_THE_SERVER = frozenset(
    {
        FailureKind.STALE_CONNECTION,
        FailureKind.LOCAL,
        FailureKind.EVICTED,
        FailureKind.WORKER_DIED,
    }
)
"""Failures that are no error of the server's, so that its last error stays what it was."""

CONNECTION_LOST = frozenset({FailureKind.REFUSED, FailureKind.LOST_BEFORE_BYTE, FailureKind.CUT})
"""Failures by which the death of a server's process shows."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The numbers of the state machine; all times in seconds.

    failures_in_a_row: so many failures without a success between them eject.
    failure_share, window_s, window_min: as does this share of at least `window_min` attempts in `window_s`.
    For both the share is also taken of the attempts that are still out: failures are told before answers.
    stall_s: no byte for so long with attempts in flight makes a server suspect.
    probe_interval_s: between probes of a server that is starting or ejected.
    confirm_gap_s: before the second probe, when one answer (or silence) is to be confirmed.
    confirmations: so many probes in a row settle a matter, either way.
    late_join_interval_s: between probes of an excluded server that may still join.
    ready_timeout_s: a server that loads again for longer than this is excluded.
    backoff_base_s, backoff_cap_s, backoff_jitter: an ejected server goes on trial after ``base x 2^k``, at
    most the cap, give or take the share `backoff_jitter`; k grows when it fails again soon, and falls by one
    per `forgive_s` of health.
    ramp_s: a recovered server gets its full share after so long.
    throttle_default_s, throttle_floor_s, throttle_cap_s: pause after a 429 without Retry-After, and the
    shortest and the longest that are granted; a date that has passed, or 0, still means "not now".
    recovery: ejected servers are probed and taken back; False leaves them out for good.
    late_join: excluded servers are probed and may join.
    """

    failures_in_a_row: int = 3
    failure_share: float = 0.5
    window_s: float = 10.0
    window_min: int = 20
    stall_s: float = 4.0
    probe_interval_s: float = 1.0
    confirm_gap_s: float = 0.2
    confirmations: int = 2
    late_join_interval_s: float = 5.0
    ready_timeout_s: float = 600.0
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 30.0
    backoff_jitter: float = 0.2
    forgive_s: float = 60.0
    ramp_s: float = 5.0
    throttle_default_s: float = 1.0
    throttle_floor_s: float = 0.5
    throttle_cap_s: float = 30.0
    recovery: bool = True
    late_join: bool = True


class Transition(NamedTuple):
    """A server's change of state.

    now_s: on the monotonic clock. gone: it is ejected because nobody is there any more (connections are
    refused, reset or cut), and not for what it answered.
    """

    server: int
    old: ServerState
    new: ServerState
    reason: str
    now_s: float
    gone: bool = False

    @property
    def evicts(self) -> bool:
        """Whether attempts at the server that have no byte yet should be taken elsewhere at once."""
        return self.new in _EVICTING


_EVICTING = frozenset({ServerState.EJECTED, ServerState.EXCLUDED, ServerState.STARTING})


class DueProbe(NamedTuple):
    """A probe to be made now. The ticket goes back with the result, so that late results are told apart.

    with_model: also ask what the server serves. must_tell: only one that tells it passes; else a list that
    cannot be read now is no reason against a healthy server.
    """

    server: int
    ticket: int
    with_model: bool
    must_tell: bool = True
