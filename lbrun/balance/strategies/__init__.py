"""The strategies that come with lbrun, and how one is made from its name."""

from __future__ import annotations

from lbrun.balance.strategies.chance import PowerOfTwo, RandomChoice
from lbrun.balance.strategies.factory import STRATEGIES, make_strategy
from lbrun.balance.strategies.least import LeastOutstanding, LeastTokens
from lbrun.balance.strategies.peak_ewma import PeakEwma
from lbrun.balance.strategies.round_robin import RoundRobin
from lbrun.balance.strategies.weighted import Weighted

__all__ = [
    "STRATEGIES",
    "LeastOutstanding",
    "LeastTokens",
    "PeakEwma",
    "PowerOfTwo",
    "RandomChoice",
    "RoundRobin",
    "Weighted",
    "make_strategy",
]
