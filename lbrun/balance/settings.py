"""What a pool is told about its servers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from lbrun.balance.states import HealthPolicy
from lbrun.errors import ConfigError

UNLIMITED = sys.maxsize


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The servers and the rules of a pool.

    urls: the servers, in the order of their indices. max_in_flight: bound of attempts per server, None for
    none. weights: relative shares, one a server; None for equal ones. policy: the numbers of server health.
    seed: of the jitter of back-offs.

    Raises ConfigError for numbers that make no sense.
    """

    urls: Sequence[str]
    max_in_flight: int | None = None
    weights: Sequence[float] | None = None
    policy: HealthPolicy = field(default_factory=HealthPolicy)
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if not self.urls:
            problems.append("servers.urls: no servers; write 'servers.urls=[http://a:8000]'")
        if self.max_in_flight is not None and self.max_in_flight < 1:
            problems.append(f"servers.max_in_flight: {self.max_in_flight} is below 1; null is for no bound")
        weights = self.weights or ()
        if self.weights is not None and len(weights) != len(self.urls):
            problems.append(
                f"servers.weights: {len(weights)} weights for {len(self.urls)} servers; write one for each"
            )
        problems += [
            f"servers.weights[{server}]: {weight!r} is no weight; write a number above 0"
            for server, weight in enumerate(weights)
            if not (isfinite(weight) and weight > 0)
        ]
        if problems:
            raise ConfigError(problems)
