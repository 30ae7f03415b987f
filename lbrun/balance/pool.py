"""The servers of a run: who is eligible, what is in flight where, and what became of it.

The pool is the only owner of server states. It runs on one thread (the dispatcher's event loop), does no I/O
and reads no clock: every time is passed in, in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from math import inf
from random import Random

from lbrun.attempt import FailureKind
from lbrun.balance.eligibility import Eligibility
from lbrun.balance.health import ServerHealth
from lbrun.balance.notices import Notices
from lbrun.balance.pauses import Pauses
from lbrun.balance.ramp import Ramps
from lbrun.balance.settings import UNLIMITED, PoolSettings
from lbrun.balance.snapshot import PoolSnapshot, ServerSnapshot
from lbrun.balance.states import (
    CONNECTION_LOST,
    NOT_SAID_BY_THE_SERVER,
    UP,
    DueProbe,
    ProbeOutcome,
    ServerState,
    Transition,
)
from lbrun.balance.strategy import Strategy
from lbrun.balance.tally import Tally
from lbrun.balance.throttle import Throttle
from lbrun.errors import RunFailed

_MAY_BE_ANOTHER = CONNECTION_LOST | {FailureKind.STALE_CONNECTION}
_NOT_SERVED = frozenset({404, 410})


class Pool:
    """Picks servers through a strategy, counts what is in flight, and keeps each server's health.

    now_s: the present, at which every server is STARTING and due for its first probe.

    Call `release` once for every `acquire`, and besides it `succeeded` or `failed_attempt`, unless the
    attempt was cancelled. Lists by server index, for reading: `in_flight`, `tokens_in_flight`, the counters
    of attempts `requests`, `completed` and `failed`, of `ejections` and `recoveries`, and `last_error`.

    Listeners: `on_transition` are called for every change of state, one after another in the order of the
    changes. `on_room` are called whenever servers have become eligible by anything but a `release` (a
    recovery, a ramp, the end of a pause), so that waiting samples can move. Both may call the pool. `on_loss`
    are called with server, kind and time when the server's process may be another one: an attempt lost its
    connection, or got none, or was told that the model is not there. None may raise.
    """

    def __init__(self, settings: PoolSettings, strategy: Strategy, *, now_s: float) -> None:
        self.urls = tuple(settings.urls)
        self.n = n = len(self.urls)
        self.policy = settings.policy
        self.strategy = strategy
        self._weights = tuple(settings.weights or [1.0] * n)
        self._max_in_flight = UNLIMITED if settings.max_in_flight is None else settings.max_in_flight

        self.in_flight = [0] * n
        self.tokens_in_flight = [0] * n
        self.requests, self.completed, self.failed = [0] * n, [0] * n, [0] * n
        self._tally = Tally(n, now_s)
        self.ejections, self.recoveries = self._tally.ejections, self._tally.recoveries
        self.last_error = [""] * n
        self.on_transition: list[Callable[[Transition], None]] = []
        self.on_room: list[Callable[[], None]] = []
        self.on_loss: list[Callable[[int, FailureKind, float], None]] = []
        self._to_announce: deque[Transition] = deque()
        self._announcing = False

        random = Random(settings.seed)  # noqa: S311 - jitter, not a secret
        self.health = tuple(ServerHealth(server, self.policy, random, now_s) for server in range(n))

        self._eligibility = Eligibility(self.in_flight)
        self.eligible = self._eligibility.servers
        self._member, self._limit = self._eligibility.member, self._eligibility.limit
        self._join, self._leave = self._eligibility.join, self._eligibility.leave
        self._trial_limit = [1] * n
        self._pauses = Pauses()
        self._throttles = [Throttle(self.policy, now_s) for _ in range(n)]
        self._ramps = Ramps(
            self.policy.ramp_s,
            in_flight=self.in_flight,
            weights=self._weights,
            unbounded=self._max_in_flight,
        )
        self._steady: set[int] = set()  # ready, and not ramping

        strategy.bind(self)
        own = type(strategy).__module__.startswith("lbrun.balance.strategies.")
        self._pick = strategy.pick if own else self._pick_checked
        self._notices = Notices(strategy, trusted=own)
        self._eligibility.tell(self._notices)
        self._started, self._ended = self._notices.get("started"), self._notices.get("ended")
        self._observed = self._notices.get("observed")

    # -- the hot path: constant work, or O(log n), per attempt

    def acquire(self, tokens: int, exclude: Collection[int] = ()) -> int | None:
        """Pick a server for an attempt and count it in; None when no server outside `exclude` has room.

        tokens: prompt and expected output tokens. exclude: servers that the sample should not go to; with
        any, the cost grows with the pool, which only retries pay.

        Raises RunFailed when a strategy of the user's own picks a server that is not eligible, or broke.
        """
        if exclude:
            candidates = [server for server in self.eligible if server not in exclude]
            return self.acquire_among(candidates, tokens) if candidates else None
        if not self.eligible:
            return None
        server = self._pick(tokens)
        self._count_in(server, tokens)
        return server

    def acquire_among(self, candidates: Sequence[int], tokens: int) -> int:
        """The same among the candidates, for a retry: eligible servers in ascending order, at least one."""
        server = self._checked(self._notices.ask(self.strategy.pick_among, candidates, tokens))
        self._count_in(server, tokens)
        return server

    def _count_in(self, server: int, tokens: int) -> None:
        count = self.in_flight[server] = self.in_flight[server] + 1
        self.tokens_in_flight[server] += tokens
        self.requests[server] += 1
        if count >= self._limit[server]:
            self._leave(server)
        if self._started is not None:
            self._started(server, tokens)

    def release(self, server: int, tokens: int) -> None:
        """Count an attempt out again, with the tokens it was acquired with."""
        count = self.in_flight[server] = self.in_flight[server] - 1
        self.tokens_in_flight[server] -= tokens
        if self._ended is not None:
            self._ended(server, tokens)
        if count < self._limit[server] and not self._member[server]:
            self._join(server)

    def succeeded(self, server: int, now_s: float, ttft_s: float = 0.0) -> None:
        """An attempt there had a full answer; ttft_s: from sending to its first token, 0 where unknown."""
        self.completed[server] += 1
        if ttft_s and self._observed is not None:
            self._observed(server, ttft_s, now_s)
        transition = self.health[server].attempt_ok(now_s)
        if transition is not None:
            self._apply(transition)

    # -- what else becomes of attempts

    def failed_attempt(
        self,
        server: int,
        kind: FailureKind,
        now_s: float,
        *,
        started_s: float,
        message: str = "",
        status: int = 0,
        retry_after_s: float | None = None,
    ) -> Transition | None:
        """An attempt there failed; returns the server's change of state, if it makes one.

        started_s: when the attempt was acquired; those from before an ejection blame nobody afterwards.
        status: of the answer, 0 without one. retry_after_s: the server's wish after a 429, granted up to the
        policy's cap.
        """
        self.failed[server] += 1
        if kind in _MAY_BE_ANOTHER or status in _NOT_SERVED:
            for listener in self.on_loss:
                listener(server, kind, now_s)
        if kind not in NOT_SAID_BY_THE_SERVER:
            self.last_error[server] = message or kind.name.lower()
        if kind is FailureKind.HTTP_429:
            pause_s = self._throttles[server].pause_s(
                retry_after_s, self.health[server].answered_lately(now_s), now_s
            )
            if pause_s:
                self._pauses.add(server, now_s + pause_s)
                self._update_limit(server, now_s)
            return None
        health = self.health[server]
        return self._apply(
            health.attempt_failed(
                kind,
                now_s,
                started_s=started_s,
                message=message,
                is_last=self._tally.n_up <= 1,
                in_flight=self.in_flight[server],
            )
        )

    def blame(self, server: int, reason: str, now_s: float, *, started_s: float = inf) -> Transition | None:
        """A failure that was reported before turned out to be the server's, e.g. a 400 that others serve.

        started_s: as in `failed_attempt`.
        """
        self.last_error[server] = reason
        return self._apply(
            self.health[server].blame(reason, now_s, started_s=started_s, in_flight=self.in_flight[server])
        )

    def has_served(self, server: int) -> bool:
        """Whether the server has ever given a full answer."""
        return self.completed[server] > 0

    def stalled(self, server: int, now_s: float) -> Transition | None:
        """Attempts are in flight there, and no byte has come for the policy's `stall_s`."""
        return self._apply(self.health[server].stalled(now_s))

    def doubted(self, server: int, reason: str, now_s: float) -> Transition | None:
        """Something that was counted already lets one ask whether the server is still there."""
        return self._apply(self.health[server].doubted(reason, now_s))

    def differs(self, server: int, reason: str, now_s: float) -> Transition | None:
        """The server tells another model than before; probes confirm it, or not."""
        self.last_error[server] = reason
        return self._apply(self.health[server].differs(reason, now_s))

    def exclude(self, server: int, reason: str, now_s: float, *, may_join: bool = False) -> Transition | None:
        """Take a server out of the run by name; for good unless it may join late."""
        return self._apply(self.health[server].exclude(reason, now_s, may_join=may_join))

    def drain(self, now_s: float) -> None:
        """The run is ending: no server takes new work any more, and none is probed."""
        for health in self.health:
            self._apply(health.drain(now_s))

    # -- probes and time

    def due_probes(self, now_s: float) -> list[DueProbe]:
        """The probes to make now; each is given out once, and answered by `probe_result`."""
        due = (health.begin_probe(now_s) for health in self.health)
        return [probe for probe in due if probe is not None]

    def hurry_probe(self, server: int, now_s: float) -> None:
        """Have the server's next probe made now, unless one is under way."""
        self.health[server].hurry_probe(now_s)

    def probe_result(
        self, probe: DueProbe, outcome: ProbeOutcome, detail: str, now_s: float
    ) -> Transition | None:
        """What a probe found, `detail` in words."""
        if outcome not in (ProbeOutcome.OK, ProbeOutcome.LOCAL):
            self.last_error[probe.server] = detail
        return self._apply(self.health[probe.server].probe_result(probe.ticket, outcome, detail, now_s))

    def tick(self, now_s: float) -> None:
        """Let time pass: back-offs, pauses and ramps. Call it several times a second."""
        for health in self.health:
            self._apply(health.tick(now_s))
        changed = self._pauses.ended(now_s)
        if self._ramps:
            if self._steady:
                self._ramps.measure(self._steady)  # once for all that are ramping
            ramped = self._ramps.finish(now_s)
            self._steady.update(server for server in ramped if self._is_steady(server))
            changed += ramped
        joined = [self._update_limit(server, now_s) for server in changed]
        if any(joined):
            self._announce_room()

    # -- questions

    def is_eligible(self, server: int) -> bool:
        """Whether the server may take one more attempt now."""
        return bool(self._member[server])

    def weight(self, server: int) -> float:
        """The server's configured share of the load relative to the others."""
        return self._weights[server]

    def state(self, server: int) -> ServerState:
        """The server's state."""
        return self.health[server].state

    def next_probe_s(self) -> float:
        """When the next probe falls due; infinite if none does."""
        return min(health.next_probe_s for health in self.health)

    def answered_since(self, then_s: float) -> bool:
        """Whether any server has given a full answer since."""
        return any(health.last_ok_s >= then_s for health in self.health)

    @property
    def all_down_since_s(self) -> float | None:
        """Since when no server has been ready, suspect or on trial; None while there is one."""
        return self._tally.down_since_s

    @property
    def lost_for_good(self) -> bool:
        """All servers are down and none may ever come back: waiting is pointless."""
        return self._tally.n_up == 0 and not any(health.may_return for health in self.health)

    def snapshot(self) -> PoolSnapshot:
        """The present state of all servers, for progress and results."""
        return PoolSnapshot(
            tuple(
                ServerSnapshot(
                    url=self.urls[server],
                    state=self.health[server].state,
                    paused=server in self._pauses,
                    in_flight=self.in_flight[server],
                    requests=self.requests[server],
                    completed=self.completed[server],
                    failed=self.failed[server],
                    ejections=self.ejections[server],
                    recoveries=self.recoveries[server],
                    last_error=self.last_error[server],
                )
                for server in range(self.n)
            )
        )

    # -- transitions

    def _apply(self, transition: Transition | None) -> Transition | None:
        """Carry a transition through: counters, limit, listeners."""
        if transition is None:
            return None
        server, new, now_s = transition.server, transition.new, transition.now_s
        returned = self._tally.count(transition)
        if new is ServerState.READY:
            if returned:
                self._ramps.begin(server, now_s)
            if transition.old is not ServerState.SUSPECT:
                self.last_error[server] = ""
        elif new is ServerState.TRIAL:
            # one attempt at a time, besides what had been left in flight when the server was ejected; a
            # suspect that goes back on trial may still have its trial's attempt, or was suspected, for what
            # was left, before it got one
            room = self.in_flight[server] + 1
            if transition.old is ServerState.SUSPECT:
                room = min(room, self._trial_limit[server])
            self._trial_limit[server] = room
        elif new not in UP:
            self.last_error[server] = transition.reason
            self._ramps.end(server)
        if self._is_steady(server):
            self._steady.add(server)
        else:
            self._steady.discard(server)
        joined = self._update_limit(server, now_s)
        self._to_announce.append(transition)
        self._announce_transitions()
        if joined:
            self._announce_room()
        return transition

    def _update_limit(self, server: int, now_s: float) -> bool:
        """Bring the limit in line with state, pause and ramp; True if the server has joined by it."""
        return self._eligibility.set_limit(server, self._limit_now(server, now_s))

    def _limit_now(self, server: int, now_s: float) -> int:
        state = self.health[server].state
        if server in self._pauses:
            return 0
        if state is ServerState.TRIAL:
            return self._trial_limit[server]
        if state is not ServerState.READY:
            return 0
        if server not in self._ramps or not self._steady:
            # without steady servers there is nothing to compare with, and holding back would help nobody
            return self._max_in_flight
        return self._ramps.bound(server, now_s)

    def _is_steady(self, server: int) -> bool:
        return self.health[server].state is ServerState.READY and server not in self._ramps

    def _announce_transitions(self) -> None:
        """Tell the listeners; what they cause is told after, not in between."""
        if self._announcing:
            return
        self._announcing = True
        try:
            while self._to_announce:
                transition = self._to_announce.popleft()
                for listener in self.on_transition:
                    listener(transition)
        finally:
            self._announcing = False

    def _announce_room(self) -> None:
        for listener in self.on_room:
            listener()

    # -- strategies of the user's own are not taken at their word

    def _pick_checked(self, tokens: int) -> int:
        return self._checked(self._notices.ask(self.strategy.pick, tokens))

    def _checked(self, server: int) -> int:
        if not (isinstance(server, int) and 0 <= server < self.n and self._member[server]):
            raise RunFailed(
                f"strategy {self.strategy.name!r} picked {server!r}, which is not an eligible server; "
                f"pick() must return one of view.eligible, pick_among() one of its candidates"
            )
        return server
