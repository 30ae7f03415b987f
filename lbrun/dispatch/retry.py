"""What follows from a failed attempt. Pure: a sample's history and the pool's states in, a plan out.

The rules, by what failed:

========================================  =========================================================
refused, DNS, TLS, lost before any byte   another server, now
a kept-alive connection had been closed   the same server again, on a new connection; nobody is blamed
5xx, malformed, error in a 200, cut ...   another server; counts against this one
429                                       another server, or this one after its Retry-After; never the end,
                                          unless nothing else comes for minutes
408, 409, 423, 425                        another server, and here again later; counts against this one
any other status                          each *other* server once; if all agree, the sample is at fault
taken back from an ejected server         another server, now; not an attempt of the sample's
no descriptor or port here                after a pause; nobody is blamed
the server died under it, twice           never again: the sample may be what kills them
========================================  =========================================================

An untried server comes first. The same server is asked again only after a wait that doubles
(tenacity's exponential wait), and at most ``max_retries_per_server`` times for one sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tenacity import RetryCallState, stop_after_attempt, wait_exponential

from lbrun.attempt import AttemptFailure, FailureKind

_NOT_AN_ATTEMPT = frozenset(
    {
        FailureKind.EVICTED,
        FailureKind.STALE_CONNECTION,
        FailureKind.LOCAL,
        FailureKind.WORKER_DIED,
        FailureKind.HTTP_429,
    }
)
_FREE = frozenset(
    {
        FailureKind.EVICTED,
        FailureKind.STALE_CONNECTION,
        FailureKind.REFUSED,
        FailureKind.LOST_BEFORE_BYTE,
        FailureKind.WORKER_DIED,
        FailureKind.HTTP_4XX,
    }
)
"""Moves that cost no server any work, so that the budget does not pace them: the attempt was never
begun, its server is gone, or refused it (which each server does to a sample once)."""

LOSSES = frozenset({FailureKind.LOST_BEFORE_BYTE, FailureKind.CUT, FailureKind.STALE_CONNECTION})
"""Failures by which a server's death shows in an attempt that it had already received."""

