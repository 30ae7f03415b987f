"""Weighted: smooth shares in proportion to configured weights, by stride scheduling."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace

from lbrun.balance.strategy import BaseStrategy, PoolView


class Weighted(BaseStrategy):
    """Each server's share of the attempts is its weight over the sum of weights. O(log n).

    The k-th attempt of a server has the deadline ``base + (k + 1/2) / weight``, and the earliest deadline is
    picked (stride scheduling; Waldspurger and Weihl, 1995). With integer weights every cycle of
    ``sum(weights)`` picks is exactly proportional, and a server's turns are spread over the cycle. A deadline
    is computed from k, not added up, so rounding does not build up and equal deadlines stay equal.

    A server that rejoins starts at the present: what it missed while it was full or away is not made up for
    in a burst.
    """

    name = "weighted"

    def bind(self, view: PoolView) -> None:
        """Take over the weights; servers enter the schedule as they join."""
        super().bind(view)
        self._weight = [view.weight(server) for server in range(view.n)]
        self._base = [0.0] * view.n
        self._turns = [0] * view.n
        self._deadline = [0.5 / weight for weight in self._weight]
        self._now = 0.0  # the last picked deadline: the schedule's virtual time
        self._member = bytearray(view.n)
        # (deadline, server); an entry is void unless it is the server's present deadline
        self._heap: list[tuple[float, int]] = []
        self._queued = bytearray(view.n)  # the present deadline is in the heap, member or not

    def joined(self, server: int) -> None:
        """Enter the schedule, at the present if the server's turn has passed meanwhile."""
        self._member[server] = 1
        if self._deadline[server] < self._now:
            self._base[server], self._turns[server] = self._now, 0
            self._deadline[server] = self._now + 0.5 / self._weight[server]
            self._queue(server)
        elif not self._queued[server]:
            self._queue(server)

    def left(self, server: int) -> None:
        """Leave the schedule; the entry stays until it comes to the top, in case the server is soon back."""
        self._member[server] = 0

    def pick(self, tokens: int) -> int:
        """The member with the earliest deadline; the lower index where deadlines are equal."""
        heap, member, deadlines = self._heap, self._member, self._deadline
        while True:
            deadline, server = heap[0]
            if deadlines[server] == deadline:
                if member[server]:
                    break
                self._queued[server] = 0
            heappop(heap)
        self._now = deadline
        turns = self._turns[server] = self._turns[server] + 1
        later = deadlines[server] = self._base[server] + (turns + 0.5) / self._weight[server]
        heapreplace(heap, (later, server))
        return server

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        """The candidate with the earliest deadline; a retry uses up a turn like any attempt."""
        server = min(candidates, key=self._deadline.__getitem__)
        # the schedule's time stays: others may be due before this one
        turns = self._turns[server] = self._turns[server] + 1
        self._deadline[server] = self._base[server] + (turns + 0.5) / self._weight[server]
        self._queue(server)
        return server

    def _queue(self, server: int) -> None:
        """Put the present deadline into the heap; drop void entries once they outnumber the servers."""
        heap = self._heap
        heappush(heap, (self._deadline[server], server))
        self._queued[server] = 1
        if len(heap) > 4 * len(self._member) + 16:
            heap[:] = [(self._deadline[s], s) for s in range(len(self._member)) if self._member[s]]
            heapify(heap)
            self._queued[:] = self._member
