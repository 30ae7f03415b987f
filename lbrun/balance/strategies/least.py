"""The least loaded server: by attempts in flight, or by tokens in flight."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace

from lbrun.balance.strategy import BaseStrategy, PoolView

_AWAY = -1


class _LeastLoaded(BaseStrategy):
    """The eligible server with the smallest load; among equals the one that changed longest ago.

    Equal servers therefore take turns, and an idle pool is not all sent to its first server. A heap holds an
    entry (load, stamp, server) for every change; an entry is void once the server has a newer stamp, and is
    dropped when it comes to the top. O(log n).
    """

    def bind(self, view: PoolView) -> None:
        """Start with nobody; servers enter as they join."""
        super().bind(view)
        self._load = self._load_of(view)
        self._stamp = [_AWAY] * view.n
        self._clock = 0
        self._heap: list[tuple[int, int, int]] = []
        self._bound = 4 * view.n + 64

    def _load_of(self, view: PoolView) -> Sequence[int]:
        raise NotImplementedError

    def joined(self, server: int) -> None:
        """Enter with the present load, behind all equals."""
        self._clock = stamp = self._clock + 1
        self._stamp[server] = stamp
        heappush(self._heap, (self._load[server], stamp, server))
        if len(self._heap) > self._bound:
            self._compact()

    def left(self, server: int) -> None:
        """Make the server's entry void."""
        self._stamp[server] = _AWAY

    def pick(self, tokens: int) -> int:
        """The least loaded eligible server."""
        heap, stamps = self._heap, self._stamp
        while True:
            _, stamp, server = heap[0]
            if stamps[server] == stamp:
                return server
            heappop(heap)

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        """The least loaded candidate."""
        load, stamp = self._load, self._stamp
        return min(candidates, key=lambda server: (load[server], stamp[server]))

    def started(self, server: int, tokens: int) -> None:
        """Move the server to its new load; it is at the top after a pick, so one sift does."""
        if self._stamp[server] == _AWAY:
            return
        self._clock = stamp = self._clock + 1
        self._stamp[server] = stamp
        heap = self._heap
        if heap[0][2] == server:
            heapreplace(heap, (self._load[server], stamp, server))
        else:
            heappush(heap, (self._load[server], stamp, server))

    def ended(self, server: int, tokens: int) -> None:
        """Move the server to its new load; its old entry becomes void where it is."""
        if self._stamp[server] == _AWAY:
            return
        self._clock = stamp = self._clock + 1
        self._stamp[server] = stamp
        heap = self._heap
        heappush(heap, (self._load[server], stamp, server))
        if len(heap) > self._bound:
            self._compact()

    def _compact(self) -> None:
        """Keep one entry a server. Comes after O(n) changes at the earliest, so O(1) for each of them."""
        load = self._load
        self._heap = [(load[s], stamp, s) for s, stamp in enumerate(self._stamp) if stamp != _AWAY]
        heapify(self._heap)


class LeastOutstanding(_LeastLoaded):
    """The server with the fewest attempts in flight: exact, since this client sees all the load.

    The one to use for unequal servers: in a pool of speeds 1, 1 and 1/3 it doubles what round robin reaches.
    """

    name = "least_outstanding"

    def _load_of(self, view: PoolView) -> Sequence[int]:
        return view.in_flight


class LeastTokens(_LeastLoaded):
    """The server with the fewest tokens in flight, prompt and expected output together: for mixed lengths."""

    name = "least_tokens"

    def _load_of(self, view: PoolView) -> Sequence[int]:
        return view.tokens_in_flight
