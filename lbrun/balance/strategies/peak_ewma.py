"""Peak EWMA: the quicker of two random servers, by what was lately seen of their time to first token."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from random import Random

from lbrun.balance.strategy import BaseStrategy, PoolView


class PeakEwma(BaseStrategy):
    """Two eligible servers by lot; the one with the smaller ``TTFT estimate x (in flight + 1)``. O(1).

    The estimate jumps to a slower observation at once and forgets it with the time constant ``decay_s``
    (seconds), as in Finagle. TTFT and not the whole latency is observed, since output lengths rule that.
    A server that was never observed is taken to be as quick as the average, so it is neither shunned nor
    flooded.
    """

    name = "peak_ewma"

    def __init__(self, seed: int = 0, decay_s: float = 10.0) -> None:
        if not decay_s > 0:
            raise ValueError(f"decay_s must be above 0 seconds, not {decay_s!r}")
        self._random = Random(seed).random  # noqa: S311 - a draw of lots, not a secret
        self._decay_s = decay_s

    def bind(self, view: PoolView) -> None:
        """Start without observations."""
        super().bind(view)
        self._eligible = view.eligible
        self._in_flight = view.in_flight
        self._estimate_s = [0.0] * view.n  # 0: never observed
        self._observed_at_s = [0.0] * view.n
        self._average_s = 0.0

    def pick(self, tokens: int) -> int:
        """The cheaper of two eligible servers drawn by lot."""
        return self.pick_among(self._eligible, tokens)

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        """The cheaper of two candidates drawn by lot; the first drawn where they are equal."""
        n = len(candidates)
        if n == 1:
            return candidates[0]
        random = self._random
        i = int(random() * n)
        j = int(random() * (n - 1))
        if j >= i:
            j += 1
        first, second = candidates[i], candidates[j]
        estimate_s, in_flight = self._estimate_s, self._in_flight
        average_s = self._average_s or 1.0
        cost_first = (estimate_s[first] or average_s) * (in_flight[first] + 1)
        cost_second = (estimate_s[second] or average_s) * (in_flight[second] + 1)
        return second if cost_second < cost_first else first

    def observed(self, server: int, ttft_s: float, now_s: float) -> None:
        """Take an observation in: a peak at once, an improvement by and by."""
        self._average_s += (ttft_s - self._average_s) * (0.05 if self._average_s else 1.0)
        estimate_s = self._estimate_s[server]
        if ttft_s >= estimate_s:
            self._estimate_s[server] = ttft_s
        else:
            kept = exp(min(0.0, self._observed_at_s[server] - now_s) / self._decay_s)
            self._estimate_s[server] = estimate_s * kept + ttft_s * (1.0 - kept)
        self._observed_at_s[server] = now_s
