"""Strategies that draw lots: random, and the better of two random servers. Both are seeded."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from lbrun.balance.strategy import BaseStrategy, PoolView


class RandomChoice(BaseStrategy):
    """Every eligible server with the same probability. O(1)."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed).random  # noqa: S311 - a draw of lots, not a secret

    def bind(self, view: PoolView) -> None:
        """Keep the list of eligible servers at hand."""
        super().bind(view)
        self._eligible = view.eligible

    def pick(self, tokens: int) -> int:
        """Any eligible server."""
        # random() scaled: five times cheaper than choice(), and its bias is below 2**-40 for any pool
        return self._eligible[int(self._random() * len(self._eligible))]

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        """Any candidate."""
        return candidates[int(self._random() * len(candidates))]


class PowerOfTwo(BaseStrategy):
    """Two different eligible servers by lot; the one with fewer attempts in flight. O(1).

    Close to `least_outstanding` in pools of hundreds of servers, and it does not send everyone to the same
    server when several independent clients share the pool (Mitzenmacher, 2001).
    """

    name = "power_of_two"

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed).random  # noqa: S311 - a draw of lots, not a secret

    def bind(self, view: PoolView) -> None:
        """Keep the live lists at hand."""
        super().bind(view)
        self._eligible = view.eligible
        self._in_flight = view.in_flight

    def pick(self, tokens: int) -> int:
        """The less busy of two eligible servers drawn by lot; the first drawn where they are equal."""
        return self.pick_among(self._eligible, tokens)

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        """The less busy of two candidates drawn by lot."""
        n = len(candidates)
        if n == 1:
            return candidates[0]
        random = self._random
        i = int(random() * n)
        j = int(random() * (n - 1))
        if j >= i:
            j += 1
        first, second = candidates[i], candidates[j]
        return second if self._in_flight[second] < self._in_flight[first] else first
