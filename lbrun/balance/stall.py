"""Which servers are silent although they have work."""

from __future__ import annotations

from collections.abc import Sequence


class StallWatch:
    """Tells servers that had attempts in flight, and sent no byte, for `stall_s` seconds without a break.

    Looks at all servers a few times a second and costs nothing per attempt. If it was not asked for over a
    second, this process was held up itself; bytes may wait unread then, so all clocks start anew.
    """

    _HELD_UP_S = 1.0

    def __init__(self, n: int, stall_s: float, now_s: float) -> None:
        self._stall_s = stall_s
        self._quiet_since_s = [now_s] * n
        self._asked_s = now_s

    def silent(self, in_flight: Sequence[int], last_byte_s: Sequence[float], now_s: float) -> list[int]:
        """The servers that have stalled, by their counts in flight and the time of their last byte."""
        quiet = self._quiet_since_s
        if now_s - self._asked_s > self._HELD_UP_S:
            quiet[:] = [now_s] * len(quiet)
        self._asked_s = now_s
        stalled = []
        for server, count in enumerate(in_flight):
            if count == 0:
                quiet[server] = now_s
                continue
            quiet[server] = max(quiet[server], last_byte_s[server])
            if now_s - quiet[server] >= self._stall_s:
                stalled.append(server)
        return stalled
