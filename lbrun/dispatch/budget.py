"""A token bucket that paces retries: it delays them, it never forbids one."""

from __future__ import annotations


class RetryBudget:
    """Retries may make up `share` of the first attempts, plus `per_s` a second.

    The bucket holds at most `burst`, so that a quiet hour does not pay for a storm.
    """

    __slots__ = ("_burst", "_filled_at_s", "_level", "_per_s", "_share")

    def __init__(self, share: float, per_s: float, *, now_s: float, burst: float = 20.0) -> None:
        self._share, self._per_s, self._burst = share, per_s, burst
        self._level = burst
        self._filled_at_s = now_s

    def first_attempt(self) -> None:
        """A sample was sent for the first time: the load that retries are measured against."""
        level = self._level + self._share
        self._level = level if level < self._burst else self._burst

    def take(self, now_s: float) -> float:
        """Take one retry out: 0.0 if granted, else nothing is taken and the seconds to wait are told."""
        self._level = min(self._burst, self._level + (now_s - self._filled_at_s) * self._per_s)
        self._filled_at_s = now_s
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        if self._per_s > 0:
            return (1.0 - self._level) / self._per_s
        return 0.05
