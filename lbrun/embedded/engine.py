"""The simulated engine on an event loop: requests get slots, wait for their tokens, give the slot back."""

from __future__ import annotations

import asyncio
import time

from lbrun.embedded.latency import LatencyModel, Pace, SlotQueue
from lbrun.embedded.metrics import ServerMetrics


class ClientGoneError(Exception):
    """The client closed the connection: nobody waits for this answer any more."""


class EngineDeadError(Exception):
    """The engine is being ended while it works on the request."""


class Ticket:
    """One request in the engine: its place, its schedule, and the one timer it waits on.

    n_prompt, n_out: tokens in, and tokens that will come out. start_s: when it got its slot, None in line.
    """

    __slots__ = (
        "_failure",
        "_loop",
        "_timer",
        "_waiter",
        "_wanted",
        "arrived_s",
        "n_emitted",
        "n_out",
        "n_prompt",
        "pace",
        "start_s",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: Pace, n_prompt: int, n_out: int) -> None:
        self._loop = loop
        self.pace, self.n_prompt, self.n_out = pace, n_prompt, n_out
        self.arrived_s = loop.time()
        self.start_s: float | None = None
        self.n_emitted = 0
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None

    @property
    def started_s(self) -> float:
        """When it got its slot; for one that was never started, when it came."""
        return self.arrived_s if self.start_s is None else self.start_s

    @property
    def first_s(self) -> float:
        """When the first token is due."""
        return self.pace.due_s(self.started_s, 0)

    @property
    def end_s(self) -> float:
        """When the last token is due."""
        return self.pace.due_s(self.started_s, self.n_out - 1)

    def n_due(self, awaited: int) -> int:
        """How many tokens are due, once `awaited` has been waited for: timers may be up to 1 ms early."""
        now_s = max(self._loop.time(), self.pace.due_s(self.started_s, awaited))
        return self.pace.n_due(self.started_s, now_s)

    async def until(self, token: int) -> None:
        """Wait until the token (from 0) is due; does not pause where it is due already.

        Raises ClientGoneError or EngineDeadError when that comes first.
        """
        if self._failure is not None:
            raise self._failure
        if self.start_s is not None and self.pace.due_s(self.start_s, token) <= self._loop.time():
            return
        self._wanted = token
        self._waiter = self._loop.create_future()
        if self.start_s is not None:
            self._arm(self.start_s)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def start(self, at_s: float) -> None:
        """The request has its slot since `at_s`."""
        self.start_s = at_s
        if self._waiter is not None:
            self._arm(at_s)

    def fail(self, failure: Exception) -> None:
        """No further token will come: whoever waits, or comes to wait, gets this."""
        self._failure = failure
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(failure)

    def client_gone(self) -> None:
        """The connection was lost."""
        self.fail(ClientGoneError())

    def _arm(self, start_s: float) -> None:
        self._timer = self._loop.call_at(self.pace.due_s(start_s, self._wanted), self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Engine:
    """Slots, a line for them, and a latency model, for all requests of one server."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, latency: LatencyModel, slots: int, metrics: ServerMetrics
    ) -> None:
        self._loop, self._latency = loop, latency
        self._queue: SlotQueue[Ticket] = SlotQueue(slots)
        self._open: set[Ticket] = set()
        self._dead = False
        self.slots = slots
        self.metrics = metrics
        self.wall_offset_s = time.time() - loop.time()  # what turns the engine's times into timestamps

    @property
    def n_running(self) -> int:
        """Requests that have a slot."""
        return len(self._queue.running)

    @property
    def n_waiting(self) -> int:
        """Requests in line."""
        return self._queue.n_waiting

    def tokens_held(self) -> int:
        """Tokens of prompts and answers that running requests keep in the simulated cache."""
        return sum(t.n_prompt + t.n_emitted for t in self._queue.running)

    def tokens_per_s(self) -> float:
        """The rate at which running requests make tokens now."""
        return sum(1 / t.pace.tpot_s for t in self._queue.running if t.pace.tpot_s)

    def admit(self, n_prompt: int, n_out: int, luck: float = 0.5, slowness: float = 1.0) -> Ticket:
        """Take a request in; it must be given to `release` exactly once. Raises EngineDeadError."""
        if self._dead:
            raise EngineDeadError
        ticket = Ticket(self._loop, self._latency.pace(n_prompt, luck, slowness), n_prompt, n_out)
        self._open.add(ticket)
        if self._queue.arrive(ticket, ticket.arrived_s):
            ticket.start(ticket.arrived_s)
        return ticket

    def release(self, ticket: Ticket, reason: str, streamed: bool) -> None:
        """The request is over. reason: ``stop`` and ``length`` for answers, ``abort`` or ``error`` else.

        The slot of a finished answer is free from the time its last token was due, not from the moment
        that the loop came to it: the schedule of a busy server does not drift.
        """
        self._open.discard(ticket)
        finished = reason in ("stop", "length")
        now_s = self._loop.time()
        following = self._queue.leave(ticket, min(ticket.end_s, now_s) if finished else now_s)
        if following is not None:
            following[0].start(following[1])
        self.metrics.record(ticket, reason, streamed, now_s)

    def die(self) -> None:
        """Fail every open request, and refuse new ones."""
        self._dead = True
        for ticket in list(self._open):
            ticket.fail(EngineDeadError())
