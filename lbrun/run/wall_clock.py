"""Whether the wall clock was set during a test. LoadGen measures every time by it, lbrun none.

A clock that is put forward by an hour makes LoadGen report a run an hour longer than it was, and call it
valid; one that is put back lets it wait for that hour to pass again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_S = 0.1
"""A change between two looks from here on is a step; clocks that are steered go by less than a thousandth."""
TOLERATED_S = 1.0
"""Steps of less than this in all are worth a warning; more of them make LoadGen's figures worthless."""


class WallClockWatch:
    """Compares the wall clock with the monotonic one, now and then.

    forward_s, backward_s: all steps so far.
    """

    def __init__(
        self, wall_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall_s, self._monotonic_s = wall_s, monotonic_s
        self._offset_s = self._offset()
        self.forward_s = self.backward_s = 0.0

    def look(self) -> None:
        """Note a step since the last look, if there was one."""
        offset_s = self._offset()
        step_s = offset_s - self._offset_s
        if abs(step_s) >= STEP_S:
            # the two clocks are not read in one moment: a process that was held up in between sees a step
            offset_s = self._offset()
            step_s = offset_s - self._offset_s
        if step_s >= STEP_S:
            self.forward_s += step_s
        elif step_s <= -STEP_S:
            self.backward_s -= step_s
        self._offset_s = offset_s

    @property
    def makes_loadgen_wait(self) -> bool:
        """LoadGen may wait until the time comes that it had already seen."""
        return self.backward_s >= TOLERATED_S

    @property
    def makes_figures_worthless(self) -> bool:
        """LoadGen's times are wrong by more than a little."""
        return self.forward_s + self.backward_s >= TOLERATED_S

    def describe(self) -> str:
        """What happened, "" for nothing."""
        steps = [
            f"{direction} by {seconds:,.1f} s"
            for direction, seconds in (("forward", self.forward_s), ("back", self.backward_s))
            if seconds
        ]
        if not steps:
            return ""
        return (
            f"the wall clock was put {' and '.join(steps)} during the test; "
            "LoadGen measures by it, so its figures are wrong by as much"
        )

    def _offset(self) -> float:
        return self._wall_s() - self._monotonic_s()
