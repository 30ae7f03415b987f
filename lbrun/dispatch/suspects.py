"""The books of lost attempts and dead servers: which samples a server's death is laid to.

A connection that is lost says little; that its server is down shows a moment later. So a sample that lost one
is noted, and what becomes of the server is entered into its history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lbrun.attempt import AttemptFailure
from lbrun.dispatch.retry import History, is_loss
from lbrun.dispatch.sample import OpenSample
from lbrun.dispatch.trials import Trials

SEEN_TO_LIVE_S = 1.0
"""A server that was heard of so long after it got a sample has hardly died of it. Those that got it later, or
were silent since, may have: of what was there when it died these are few, where answers take their time.
"""
ALIKE_S = 0.25
ALIKE_SHARE = 0.25
"""What kills servers takes about the same time at each; who was merely there was so for any time."""


class Suspects:
    """trials: where samples go under which a server has died. last_byte_ns: as `Trials` has it."""

    def __init__(self, last_byte_ns: Callable[[int], int]) -> None:
        self.trials = Trials(last_byte_ns)
        self._last_byte_ns = last_byte_ns
        self._lost: dict[int, set[OpenSample]] = {}
        self._there: dict[int, set[OpenSample]] = {}  # when the server died, and not completed since

    def note(self, sample: OpenSample, history: History, failure: AttemptFailure, now_s: float) -> None:
        """An attempt has failed; to be called while the sample's trial, if it is on one, still lasts."""
        if not is_loss(failure):
            return
        server, lasted_s = sample.server, (failure.at_ns - failure.sent_ns) * 1e-9
        lived_s = (self._last_byte_ns(server) - failure.sent_ns) * 1e-9
        by_chance = lived_s > SEEN_TO_LIVE_S or not _fits(history, server, lasted_s)
        if (by_chance and not history.is_twice_suspect) or not self.trials.may_have_killed(sample, now_s):
            history.outlived.add(server)
        else:
            history.outlived.discard(server)
        history.lasted_s[server] = lasted_s
        history.undecided.add(server)
        self._lost.setdefault(server, set()).add(sample)

    def died(self, server: int, now_s: float) -> None:
        """The server is down."""
        self.trials.server_died(server, now_s)
        there = self._there.setdefault(server, set())
        for sample in self._lost.pop(server, ()):
            if sample.history is not None:
                sample.history.undecided.discard(server)
                sample.history.deaths.add(server)
                there.add(sample)

    def lives(self, server: int) -> None:
        """The server is not down, or it was taken out for another reason."""
        for sample in self._lost.pop(server, ()):
            if sample.history is not None:
                sample.history.undecided.discard(server)

    def forget(self, sample: OpenSample, history: History) -> None:
        """The sample is completed."""
        for server in history.undecided:
            self._lost.get(server, set()).discard(sample)
        for server in history.deaths:
            self._there.get(server, set()).discard(sample)

    def convict(self, guilty: History) -> Sequence[OpenSample]:
        """It is known what killed these servers; returns those who have waited and are free to go now.

        Other samples under which two servers died are not cleared: either may be what killed them.
        """
        for server in guilty.deaths - guilty.outlived:
            for sample in self._there.pop(server, ()):
                if sample.history is not None and not sample.history.is_twice_suspect:
                    sample.history.deaths.discard(server)
        return self.trials.free()


def _fits(history: History, server: int, lasted_s: float) -> bool:
    """The attempt lasted about as long as those under which other servers went down."""
    others = [s for at, s in history.lasted_s.items() if at != server and at not in history.outlived]
    return not others or any(abs(lasted_s - s) <= ALIKE_S + ALIKE_SHARE * max(lasted_s, s) for s in others)
