"""The dispatcher: the one owner of every open sample, from LoadGen's issue to its one completion.

It lives on one event loop. LoadGen's thread only ever calls `issue`. Everything else, the worker's reports,
the pool's transitions and the timers, runs on the loop, so there is no lock and each sample's fate is
decided in one place:

    issue ──> unsent ──acquire──> open ──completed──> LoadGen, records
                 ▲                  │
                 │               failed ──plan──> ready again, or waiting, or failed for good
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind, Worker
from lbrun.balance import Pool, ServerState, Transition
from lbrun.balance.states import UP
from lbrun.dispatch.budget import RetryBudget
from lbrun.dispatch.completions import Completions, Counts
from lbrun.dispatch.last_tries import LastTries
from lbrun.dispatch.ports import CompletionPort, DelayPort, LedgerPort, OutputPort, RecordPort
from lbrun.dispatch.retries import Retries
from lbrun.dispatch.retry import History, Plan, RetryPolicy, RetryRules, is_charged, is_loss
from lbrun.dispatch.sample import OpenSample, Unsent
from lbrun.dispatch.suspects import Suspects
from lbrun.errors import RunFailed

log = logging.getLogger("lbrun.dispatch")

_IN_DOUBT = frozenset({ServerState.SUSPECT, ServerState.STARTING})
"""States that the next probes decide. A server that dies politely says 503 first, and is starting then."""

_TICK_S = 0.05
_BURST = 512
"""Samples sent in one go before the loop gets a turn, so that reading answers never waits long."""


class Dispatcher:
    """Sends samples, retries them by the rules, completes each exactly once.

    costs[i]: the balancer's cost of sample i in tokens. on_broken: called once, with the reason, when the
    run cannot go on; by then every open sample has been completed as failed.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        worker: Worker,
        port: CompletionPort,
        records: RecordPort,
        policy: RetryPolicy,
        costs: Sequence[int],
        on_broken: Callable[[str], None],
        outputs: OutputPort | None = None,
        delays: DelayPort | None = None,
        ledger: LedgerPort | None = None,
        first_token_delays: DelayPort | None = None,
    ) -> None:
        self.broken: str | None = None
        self._ledger = ledger
        self._pool, self._worker = pool, worker
        self._out = Completions(port, records, outputs, delays, first_token_delays, self._flush_soon)
        self.counts: Counts = self._out.counts
        self._rules = RetryRules(policy, pool.n)
        self._policy = policy
        self._costs = costs
        self._on_broken = on_broken
        self._budget = RetryBudget(policy.budget_share, policy.budget_per_s, now_s=time.monotonic())
        self._inbox: deque[tuple[list[int], list[int], int]] = deque()
        self._woken = self._stopped = False
        self._unsent = Unsent()
        self._open: dict[int, OpenSample] = {}
        self._next_attempt = 0
        self._retries = Retries()
        self._suspects = Suspects(worker.last_byte_ns)
        self._trials = self._suspects.trials
        self._last_tries = LastTries()
        self._up: list[int] = []
        self._returning: list[int] = []
        self._in_doubt: list[int] = []
        self._tick: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop  # from `start` on

    # ---- life

    def start(self) -> None:
        """Begin on the running loop; the pool's transitions are listened to from now on."""
        self._loop = asyncio.get_running_loop()
        self._pool.on_transition.append(self._transition)
        self._pool.on_room.append(self._hurry)
        self._survey()
        self._worker.start(self)
        self._tick = self._loop.call_later(_TICK_S, self._on_tick)

    def stop(self) -> None:
        """End the timers; nothing is sent any more, and what LoadGen still issues is left to lie.

        A Server test that was broken off goes on issuing to its planned end, while the books are closed.
        """
        self._stopped = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    @property
    def in_flight(self) -> int:
        """Attempts on their way."""
        return len(self._open)

    @property
    def unresolved(self) -> int:
        """Samples issued and not completed, wherever they are."""
        c = self.counts
        return c.issued - c.completed - c.failed

    @property
    def errors(self) -> dict[str, int]:
        """Failed samples by reason."""
        return self._out.errors

    @property
    def given_up(self) -> list[str]:
        """The first samples that failed by themselves, each with the reason."""
        return self._out.given_up

    # ---- LoadGen's thread

    def issue(self, query_ids: list[int], sample_indices: list[int]) -> None:
        """Take samples from LoadGen. Thread-safe, returns at once, never raises while the loop lives."""
        self._inbox.append((query_ids, sample_indices, time.monotonic_ns()))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._take_inbox)

    # ---- the loop: in

    def _take_inbox(self) -> None:
        self._woken = False
        if self._stopped:
            self._inbox.clear()
            return
        while self._inbox:
            query_ids, indices, issued_ns = self._inbox.popleft()
            self.counts.issued += len(query_ids)
            self._unsent.add(query_ids, indices, issued_ns)
        self._note_counts()
        if self.broken is not None:
            self._fail_unsent(self.broken)
            self._flush()
        else:
            self._pump()

    def _pump(self) -> None:
        """Send what can be sent; a strategy of the user's own that breaks, breaks the run."""
        if self.broken is None:
            try:
                self._send()
            except RunFailed as error:
                self.break_off(str(error))
            except Exception as error:
                log.exception("nothing can be sent")
                self.break_off(f"nothing can be sent any more: {type(error).__name__}: {error}")

    def _send(self) -> None:
        """Retries first, then unsent samples in order."""
        if self._retries:
            self._send_retries()
        unsent = self._unsent
        if unsent:
            acquire, submit, costs = self._pool.acquire, self._worker.submit, self._costs
            budget, open_ = self._budget, self._open
            now_s = time.monotonic()
            n = 0
            try:
                while unsent and n < _BURST:
                    tokens = costs[unsent.peek_index()]
                    server = acquire(tokens)
                    if server is None:
                        break
                    query_id, index, issued_ns = unsent.pop()
                    sample = OpenSample(query_id, index, issued_ns, tokens)
                    sample.server = server
                    sample.acquired_s = now_s
                    attempt_id = self._next_attempt
                    self._next_attempt = attempt_id + 1
                    open_[attempt_id] = sample
                    budget.first_attempt()
                    n += 1
                    submit(attempt_id, index, server)
            finally:  # a strategy may break
                self.counts.attempts += n
            if n == _BURST and unsent:
                self._loop.call_soon(self._pump)
        self._worker.flush()

    def _send_retries(self) -> None:
        """Samples that failed before go first: they are the oldest. One of them may break the run off."""
        retries, now_s = self._retries, time.monotonic()
        while retries.unpaid and self._budget.take(now_s) == 0:
            self._place(retries.unpaid.popleft(), now_s, paid=True)
        for _ in range(min(len(retries.ready), _BURST)):
            if not retries.ready:
                break
            self._place(retries.ready.popleft(), now_s)
        for _ in range(min(len(retries.blocked), _BURST)):
            if not retries.blocked or not self._pool.eligible:
                break
            self._place(retries.blocked.popleft(), now_s)

    def _place(self, sample: OpenSample, now_s: float, *, paid: bool = False) -> None:
        """Send a sample that has failed before, put it off, or fail it for good."""
        history = sample.history or History()
        pool, retries = self._pool, self._retries
        plan = self._rules.plan(history, pool.eligible, self._up, self._returning, now_s, self._in_doubt)
        if plan.candidates:
            candidates = plan.candidates
            suspect = history.is_suspect(self._in_doubt)
            if suspect:
                candidates = self._trials.open_among(candidates, now_s)
                if not candidates:
                    self._trials.wait(sample)
                    return
            if not paid and self._must_pay(history) and (retries.unpaid or self._budget.take(now_s) > 0):
                retries.unpaid.append(sample)
                return
            try:
                server = pool.acquire_among(candidates, sample.tokens)
            except Exception:
                retries.ready.append(sample)  # the run breaks off; this sample is resolved with the others
                raise
            if suspect:
                self._trials.begin(server, sample, now_s)
            self._resend(sample, server, plan.fresh, now_s)
        elif plan.blocked:
            retries.blocked.append(sample)
        elif plan.again_at_s is not None:
            retries.put_off(sample, plan.again_at_s)
        elif history.is_poison and not history.had_last_try:
            log.info("sample %d is held back: %s", sample.sample_index, plan.failure)
            self._last_tries.hold(sample, now_s)
            self._retries.ready.extend(self._suspects.convict(history))
        else:
            self._fail_for_good(sample, plan)

    def _must_pay(self, history: History) -> bool:
        tries = history.tries
        return self._policy.paced and bool(tries) and is_charged(FailureKind(tries[-1].kind))

    def _resend(self, sample: OpenSample, server: int, fresh: bool, now_s: float) -> None:
        sample.server = server
        sample.acquired_s = now_s
        attempt_id = self._next_attempt
        self._next_attempt = attempt_id + 1
        self._open[attempt_id] = sample
        self.counts.attempts += 1
        self.counts.retried += 1
        self._worker.submit(attempt_id, sample.sample_index, server, fresh)

    # ---- the loop: reports of the worker (AttemptSink)

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        """Report the first token of the sample, unless an earlier attempt's was reported already."""
        sample = self._open.get(attempt_id)
        if sample is not None and not sample.first_token_ns:
            self._out.first_token(sample, at_ns, payload)

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        """Complete the sample."""
        sample = self._open.pop(attempt_id, None)
        if sample is None:
            self.counts.late += 1
            return
        try:
            server, pool = sample.server, self._pool
            sent_ns, first_byte_ns, first_token_ns, done_ns, _ = result
            pool.release(server, sample.tokens)
            pool.succeeded(server, done_ns * 1e-9, ((first_token_ns or first_byte_ns) - sent_ns) * 1e-9)
            if sample.history is not None:
                self._end_trial(sample, done_ns * 1e-9)
                self._settle(sample, sample.history)
            self._out.answered(sample, result)
        except Exception as error:
            self._bug(sample, error)

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        """Account for the failure; what follows is planned in the loop's next turn."""
        sample = self._open.pop(attempt_id, None)
        if sample is None:
            self.counts.late += 1
            return
        try:
            self._account(sample, failure)
        except Exception as error:
            self._bug(sample, error)

    def _account(self, sample: OpenSample, failure: AttemptFailure) -> None:
        server, kind, now_s = sample.server, failure.kind, failure.at_ns * 1e-9
        history = sample.history
        if history is None:
            history = sample.history = History()
        self._suspects.note(sample, history, failure, now_s)
        self._end_trial(sample, now_s)
        self._rules.note(history, server, failure, now_s)
        if failure.first_token_ns:
            self.counts.restarted_streams += 1
        pool = self._pool
        pool.release(server, sample.tokens)
        pool.failed_attempt(
            server,
            kind,
            now_s,
            started_s=sample.acquired_s,
            message=failure.message,
            status=failure.status,
            retry_after_s=failure.retry_after_s,
        )
        if is_loss(failure):
            if kind is FailureKind.CUT:
                pool.doubted(server, failure.message, now_s)
            if pool.state(server) is ServerState.EJECTED:
                self._suspects.died(server, now_s)
        self._retries.ready.append(sample)
        self._out.request_flush()

    def _end_trial(self, sample: OpenSample, now_s: float) -> None:
        """The sample's attempt has ended; if it was one of a suspect, another may have its turn."""
        following = self._trials.end(sample, now_s)
        if following is not None:
            self._retries.ready.append(following)
            self._out.request_flush()

    def _settle(self, sample: OpenSample, history: History) -> None:
        """An answer arrived: whoever refused or lost this sample before is judged by it."""
        self._suspects.forget(sample, history)
        now_s = time.monotonic()
        for server, failure in history.refused.items():
            if failure.status in (401, 403, 404) and not self._pool.has_served(server):
                self._pool.exclude(server, f"{failure.message}; others serve the same request", now_s)
            else:
                self._pool.blame(server, failure.message, now_s, started_s=failure.sent_ns * 1e-9)

    def _bug(self, sample: OpenSample, error: Exception) -> None:
        """A fault of ours (or of a user's strategy) must neither hang the run nor pass as an answer."""
        log.exception("sample %d could not be accounted for", sample.sample_index)
        self._retries.ready.append(sample)
        sample.history = sample.history or History()
        self.break_off(f"sample {sample.sample_index} could not be accounted for: {error!r}")

    # ---- the loop: out

    def _flush_soon(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hand to LoadGen what the last turn of the loop has brought, then fill the freed places."""
        try:
            self._out.flush()
            self._note_counts()
        finally:
            if self._unsent or self._retries:
                self._pump()

    def _note_counts(self) -> None:
        if self._ledger is not None:
            c = self.counts
            self._ledger.write(c.issued, c.completed, c.failed, c.attempts, c.retried, c.restarted_streams)

    # ---- the pool's transitions, and time

    def _transition(self, transition: Transition) -> None:
        """Runs inside the pool: what calls the pool again is put off to the loop's next turn."""
        server = transition.server
        self._survey()
        if transition.new is ServerState.EJECTED and transition.gone:
            self._last_tries.n_deaths += 1
            self._suspects.died(server, transition.now_s)
        elif transition.new not in _IN_DOUBT:
            self._suspects.lives(server)
        if transition.evicts:
            self._loop.call_soon(self._worker.evict, server)

    def _survey(self) -> None:
        """Note who serves, who may come back and of whom it is not known; only transitions change it."""
        health = self._pool.health
        self._up = [s for s, h in enumerate(health) if h.state in UP]
        self._returning = [s for s, h in enumerate(health) if h.state not in UP and h.may_return]
        self._in_doubt = [s for s, h in enumerate(health) if h.state in _IN_DOUBT]

    def _hurry(self) -> None:
        """Servers have room again: look at all that waits, and at the unsent, in the loop's next turn."""
        self._retries.hurry()
        self._out.request_flush()

    def _on_tick(self) -> None:
        self._tick = self._loop.call_later(_TICK_S, self._on_tick)
        if self.broken is not None:
            return
        now_s = time.monotonic()
        if self.unresolved and self._all_down(now_s):
            return
        self._retries.wake(now_s)
        self._retries.ready.extend(self._trials.tick(self._pool.n, now_s))
        if self._retries or self._unsent:
            self._pump()
        elif self._last_tries and not self._open:
            self._decide_held(now_s)

    def _decide_held(self, now_s: float) -> None:
        """Nothing else is left to do: give a held sample its last try, or give it up."""
        eligible = self._pool.eligible
        sample = self._last_tries.next(now_s) if eligible else None
        if sample is None:
            return
        history = sample.history or History()
        if not self._last_tries.deserves(history):
            history.had_last_try = True
            self._retries.ready.append(sample)  # its plan is to fail
            self._pump()
            return
        history.had_last_try = True
        others = [server for server in eligible if server not in history.deaths]
        try:
            server = self._pool.acquire_among(others or list(eligible), sample.tokens)
        except Exception as error:  # a strategy of the user's own
            self._bug(sample, error)
            return
        log.info("sample %d has its last try, at %s", sample.sample_index, self._pool.urls[server])
        self._resend(sample, server, False, now_s)
        self._worker.flush()

    def _all_down(self, now_s: float) -> bool:
        """Break the run off if the pool is down for longer than the grace time, or for good."""
        pool = self._pool
        since_s = pool.all_down_since_s
        if since_s is None or (now_s - since_s <= self._policy.grace_s and not pool.lost_for_good):
            return False
        said = "\n".join(
            f"  {url}: {error or 'no error'}" for url, error in zip(pool.urls, pool.last_error, strict=True)
        )
        self.break_off(f"All servers marked as failed, for {now_s - since_s:.0f} s:\n{said}")
        return True

    # ---- ends before the time

    def _fail_for_good(self, sample: OpenSample, plan: Plan) -> None:
        reason = plan.failure or "no server left"
        history = sample.history or History()
        self._suspects.forget(sample, history)
        if history.is_poison:
            self._retries.ready.extend(self._suspects.convict(history))
        self._out.gave_up(sample, reason)
        if plan.bad_request and self._policy.stop_on_bad_request:
            self.break_off(f"sample {sample.sample_index}: {reason}")
        elif plan.put_off and not self._pool.answered_since(history.put_off_since_s or 0.0):
            self.break_off(f"No server has answered anything since; sample {sample.sample_index}: {reason}")

    def hold(self) -> None:
        """Send nothing new; what is in flight may end. For a drain after an interrupt."""
        self._fail_unsent("interrupted before it was sent")
        self._fail_waiting("interrupted while it waited for a retry")
        self.broken = self.broken or "interrupted"
        self._flush()

    def break_off(self, reason: str) -> None:
        """End the run: every open sample is completed as failed, whatever comes later is late."""
        if self.broken is None:
            self.broken = reason
            log.error("the run is broken off: %s", reason)
            self.fail_open(reason)
            self._on_broken(reason)

    def fail_open(self, reason: str) -> None:
        """Complete everything that is open as failed."""
        in_flight, self._open = self._open, {}
        for attempt_id, sample in in_flight.items():
            self._worker.cancel(attempt_id)
            self._pool.release(sample.server, sample.tokens)
            self._fail(sample, reason)
        self._fail_waiting(reason)
        self._fail_unsent(reason)
        self._flush()

    def _fail_waiting(self, reason: str) -> None:
        for sample in (*self._retries.clear(), *self._trials.clear(), *self._last_tries.clear()):
            self._fail(sample, reason)

    def _fail_unsent(self, reason: str) -> None:
        while self._unsent:
            query_id, index, issued_ns = self._unsent.pop()
            self._out.failed(OpenSample(query_id, index, issued_ns, 0), reason)

    def _fail(self, sample: OpenSample, reason: str) -> None:
        if sample.history is not None:
            self._suspects.forget(sample, sample.history)
        self._out.failed(sample, reason)
