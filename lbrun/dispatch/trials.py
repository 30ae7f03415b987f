"""Suspects: samples under which a server has died. One may be what killed it, the others were with it.

They go on apart from each other, so that the next death tells which one it is. Without that the innocent
would go where the guilty goes, and be with it at its second server as well. A server gets its next suspect
when it has done something after it got the last one: what kills may take its time (a real SGLang is silent
for 5 s and then gone), but nobody hears from the server meanwhile. Only suspects wait for each other;
everything else is sent as ever.

Where even that would take too long, since answers are long and there is no other work, several are sent at
a time. A death then makes all of them suspects of the second degree. Those are watched until they are
answered, since they may be of a kind that kills late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from lbrun.dispatch.sample import OpenSample

WATCH_S = 10.0
"""A server that goes down later than this after it got a suspect has hardly died of it."""
THOROUGH_WATCH_S = 30.0
"""The same for a suspect of the second degree."""
ALL_WITHIN_S = 20.0
"""All suspects should be on their way by then, so that one dead server does not hold up the end of a run."""
SILENT_S = 2.0
ALL_WITHIN_PATIENT_S = 120.0
"""The same where the server was silent for so long before it was gone, which speaks of a killer."""
_LISTEN_AFTER_TICKS = 3
"""What is heard from a server after so many ticks is from when it had the suspect, however late the event
loop was: what had come until a tick is read before the next."""


@dataclass(slots=True)
class _Trial:
    """What a server is trying. left: suspects that have not ended there. listen_ns: 0 at first."""

    began_s: float
    thorough: bool
    left: set[OpenSample]
    n: int = 0
    ticks: int = 0
    listen_ns: int = 0


class Trials:
    """Which suspects are at which server, and which ones wait.

    last_byte_ns: when a server last sent a byte of any answer.
    """

    def __init__(self, last_byte_ns: Callable[[int], int]) -> None:
        self._last_byte_ns = last_byte_ns
        self._at: dict[int, _Trial] = {}
        self._out: set[OpenSample] = set()
        self._waiting: deque[OpenSample] = deque()
        self._took_s = 0.0  # trials that servers have outlived, on average of late
        self._all_by_s = 0.0

    def server_died(self, server: int, now_s: float) -> None:
        """There will be suspects."""
        was_silent = now_s - self._last_byte_ns(server) * 1e-9 > SILENT_S
        self._all_by_s = now_s + (ALL_WITHIN_PATIENT_S if was_silent else ALL_WITHIN_S)

    def open_among(self, servers: Sequence[int], now_s: float) -> Sequence[int]:
        """Those of the servers that may take a suspect now."""
        width = self._width(len(servers), now_s)
        return [s for s in servers if self._is_over(s, now_s) or self._has_room(s, now_s, width)]

    def begin(self, server: int, sample: OpenSample, now_s: float) -> None:
        """A suspect is sent to a server."""
        thorough = sample.history is not None and sample.history.is_twice_suspect
        trial = self._at.get(server)
        if trial is None or trial.began_s != now_s:
            trial = self._at[server] = _Trial(now_s, thorough, set())
        trial.thorough |= thorough
        trial.left.add(sample)
        trial.n += 1
        self._out.add(sample)

    def may_have_killed(self, sample: OpenSample, now_s: float) -> bool:
        """Whether the sample is what its server was just trying, alone or for the second time.

        Also true of a sample that was not sent as a suspect: nobody has watched what it outlived.
        """
        if sample not in self._out:
            return True
        trial = self._at.get(sample.server)
        if trial is None or sample not in trial.left or self._is_over(sample.server, now_s):
            return False
        return trial.n == 1 or trial.thorough

    def wait(self, sample: OpenSample) -> None:
        """No server may take the suspect now."""
        self._waiting.append(sample)

    def end(self, sample: OpenSample, now_s: float) -> OpenSample | None:
        """An attempt has ended; the suspect that may have its turn now, if it was one's and another waits."""
        self._out.discard(sample)
        trial = self._at.get(sample.server)
        if trial is None or sample not in trial.left:
            return None
        trial.left.discard(sample)
        if trial.left:
            return None
        del self._at[sample.server]
        self._took_s += (now_s - trial.began_s - self._took_s) / 2
        return self._waiting.popleft() if self._waiting else None

    def tick(self, n_servers: int, now_s: float) -> Sequence[OpenSample]:
        """The loop's tick. Returns suspects to be looked at again: trials may be over, servers be back."""
        for server, trial in list(self._at.items()):
            trial.ticks += 1
            if trial.ticks == _LISTEN_AFTER_TICKS:
                trial.listen_ns = int(now_s * 1e9)
            if self._is_over(server, now_s):
                self._took_s += (now_s - trial.began_s - self._took_s) / 2
                del self._at[server]
        return self._take(n_servers * self._width(n_servers, now_s))

    def clear(self) -> Sequence[OpenSample]:
        """End all; those that have waited."""
        self._at.clear()
        self._out.clear()
        return self.free()

    def free(self) -> Sequence[OpenSample]:
        """Take out all that wait."""
        return self._take(len(self._waiting))

    def _take(self, n: int) -> Sequence[OpenSample]:
        return [self._waiting.popleft() for _ in range(min(n, len(self._waiting)))]

    def _is_over(self, server: int, now_s: float) -> bool:
        """The server has outlived what it was trying."""
        trial = self._at.get(server)
        if trial is None:
            return True
        if trial.thorough:
            return now_s - trial.began_s > THOROUGH_WATCH_S
        heard = trial.listen_ns and self._last_byte_ns(server) > trial.listen_ns
        return bool(heard) or now_s - trial.began_s > WATCH_S

    def _has_room(self, server: int, now_s: float, width: int) -> bool:
        """The server is being given several suspects at this moment."""
        trial = self._at[server]
        return trial.began_s == now_s and trial.n < width

    def _width(self, n_servers: int, now_s: float) -> int:
        """How many suspects a server must take at a time, as things go, to be through in time."""
        one_by_one_s = self._took_s * len(self._waiting) / max(1, n_servers)
        return max(1, ceil(one_by_one_s / max(1.0, self._all_by_s - now_s)))
