"""The clock of deadlines: asks now and then whose time is over, when that can be judged fairly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic_ns

LATE_SWEEP_S = 0.25
"""A sweep this late says that the loop or the whole process was held up, so that answers may have come that
are not read yet; it judges nobody."""


class Sweeper:
    """Calls end_overdue(now_ns) every interval_s, once the bytes that had come by that time are read."""

    def __init__(self, interval_s: float, end_overdue: Callable[[int], None]) -> None:
        self._interval_s, self._end_overdue = interval_s, end_overdue
        self._skipped = False
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._schedule()

    def stop(self) -> None:
        """End; a sweep whose turn was to come still does, and must find nothing."""
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        due_s = self._loop.time() + self._interval_s
        self._timer = self._loop.call_later(self._interval_s, self._sweep, due_s)

    def _sweep(self, due_s: float) -> None:
        late = self._loop.time() - due_s > LATE_SWEEP_S
        self._schedule()
        self._skipped = late and not self._skipped  # never twice in a row
        if not self._skipped:
            # a turn later, since timers come before what there is to read
            self._loop.call_soon(self._loop.call_soon, self._end_overdue, monotonic_ns())
