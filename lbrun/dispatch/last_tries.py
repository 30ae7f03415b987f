"""Samples under which two servers died, held back until nothing else is left to do.

Two deaths are no proof where servers also die by themselves. So the sample is neither sent again nor given
up at once. When the pool is idle, it gets a last try if servers have died without it, too; otherwise the
deaths speak for themselves, and it is given up. A last try that kills costs a server that no other sample
needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from lbrun.dispatch.retry import History
from lbrun.dispatch.sample import OpenSample

HOLD_S = 1.0
"""A pool may be idle for a moment, and a server that dies by itself may take a moment to be noticed."""


class LastTries:
    """n_deaths: servers that went down in this run, each as often as it did."""

    def __init__(self) -> None:
        self._held: deque[tuple[float, OpenSample]] = deque()
        self.n_deaths = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, sample: OpenSample, now_s: float) -> None:
        """Keep a sample until the pool is idle."""
        self._held.append((now_s, sample))

    def next(self, now_s: float) -> OpenSample | None:
        """The next sample to be decided on while the pool is idle; None while it is too early."""
        if not self._held or now_s - self._held[0][0] < HOLD_S:
            return None
        return self._held.popleft()[1]

    def deserves(self, history: History) -> bool:
        """Whether servers have died without the sample, so that its own deaths may be chance."""
        return not history.had_last_try and self.n_deaths > len(history.deaths)

    def clear(self) -> Sequence[OpenSample]:
        """Take out all samples."""
        held = [sample for _, sample in self._held]
        self._held.clear()
        return held
