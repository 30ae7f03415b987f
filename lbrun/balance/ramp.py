"""How much a recovered server may take while its share ramps up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import ceil

_FULL = 1.0


class Ramps:
    """The servers that are ramping up, and the bound on what each may have in flight.

    The bound is the elapsed share of what the steady servers carry on average for their weight. Bounding what
    is in flight works alike for every strategy and at any load, where a share of the picks would flood a cold
    server whenever its answers are slow. It is worked out anew a few times a second, never per attempt.

    ramp_s: seconds until a server has its full share. in_flight: live counts. unbounded: the usual bound.
    """

    def __init__(
        self, ramp_s: float, *, in_flight: Sequence[int], weights: Sequence[float], unbounded: int
    ) -> None:
        self._ramp_s = ramp_s
        self._in_flight, self._weights, self._unbounded = in_flight, weights, unbounded
        self._from_s: dict[int, float] = {}
        self._per_weight = 0.0

    def __bool__(self) -> bool:
        return bool(self._from_s)

    def __contains__(self, server: int) -> bool:
        return server in self._from_s

    def begin(self, server: int, now_s: float) -> None:
        """The server has recovered."""
        self._from_s[server] = now_s

    def end(self, server: int) -> None:
        """The server is out of service again, or has its full share."""
        self._from_s.pop(server, None)

    def finish(self, now_s: float) -> list[int]:
        """End the ramps that are over; returns every server that was still ramping."""
        ramping = list(self._from_s)
        for server in ramping:
            if now_s - self._from_s[server] >= self._ramp_s:
                del self._from_s[server]
        return ramping

    def measure(self, steady: Collection[int]) -> None:
        """Measure what the servers in full service carry, at least one, for `bound`."""
        carried = sum(self._in_flight[server] for server in steady)
        self._per_weight = carried / sum(self._weights[server] for server in steady)

    def bound(self, server: int, now_s: float) -> int:
        """Attempts that a ramping server may have in flight, at least 1; by what `measure` found last."""
        elapsed = min(_FULL, (now_s - self._from_s[server]) / self._ramp_s) if self._ramp_s > 0 else _FULL
        if elapsed >= _FULL:
            return self._unbounded
        return max(1, min(self._unbounded, ceil(elapsed * self._per_weight * self._weights[server])))
