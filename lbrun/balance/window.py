"""Counts of successes and failures over the last seconds, at constant cost."""

from __future__ import annotations

_SLICES = 10


class OutcomeWindow:
    """How many attempts succeeded and failed in the last `window_s` seconds.

    Time is cut into ten slices, so the window's edge is exact to a tenth of it. Counting is O(1).
    """

    __slots__ = ("_failed", "_now_failed", "_now_ok", "_ok", "_slice_end_s", "_slice_s")

    def __init__(self, window_s: float, now_s: float) -> None:
        self._slice_s = window_s / _SLICES
        self.clear(now_s)

    def clear(self, now_s: float) -> None:
        """Forget everything."""
        self._ok, self._failed = [0] * (_SLICES - 1), [0] * (_SLICES - 1)  # oldest first
        self._now_ok = self._now_failed = 0
        self._slice_end_s = now_s + self._slice_s

    def ok(self, now_s: float) -> None:
        """Count a success."""
        if now_s >= self._slice_end_s:
            self._advance(now_s)
        self._now_ok += 1

    def failed(self, now_s: float) -> None:
        """Count a failure."""
        if now_s >= self._slice_end_s:
            self._advance(now_s)
        self._now_failed += 1

    def totals(self, now_s: float) -> tuple[int, int]:
        """Successes and failures in the window."""
        if now_s >= self._slice_end_s:
            self._advance(now_s)
        return sum(self._ok) + self._now_ok, sum(self._failed) + self._now_failed

    def _advance(self, now_s: float) -> None:
        passed = int((now_s - self._slice_end_s) / self._slice_s) + 1
        if passed >= _SLICES:
            self.clear(now_s)
            return
        self._ok = [*self._ok, self._now_ok, *[0] * (passed - 1)][-(_SLICES - 1) :]
        self._failed = [*self._failed, self._now_failed, *[0] * (passed - 1)][-(_SLICES - 1) :]
        self._now_ok = self._now_failed = 0
        self._slice_end_s += passed * self._slice_s
