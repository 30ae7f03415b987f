"""Balancing: strategies that pick servers, and the pool that knows their states.

Decisions are pure: the time is passed in and nothing here does I/O, except `lbrun.balance.probe`,
which is imported on its own (as is `lbrun.balance.readiness`) because httpx takes a while to import.
"""

from __future__ import annotations

from lbrun.balance.pool import Pool
from lbrun.balance.settings import PoolSettings
from lbrun.balance.snapshot import PoolSnapshot, ServerSnapshot
from lbrun.balance.states import HealthPolicy, ProbeOutcome, ServerState, Transition
from lbrun.balance.strategies.factory import STRATEGIES, make_strategy
from lbrun.balance.strategy import BaseStrategy, PoolView, Strategy

__all__ = [
    "STRATEGIES",
    "BaseStrategy",
    "HealthPolicy",
    "Pool",
    "PoolSettings",
    "PoolSnapshot",
    "PoolView",
    "ProbeOutcome",
    "ServerSnapshot",
    "ServerState",
    "Strategy",
    "Transition",
    "make_strategy",
]
