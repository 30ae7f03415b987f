"""Notices a server that serves another model, or another release, than at the start of the run.

A process that died may come back with another model under the same name, and SGLang answers to any name. So
what a server tells is compared whenever it is asked: before it is taken back, soon after a connection to it
was lost, now and then while it serves, and at the end of the run. Pure: the clock is passed in; the monitor
does the asking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from random import Random

from lbrun.balance.identity import difference, merged
from lbrun.balance.models import ModelInfo
from lbrun.balance.probe import NOBODY_LISTENS, ProbeResult
from lbrun.balance.states import ProbeOutcome

INTERVAL_S = 30.0
"""Between two looks at what a server in service tells, give or take a fifth."""

_AFTER_LOSS_S = 0.2
_BETWEEN_LOOKS_S = 2.0  # a server that loses connections all the time is not asked more often
_CONFIRMATIONS = 2
_MOST_AT_A_TIME = 16
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A server was found to serve something else.

    what: in words. since_s: from then on its answers may be the other model's. found_s: when it was
    confirmed.
    """

    server: int
    what: str
    since_s: float
    found_s: float


@dataclass(slots=True)
class _Doubt:
    """A server told something else, which is not confirmed yet."""

    what: str
    since_s: float
    times: int = 0


class ModelWatch:
    """What each server told at the start, and when it is to be asked again.

    first: by server; those that join late are known by what they tell then. changes: in the order in which
    they were found. on_change: called for each.

    Since when a server's answers are in doubt: since the last look that found the same as at the start. But
    where nobody listened for a while, a process has ended: what was answered before the first lost connection
    was the old one's. The same holds where the server itself refused the model.
    """

    def __init__(
        self,
        n: int,
        first: Mapping[int, ModelInfo],
        *,
        now_s: float,
        random: Random,
        on_change: Callable[[ModelChange], None] | None = None,
    ) -> None:
        self.known: dict[int, ModelInfo] = dict(first)
        self.changes: list[ModelChange] = []
        self._random, self._on_change = random, on_change
        self._same_s = [now_s] * n  # when the last look began that found the same
        self._lost_s = [inf] * n  # when a connection was first lost since then
        self._gone_s = [inf] * n  # when nobody listened for the first time since then
        self._doubts: dict[int, _Doubt] = {}
        self._changed: set[int] = set()
        self._looked_s = [-inf] * n
        self._next_s = [now_s + random.uniform(0.0, INTERVAL_S) for _ in range(n)]
        self._queue = [(due_s, server) for server, due_s in enumerate(self._next_s)]
        heapify(self._queue)

    # ---- when to look

    def lost_connection(self, server: int, now_s: float, *, is_gone: bool = False) -> None:
        """A connection to the server was lost: look soon.

        is_gone: nobody listens, or not for this model (404).
        """
        self._lost_s[server] = min(self._lost_s[server], now_s)
        if is_gone:
            self._gone_s[server] = min(self._gone_s[server], now_s)
        soon_s = max(now_s + _AFTER_LOSS_S, self._looked_s[server] + _BETWEEN_LOOKS_S)
        if soon_s < self._next_s[server]:
            self._schedule(server, soon_s)

    def due(self, now_s: float) -> list[int]:
        """The servers to look at now; each is given out once, and comes up again by itself."""
        due: list[int] = []
        while self._queue and self._queue[0][0] <= now_s and len(due) < _MOST_AT_A_TIME:
            due_s, server = heappop(self._queue)
            if due_s == self._next_s[server]:  # else it was put off or moved up meanwhile
                due.append(server)
                self._looked_s[server] = now_s
                # one whose list cannot be read after a loss is asked again soon
                is_lost = self._lost_s[server] < inf
                self._schedule(server, now_s + (_BETWEEN_LOOKS_S if is_lost else self._interval_s()))
        return due

    def _schedule(self, server: int, due_s: float) -> None:
        self._next_s[server] = due_s
        heappush(self._queue, (due_s, server))

    def _interval_s(self) -> float:
        return INTERVAL_S * self._random.uniform(1 - _JITTER, 1 + _JITTER)

    # ---- what was found

    def judge(self, server: int, result: ProbeResult, began_s: float, now_s: float) -> ProbeResult:
        """The result, in the light of what the server told before.

        began_s: when the probe began. Only an answer counts: that a list cannot be read now says nothing of
        the model, but is no reason to take a server back that could be asked before.
        """
        if result.outcome is ProbeOutcome.REFUSED and result.detail == NOBODY_LISTENS:
            self._gone_s[server] = min(self._gone_s[server], now_s)
        info, before = result.model, self.known.get(server)
        if info is None:
            return result
        is_ok = result.outcome is ProbeOutcome.OK
        if before is None:
            if is_ok:
                self._found_the_same(server, info, began_s, now_s)
            return result
        if is_ok and before.facts and not info.facts:
            told = f"{result.detail} (at the start: model {before.facts.get('model')!r})"
            return result._replace(outcome=ProbeOutcome.ERROR, detail=told)
        what = difference(before, info)
        if is_ok and not what:
            self._found_the_same(server, info, began_s, now_s)
            return result
        if not what and result.outcome is not ProbeOutcome.WRONG_MODEL:
            return result
        what = what or result.detail
        self._found_another(server, what, now_s)
        return result._replace(outcome=ProbeOutcome.WRONG_MODEL, detail=what)

    def unverified(self, unread: Collection[int]) -> list[tuple[int, float]]:
        """Servers of which nothing was read after they lost a connection, or at the end (`unread`), and since
        when their answers are without proof of the model.
        """
        found = []
        for server, info in self.known.items():
            if info.facts and server not in self._changed:
                if self._lost_s[server] < inf:
                    found.append((server, self._lost_s[server]))
                elif server in unread:
                    found.append((server, self._same_s[server]))
        return found

    def differed_once(self) -> list[tuple[int, str]]:
        """Servers that told something else a single time, and what."""
        return [(server, doubt.what) for server, doubt in self._doubts.items() if doubt.times == 1]

    def _found_the_same(self, server: int, info: ModelInfo, began_s: float, now_s: float) -> None:
        self.known[server] = merged(self.known.get(server), info)
        self._changed.discard(server)
        self._same_s[server] = max(self._same_s[server], began_s)
        if self._gone_s[server] < began_s:
            self._gone_s[server] = inf
        was_lost = self._lost_s[server] < began_s
        if was_lost:
            self._lost_s[server] = inf
        # a process that is about to end may have answered: look once more
        self._schedule(server, now_s + (_BETWEEN_LOOKS_S if was_lost else self._interval_s()))

    def _found_another(self, server: int, what: str, now_s: float) -> None:
        if server in self._changed:
            return
        doubt = self._doubts.get(server)
        if doubt is None:
            since_s = self._same_s[server]
            if self._gone_s[server] < inf:
                since_s = max(since_s, min(self._gone_s[server], self._lost_s[server]))
            # it holds until it is confirmed, whatever comes between: one URL may lead to several processes
            doubt = self._doubts[server] = _Doubt(what, since_s)
        doubt.times += 1
        if doubt.times < _CONFIRMATIONS:
            return
        self._changed.add(server)
        del self._doubts[server]
        change = ModelChange(server, what, doubt.since_s, now_s)
        self.changes.append(change)
        if self._on_change is not None:
            self._on_change(change)
