"""How long a 429 pauses a server. Pure: what was asked for and served in, seconds out.

A server that refuses most of what it gets is full. It gets the pause that it asks for, up to a cap. A server
that serves more than it refuses is not paused: a `Retry-After` of a day on 3 % of its answers must not cost
the pool a server. The refused sample goes elsewhere in any case.
"""

from __future__ import annotations

from lbrun.balance.states import HealthPolicy
from lbrun.balance.window import OutcomeWindow

FULL_SHARE = 0.5
"""A server that refuses this share of its requests is full."""


class Throttle:
    """The 429s of one server. paused_s: what was granted in all; longest_wish_s: the longest Retry-After."""

    __slots__ = ("_policy", "_refused", "longest_wish_s", "paused_s", "refusals")

    def __init__(self, policy: HealthPolicy, now_s: float) -> None:
        self._policy = policy
        self._refused = OutcomeWindow(policy.window_s, now_s)
        self.refusals = 0
        self.paused_s = 0.0
        self.longest_wish_s = 0.0

    def pause_s(self, wish_s: float | None, answered: int, now_s: float) -> float:
        """Note a 429; the pause that it brings, 0 for none.

        wish_s: of its Retry-After, None without one. answered: full answers within the policy's window.
        """
        self.refusals += 1
        self._refused.failed(now_s)
        _, refused = self._refused.totals(now_s)
        policy = self._policy
        granted_s = policy.throttle_default_s
        if wish_s is not None:
            self.longest_wish_s = max(self.longest_wish_s, wish_s)
            granted_s = min(max(wish_s, policy.throttle_floor_s), policy.throttle_cap_s)
        if refused < FULL_SHARE * (refused + answered):
            return 0.0
        self.paused_s += granted_s
        return granted_s
