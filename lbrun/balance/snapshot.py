"""The pool at one moment, for the progress bar and the results."""

from __future__ import annotations

from typing import NamedTuple

from lbrun.balance.states import ServerState


class ServerSnapshot(NamedTuple):
    """One server. The counts are of attempts, since the run began.

    paused: it asked for a pause (429) and gets no new work until that is over.
    """

    url: str
    state: ServerState
    paused: bool
    in_flight: int
    requests: int
    completed: int
    failed: int
    ejections: int
    recoveries: int
    last_error: str


class PoolSnapshot(NamedTuple):
    """All servers, in the order of their indices."""

    servers: tuple[ServerSnapshot, ...]

    @property
    def in_flight(self) -> int:
        """Attempts under way in the whole pool."""
        return sum(server.in_flight for server in self.servers)
