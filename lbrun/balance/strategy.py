"""What a strategy sees, what it must answer, and the base class of all of them.

A strategy picks a server for an attempt. It does no I/O, reads no clock and owns no state of a server: it
looks at a `PoolView` and is told what changes there. Strategies run on one thread, the dispatcher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class PoolView(Protocol):
    """The pool as strategies may see it; all sequences are live, indexed by server, and not to be changed.

    n: number of servers, whatever their state.
    eligible: the servers that may take one more attempt now, in ascending order.
    in_flight: attempts under way at each server.
    tokens_in_flight: prompt and expected output tokens of those attempts.
    """

    @property
    def n(self) -> int: ...  # noqa: D102 - see the class
    @property
    def eligible(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def in_flight(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def tokens_in_flight(self) -> Sequence[int]: ...  # noqa: D102

    def is_eligible(self, server: int) -> bool:
        """Whether the server may take one more attempt now."""

    def weight(self, server: int) -> float:
        """The server's configured share of the load relative to the others; 1.0 where none is given."""


@runtime_checkable
class Strategy(Protocol):
    """Picks servers for attempts. Write your own as a subclass of `BaseStrategy`."""

    name: str

    def bind(self, view: PoolView) -> None:
        """Take the view to pick from; called once, before anything else."""

    def pick(self, tokens: int) -> int:
        """The server for an attempt of so many tokens, one of `view.eligible`, which is never empty here."""

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        """The same for a retry: one of the candidates (eligible, ascending, never empty)."""

    def joined(self, server: int) -> None:
        """The server has just become eligible."""

    def left(self, server: int) -> None:
        """The server is no longer eligible (full, throttled or out of service)."""

    def started(self, server: int, tokens: int) -> None:
        """An attempt has started there; the view's counts already include it."""

    def ended(self, server: int, tokens: int) -> None:
        """An attempt has ended there; the view's counts no longer include it."""

    def observed(self, server: int, ttft_s: float, now_s: float) -> None:
        """An attempt there had its first token (or whole answer) `ttft_s` after it was sent."""


class BaseStrategy:
    """A strategy of which only `pick` is missing; the notices do nothing until they are overridden.

    Notices that a subclass leaves alone cost nothing: the pool does not call them.
    """

    name = "custom"
    view: PoolView

    def bind(self, view: PoolView) -> None:
        """Keep the view. An override calls this first."""
        self.view = view

    def pick(self, tokens: int) -> int:
        """Pick among `self.view.eligible`; every strategy has its own."""
        raise NotImplementedError

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        """The least busy candidate: for a retry, the sooner answer matters more than the exact share."""
        return min(candidates, key=self.view.in_flight.__getitem__)

    def joined(self, server: int) -> None:
        """Nothing to do; see `Strategy`."""

    def left(self, server: int) -> None:
        """Nothing to do; see `Strategy`."""

    def started(self, server: int, tokens: int) -> None:
        """Nothing to do; see `Strategy`."""

    def ended(self, server: int, tokens: int) -> None:
        """Nothing to do; see `Strategy`."""

    def observed(self, server: int, ttft_s: float, now_s: float) -> None:
        """Nothing to do; see `Strategy`."""
