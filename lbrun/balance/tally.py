"""What the transitions add up to: ejections, recoveries, and since when nobody is in service."""

from __future__ import annotations

from lbrun.balance.states import UP, ServerState, Transition

_OUT = frozenset({ServerState.EJECTED, ServerState.EXCLUDED, ServerState.STARTING})


class Tally:
    """Counts over a pool's transitions. ejections, recoveries: by server.

    n_up: servers that may still answer. down_since_s: since when there is none, None while there is one.
    """

    def __init__(self, n: int, now_s: float) -> None:
        self.ejections, self.recoveries = [0] * n, [0] * n
        self.n_up = 0
        self.down_since_s: float | None = now_s
        self._was_out = [False] * n

    def count(self, transition: Transition) -> bool:
        """Take a transition in; True if the server is ready again after it was taken out, or joins late."""
        server, old, new = transition.server, transition.old, transition.new
        self.n_up += (new in UP) - (old in UP)
        if self.n_up:
            self.down_since_s = None
        elif self.down_since_s is None:
            self.down_since_s = transition.now_s
        if new is ServerState.EJECTED:
            self.ejections[server] += 1
        if new in _OUT:
            self._was_out[server] = True
        if new is not ServerState.READY or not self._was_out[server] or old is ServerState.SUSPECT:
            return False
        self._was_out[server] = False
        if old is not ServerState.EXCLUDED:
            self.recoveries[server] += 1
        return True
