"""Servers that asked to be left alone for a while (429), and when each pause ends."""

from __future__ import annotations

from heapq import heappop, heappush


class Pauses:
    """The paused servers. O(log n) for each wish, nothing per attempt."""

    def __init__(self) -> None:
        self._until_s: dict[int, float] = {}
        self._ends: list[tuple[float, int]] = []  # heap; void unless it is the server's present end

    def __contains__(self, server: int) -> bool:
        return server in self._until_s

    def add(self, server: int, until_s: float) -> None:
        """Pause a server; of several wishes the one that ends last holds."""
        if until_s > self._until_s.get(server, float("-inf")):
            self._until_s[server] = until_s
            heappush(self._ends, (until_s, server))

    def ended(self, now_s: float) -> list[int]:
        """The servers whose pause is over; each is told once."""
        over = []
        while self._ends and self._ends[0][0] <= now_s:
            end_s, server = heappop(self._ends)
            if self._until_s.get(server) == end_s:
                del self._until_s[server]
                over.append(server)
        return over
