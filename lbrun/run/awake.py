"""Time in which this process ran. A watchdog must not count time in which it was stopped itself.

A whole machine or container may be frozen for minutes (docker pause, a snapshot of a VM, SIGSTOP). The
monotonic clock goes on meanwhile, and everything seems overdue at the moment of return.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_GAP_S = 3.0
"""A watchdog reads the clock every half second; a longer gap means that it was held up."""


class AwakeClock:
    """Seconds that leave gaps between two readings out. held_up_s: what was left out."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._last_s = clock_s()
        self.held_up_s = 0.0

    def now_s(self) -> float:
        """The present time; to be asked for at least every `LONGEST_GAP_S`."""
        now_s = self._clock_s()
        gap_s = now_s - self._last_s
        self._last_s = now_s
        if gap_s > LONGEST_GAP_S:
            self.held_up_s += gap_s
        return now_s - self.held_up_s
