"""Round robin: each eligible server in turn."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from lbrun.balance.strategy import BaseStrategy, PoolView


class RoundRobin(BaseStrategy):
    """The eligible server with the next higher index than the last one picked, then from the start.

    With equal servers and equal lengths it is exact: shares differ by at most one. A server that leaves or
    joins does not disturb the others' order. O(log n).
    """

    name = "round_robin"

    def bind(self, view: PoolView) -> None:
        """Start before the first server."""
        super().bind(view)
        self._eligible = view.eligible
        self._last = -1

    def pick(self, tokens: int) -> int:
        """The next eligible server in turn."""
        eligible = self._eligible
        at = bisect_right(eligible, self._last)
        server = self._last = eligible[at] if at < len(eligible) else eligible[0]
        return server

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        """The next candidate in turn; retries take part in the rotation, so they spread as well."""
        at = bisect_right(candidates, self._last)
        server = self._last = candidates[at] if at < len(candidates) else candidates[0]
        return server
