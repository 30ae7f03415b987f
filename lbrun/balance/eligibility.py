"""Which servers may take one more attempt: kept up to date change by change, never worked out anew."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence

from lbrun.balance.notices import Notices


class Eligibility:
    """The eligible servers of a pool: those with fewer attempts in flight than their limit.

    servers: in ascending order. member: 1 at the index of each of them. limit: by server, 0 for those out of
    service. All three are changed in place and may be held on to. A change costs O(log n), and the strategy
    is told.
    """

    __slots__ = ("_in_flight", "_joined", "_left", "limit", "member", "servers")

    def __init__(self, in_flight: Sequence[int]) -> None:
        self._in_flight = in_flight
        self.servers: list[int] = []
        self.member = bytearray(len(in_flight))
        self.limit = [0] * len(in_flight)
        self._joined: Callable[[int], None] | None = None
        self._left: Callable[[int], None] | None = None

    def tell(self, notices: Notices) -> None:
        """Tell the strategy of every change from now on."""
        self._joined = notices.get("joined")
        self._left = notices.get("left")

    def join(self, server: int) -> None:
        """The server has room and did not before."""
        insort(self.servers, server)
        self.member[server] = 1
        if self._joined is not None:
            self._joined(server)

    def leave(self, server: int) -> None:
        """The server has no room any more."""
        del self.servers[bisect_left(self.servers, server)]
        self.member[server] = 0
        if self._left is not None:
            self._left(server)

    def set_limit(self, server: int, limit: int) -> bool:
        """Change the server's limit; True if the server has joined by it."""
        self.limit[server] = limit
        fits = self._in_flight[server] < limit
        if fits == bool(self.member[server]):
            return False
        if fits:
            self.join(server)
        else:
            self.leave(server)
        return fits
