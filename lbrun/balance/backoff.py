"""How long an ejected server stays out: longer each time it fails again soon, forgiven with time."""

from __future__ import annotations

from random import Random

from lbrun.balance.states import HealthPolicy

_MAX_EXPONENT = 30  # 2**30 s is far beyond any cap; bounds the float


class Backoff:
    """The exponent k of one server, and the delay that follows from it."""

    __slots__ = ("_ejected_before", "_policy", "_random", "exponent")

    def __init__(self, policy: HealthPolicy, random: Random) -> None:
        self._policy, self._random = policy, random
        self._ejected_before = False
        self.exponent = 0

    def next_delay_s(self, healthy_s: float, *, useful: bool = False) -> float:
        """The delay before the next trial, for a server ejected after so long in health (0: on trial).

        useful: it answered at least as often as it failed. Where every server fails now and then, longer and
        longer delays would bring the run to a stop.
        """
        policy = self._policy
        forgiven = max(int(healthy_s / policy.forgive_s), int(useful))
        if forgiven:
            self.exponent = max(0, self.exponent - forgiven)
        elif self._ejected_before:
            self.exponent = min(_MAX_EXPONENT, self.exponent + 1)
        self._ejected_before = True
        delay_s = min(policy.backoff_cap_s, policy.backoff_base_s * 2.0**self.exponent)
        return delay_s * (1.0 + policy.backoff_jitter * self._random.uniform(-1.0, 1.0))