POISON_DEATHS = 2
"""So many servers must have died under a sample that it cannot be shown to have outlived."""
POLL_S = 0.25
"""How often a sample that nobody can take is looked at again, besides whenever a server joins."""
LOST_PAUSE_S = 0.05
"""Before a sample whose connection was lost is sent elsewhere: when several servers go at once, the next
one is known to be gone by then, and the sample is not taken for what killed them."""
VERDICT_S = 5.0
"""So long a sample waits to hear whether it killed a second server; two probes that time out take less."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """max_retries_per_server: attempts of one sample at one server. wait_*: before the same server is
    asked again. grace_s: how long a sample waits for a server to return. paced: retries that cost work are
    paced to budget_share of the load plus budget_per_s. Where the attempts in flight are bounded anyway, a
    retry only takes the place of another sample, and pacing would leave that place empty. put_off_s: a sample
    that for so long got nothing but 429s, or no descriptor here, fails.
    stop_on_bad_request: a sample that every server refuses (4xx) ends the run.
    """

    max_retries_per_server: int = 3
    wait_base_s: float = 0.05
    wait_cap_s: float = 2.0
    grace_s: float = 30.0
    put_off_s: float = 300.0
    budget_share: float = 0.2
    budget_per_s: float = 10.0
    paced: bool = True
    stop_on_bad_request: bool = True


class Try(NamedTuple):
    """One ended attempt, as it goes into the records."""

    server: int
    sent_ns: int
    end_ns: int
    kind: int
    message: str


@dataclass(slots=True)
class History:
    """What a sample has been through; made at its first failure, so that a good sample has none.

    counts: attempts that count, by server. refused: servers that answered 4xx, with that answer.
    deaths: servers that went down under an attempt of this sample; undecided: servers that lost one, and of
    which it is not known yet whether they are down, which is waited for until verdict_by_s. outlived: servers
    that went down under it when it is hardly what killed them (see `lbrun.dispatch.suspects`). lasted_s: how
    long the attempts lasted that servers lost. ready_at_s: when a server may be asked again. put_off_since_s:
    when it was first put off, by a 429 or for want of a descriptor. waiting_since_s: since when every server
    that is left has been down.
    """

    tries: list[Try] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    refused: dict[int, AttemptFailure] = field(default_factory=dict)
    deaths: set[int] = field(default_factory=set)
    undecided: set[int] = field(default_factory=set)
    outlived: set[int] = field(default_factory=set)
    lasted_s: dict[int, float] = field(default_factory=dict)
    had_last_try: bool = False  # see `lbrun.dispatch.last_tries`
    verdict_by_s: float = 0.0
    ready_at_s: dict[int, float] = field(default_factory=dict)
    pauses: int = 0
    put_off_since_s: float | None = None
    restarts: int = 0
    waiting_since_s: float | None = None
    stale_server: int | None = None
    not_before_s: float = 0.0
    last_message: str = ""

    def is_suspect(self, in_doubt: Collection[int]) -> bool:
        """A server has died under an attempt of the sample, or may have."""
        if self.deaths - self.outlived or self.is_twice_suspect:
            return True
        return any(server in self.undecided and server not in self.outlived for server in in_doubt)

    @property
    def is_twice_suspect(self) -> bool:
        """It was there when a second server died, and it is not known whether it was the cause."""
        return len(self.deaths) >= POISON_DEATHS

    @property
    def is_poison(self) -> bool:
        """So many servers have died under it that it is not sent again."""
        return len(self.deaths - self.outlived) >= POISON_DEATHS


class Plan(NamedTuple):
    """What to do with a sample next.

    candidates: servers to choose from now, best group only. again_at_s: when to look again if there are
    none. blocked: it only wants room at a server. failure: why the sample is not sent any more; bad_request:
    every server refused it; put_off: for too long it got nothing but put off. fresh: on a new connection.
    """

    candidates: Sequence[int] = ()
    again_at_s: float | None = None
    blocked: bool = False
    failure: str | None = None
    bad_request: bool = False
    put_off: bool = False
    fresh: bool = False


class RetryRules:
    """The policy, applied. Holds no state of any sample."""

    def __init__(self, policy: RetryPolicy, n_servers: int | None = None) -> None:
        """n_servers: of the pool; None where it is not known."""
        self.policy, self._n_servers = policy, n_servers
        self._wait = wait_exponential(multiplier=policy.wait_base_s, max=policy.wait_cap_s)
        self._stop = stop_after_attempt(policy.max_retries_per_server)

    def note(self, history: History, server: int, failure: AttemptFailure, now_s: float) -> None:
        """Add an ended attempt to the sample's history."""
        kind = failure.kind
        history.tries.append(Try(server, failure.sent_ns, failure.at_ns, int(kind), failure.message))
        history.last_message = failure.message
        history.stale_server = server if kind is FailureKind.STALE_CONNECTION else None
        history.not_before_s = 0.0
        if failure.first_token_ns:
            history.restarts += 1
        if kind is FailureKind.HTTP_4XX:
            history.refused[server] = failure
        elif kind is FailureKind.HTTP_429:
            pause_s = self._put_off_s(history, now_s)
            # a longer wish is for the server's load as a whole, and the pool's to grant
            wait_s = min(failure.retry_after_s or pause_s, self.policy.wait_cap_s)
            history.ready_at_s[server] = now_s + wait_s
        elif kind is FailureKind.LOCAL:
            history.not_before_s = now_s + self._put_off_s(history, now_s)  # wherever it would go
        elif kind not in _NOT_AN_ATTEMPT:
            history.put_off_since_s = None
            count = history.counts.get(server, 0) + 1
            history.counts[server] = count
            wait_s = max(self._wait(_after(count)), failure.retry_after_s or 0.0)  # a 503 may ask for more
            history.ready_at_s[server] = now_s + wait_s
        if is_loss(failure):
            history.verdict_by_s = now_s + VERDICT_S
        if _seems_gone(history, server, failure):
            history.not_before_s = now_s + LOST_PAUSE_S

    def _put_off_s(self, history: History, now_s: float) -> float:
        history.pauses += 1
        if history.put_off_since_s is None:
            history.put_off_since_s = now_s
        return float(self._wait(_after(history.pauses)))

    def exhausted_at(self, history: History, server: int) -> bool:
        """The sample may not be sent to this server any more."""
        count = history.counts.get(server, 0)
        return server in history.refused or (count > 0 and bool(self._stop(_after(count))))

    def plan(
        self,
        history: History,
        eligible: Sequence[int],
        up: Sequence[int],
        returning: Sequence[int],
        now_s: float,
        in_doubt: Collection[int] = (),
    ) -> Plan:
        """Where the sample may go.

        eligible: servers that would take a request now. up: those that serve, be they full or throttled,
        the eligible ones among them. returning: those that are down and may come back. in_doubt: those of
        which a probe will tell soon whether they are there.
        """
        if history.is_poison:
            n = "two" if len(history.deaths) == POISON_DEATHS else str(len(history.deaths))
            return Plan(
                failure=f"its attempts coincided with the death of {n} servers, so it is not sent again; "
                "last: " + history.last_message
            )
        if history.put_off_since_s is not None and now_s - history.put_off_since_s > self.policy.put_off_s:
            what = f"put off {history.pauses} times, for {now_s - history.put_off_since_s:.0f} s"
            return Plan(failure=f"{what}; last: {history.last_message}", put_off=True)
        if self._awaits_verdict(history, in_doubt, now_s):
            return Plan(again_at_s=now_s + 0.1)
        if history.stale_server is not None and history.stale_server in eligible:
            return Plan(candidates=(history.stale_server,), fresh=True)
        if now_s < history.not_before_s:
            return Plan(again_at_s=history.not_before_s)
        counts, exhausted = history.counts, self.exhausted_at
        open_now = [s for s in eligible if not exhausted(history, s)]
        due = [s for s in open_now if history.ready_at_s.get(s, 0.0) <= now_s]
        if due:
            history.waiting_since_s = None
            return Plan(candidates=[s for s in due if s not in counts] or due)
        if any(not exhausted(history, s) for s in up):
            history.waiting_since_s = None
            times = [history.ready_at_s[s] for s in open_now]  # all later than now, or they would be due
            return Plan(again_at_s=min(times, default=now_s + POLL_S), blocked=not eligible)
        if any(not exhausted(history, s) for s in returning):
            if history.waiting_since_s is None:
                history.waiting_since_s = now_s
            if now_s - history.waiting_since_s <= self.policy.grace_s:
                return Plan(again_at_s=now_s + POLL_S)
        return self._nobody_left(history)

    @staticmethod
    def _awaits_verdict(history: History, in_doubt: Collection[int], now_s: float) -> bool:
        """The sample may have killed its second server, and it will be known soon."""
        doubted = (history.deaths | history.undecided) - history.outlived
        if now_s >= history.verdict_by_s or len(doubted) < POISON_DEATHS:
            return False
        return any(server in in_doubt for server in history.undecided)

    def _nobody_left(self, history: History) -> Plan:
        if history.refused and not history.counts:
            first = next(iter(history.refused.values()))
            n = len(history.refused)
            if self._n_servers is None or n >= self._n_servers:
                return Plan(failure=f"refused by every server: {first.message}", bad_request=True)
            whom = f"refused by {n} of {self._n_servers} servers, the others are out of service"
            return Plan(failure=f"{whom}: {first.message}", bad_request=True)
        n = len(history.tries)
        return Plan(
            failure=f"failed {n} attempt{'s' * (n != 1)} on every server that was left; "
            f"last: {history.last_message}"
        )


def _seems_gone(history: History, server: int, failure: AttemptFailure) -> bool:
    """The server may have died, and others with it: no answer came, or no more of it, or it refuses now.

    A kept-alive connection that had ended says little: while its server serves, it is asked at once.
    """
    if failure.kind is FailureKind.REFUSED:
        return server in history.undecided or server in history.deaths
    return is_loss(failure)


def is_loss(failure: AttemptFailure) -> bool:
    """The server had the request, and its connection ended without an answer."""
    return failure.sent and failure.kind in LOSSES


def is_charged(kind: FailureKind) -> bool:
    """Whether a retry after such a failure is paced by the budget."""
    return kind not in _FREE


def _after(attempts: int) -> RetryCallState:
    """The state by which tenacity's policies are asked about the attempt that just ended."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = attempts
    return state
