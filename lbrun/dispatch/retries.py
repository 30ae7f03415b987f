"""The samples that have failed before and wait to be sent again, and what each of them waits for."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence

from lbrun.dispatch.sample import OpenSample


class Retries:
    """ready: to be looked at in the loop's next turn. blocked: want room at a server. unpaid: could go, and
    wait in turn for the retry budget. All oldest first; besides them are those put off to some time.
    """

    __slots__ = ("_later", "_seq", "blocked", "ready", "unpaid")

    def __init__(self) -> None:
        self.ready: deque[OpenSample] = deque()
        self.blocked: deque[OpenSample] = deque()
        self.unpaid: deque[OpenSample] = deque()
        self._later: list[tuple[float, int, OpenSample]] = []
        self._seq = 0

    def __bool__(self) -> bool:
        """Whether there is anything to look at now."""
        return bool(self.ready or self.blocked or self.unpaid)

    def put_off(self, sample: OpenSample, until_s: float) -> None:
        """Look at the sample again then, or when servers have room again."""
        self._seq += 1
        heapq.heappush(self._later, (until_s, self._seq, sample))

    def wake(self, now_s: float) -> None:
        """Make ready what was put off until now."""
        later = self._later
        while later and later[0][0] <= now_s:
            self.ready.append(heapq.heappop(later)[2])

    def hurry(self) -> None:
        """Make ready all that was put off."""
        self.ready.extend(sample for _, _, sample in sorted(self._later, key=lambda entry: entry[1]))
        self._later.clear()

    def clear(self) -> Sequence[OpenSample]:
        """Take out all samples."""
        samples = [*self.ready, *self.blocked, *self.unpaid, *(entry[2] for entry in self._later)]
        for queue in (self.ready, self.blocked, self.unpaid, self._later):
            queue.clear()
        return samples
