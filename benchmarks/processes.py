"""CPU and memory of a process and all that it started, from Linux's /proc."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes has used. at_s: monotonic time. cpu_s: also of those that have ended.

    rss_mb, peak_mb: resident memory now, and the sum of each process's own peak; pages that several share
    (libraries) count in each. pss_mb: the same now with shared pages counted once. MB: 10^6 bytes.
    """

    at_s: float
    cpu_s: float
    rss_mb: float
    peak_mb: float
    pss_mb: float


def usage(pid: int) -> Usage:
    """Of the process and its descendants that live."""
    cpu_s = rss_kib = peak_kib = pss_kib = 0.0
    for process in _tree(pid):
        try:
            # after the name, which may hold anything: utime, stime, cutime, cstime are fields 14 to 17
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{process}/status").read_text()
            shares = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        cpu_s += sum(int(field) for field in fields[11:15]) * _TICK_S
        rss_kib += _kib(status, "VmRSS:")
        peak_kib += _kib(status, "VmHWM:")
        pss_kib += _kib(shares, "\nPss:")
    rss_mb, peak_mb, pss_mb = (kib * 1024 / 1e6 for kib in (rss_kib, peak_kib, pss_kib))
    return Usage(time.monotonic(), cpu_s, rss_mb, peak_mb, pss_mb)


def _tree(pid: int) -> list[int]:
    found, ahead = [], [pid]
    while ahead:
        process = ahead.pop()
        found.append(process)
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                ahead += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def _kib(status: str, name: str) -> int:
    """A size from a file of /proc; 0 for a process that has none any more."""
    after = status.partition(name)[2].split(maxsplit=1)
    return int(after[0]) if after else 0


class Sampler(threading.Thread):
    """Looks at a tree of processes again and again until `stop`; `seen` is what it saw."""

    def __init__(self, pid: int, interval_s: float) -> None:
        super().__init__(daemon=True)
        self.seen: list[Usage] = []
        self._pid, self._interval_s = pid, interval_s
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample."""
        while True:
            seen = usage(self._pid)
            if seen.rss_mb:
                self.seen.append(seen)
            if self._stopped.wait(self._interval_s):
                return

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        self.join()
