"""Suspects: samples under which a server has died. One may be what killed it, the others were with it.

They go on apart from each other, at most one at a server at a time, so that the next death tells which one
it is. Without that the innocent would go where the guilty goes, and be with it at its second server as well.
Only suspects wait for each other; everything else is sent as ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from lbrun.dispatch.sample import OpenSample

HARMLESS_AFTER_S = 0.05
"""A server that lives so long under a suspect takes the next one. What kills a server does so at once; and a
server that was merely killed leaves hundreds of suspects, who must not wait for each other's whole answers.
"""
KILLS_WITHIN_S = 2.0
"""A server that goes down later than this after it got a suspect has hardly died of it."""


class _Trial(NamedTuple):
    sample: OpenSample
    began_s: float


class Trials:
    """Which suspect is at which server, and which ones wait."""

    def __init__(self) -> None:
        self._at: dict[int, _Trial] = {}
        self._out: set[OpenSample] = set()
        self._waiting: deque[OpenSample] = deque()

    def open_among(self, servers: Sequence[int], now_s: float) -> Sequence[int]:
        """Those of the servers that may take a suspect now."""
        at = self._at
        return [s for s in servers if s not in at or now_s - at[s].began_s > HARMLESS_AFTER_S]

    def begin(self, server: int, sample: OpenSample, now_s: float) -> None:
        """A suspect is sent to a server."""
        self._at[server] = _Trial(sample, now_s)
        self._out.add(sample)

    def may_have_killed(self, sample: OpenSample, now_s: float) -> bool:
        """Whether the sample is the last suspect that its server got, and a recent one.

        Also true of a sample that was not sent as a suspect: nobody has watched what it outlived.
        """
        if sample not in self._out:
            return True
        trial = self._at.get(sample.server)
        return trial is not None and trial.sample is sample and now_s - trial.began_s <= KILLS_WITHIN_S

    def wait(self, sample: OpenSample) -> None:
        """No server may take the suspect now."""
        self._waiting.append(sample)

    def end(self, sample: OpenSample) -> OpenSample | None:
        """An attempt has ended; the suspect that may have its turn now, if it was one's and another waits."""
        self._out.discard(sample)
        trial = self._at.get(sample.server)
        if trial is None or trial.sample is not sample:
            return None
        del self._at[sample.server]
        return self._waiting.popleft() if self._waiting else None

    def due(self, n: int) -> Sequence[OpenSample]:
        """Up to n suspects to be looked at again: trials may have lasted long enough, servers be back."""
        return [self._waiting.popleft() for _ in range(min(n, len(self._waiting)))]

    def clear(self) -> Sequence[OpenSample]:
        """End all; those that have waited."""
        self._at.clear()
        self._out.clear()
        return self.due(len(self._waiting))
