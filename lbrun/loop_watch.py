"""How late an event loop is: how long bytes that have arrived wait until the loop reads them.

A timer of the kernel (timerfd) falls due at random moments, about fifty times a second. The loop is told of
it in the same way as of a socket, and in the same order, so that its delay is that of a server's byte. A
timer of the loop itself would miss the time that a turn takes to come to a socket.

Each loop keeps its figures in a row of integers, which may be shared memory: so the process that decides
knows them at any time, also those of a process that hangs or has died.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import NamedTuple

from lbrun import histogram
from lbrun.histogram import DelayHistogram

_WALL, _BUSY, _WAITED, _HEAD = 0, 1, 2, 3
N_CELLS = _HEAD + histogram.N_CELLS
"""Integers of a loop: nanoseconds watched, of CPU, of waiting for a processor; then the histogram."""

_INTERVAL_NS = (10_000_000, 30_000_000)
_TIMERSPEC = struct.Struct("qqqq")  # interval and first expiry, each in seconds and nanoseconds
_TFD_TIMER_ABSTIME = 1


class LoopFigures(NamedTuple):
    """A loop over some time. name: ``main``, ``worker 0``.

    busy: share of the time that its thread had a processor. waiting: that it was ready and had none; 0 where
    the kernel does not tell. lag_ms: from arrival to reading; None where nothing was measured.
    """

    name: str
    busy: float
    waiting: float
    lag_ms: dict[str, float] | None


def figures(name: str, now: Sequence[int], before: Sequence[int]) -> LoopFigures:
    """What happened between two copies of a loop's cells."""
    wall_ns = now[_WALL] - before[_WALL]
    busy, waited = (
        ((now[cell] - before[cell]) / wall_ns if wall_ns > 0 else 0.0) for cell in (_BUSY, _WAITED)
    )
    lag = histogram.difference(now[_HEAD:], before[_HEAD:])
    return LoopFigures(name, busy, waited, lag.summary_ms())


def forget_maximum(cells: memoryview) -> None:
    """Have the longest delay count from now on: unlike all else, it has no difference."""
    cells[N_CELLS - 1] = 0


class LoopWatch:
    """Watches the event loop that it is started on, from `start` to `stop`.

    cells: `N_CELLS` integers; what is there already, of a process that this one has replaced, is added to.
    None: memory of its own.
    """

    def __init__(self, cells: memoryview | None = None) -> None:
        self.cells = memoryview(bytearray(8 * N_CELLS)).cast("q") if cells is None else cells
        self._lag = DelayHistogram(self.cells[_HEAD:])
        self._random = Random().uniform  # noqa: S311 - no secret
        self._timer: asyncio.TimerHandle | None = None
        self._timer_fd = self._stat_fd = -1

    def start(self) -> None:
        """Begin on the running loop, whose thread this is."""
        self._loop = asyncio.get_running_loop()
        self._before = tuple(self.cells[:_HEAD])
        with suppress(OSError):
            self._stat_fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self._began = time.monotonic_ns(), time.thread_time_ns(), self._waited_ns()
        self._timer_fd = _timerfd()
        if self._timer_fd >= 0:
            self._loop.add_reader(self._timer_fd, self._due)
        self._due_ns = self._after(time.monotonic_ns())
        self._arm()

    def stop(self) -> None:
        """End, and bring the cells up to date."""
        self._count(time.monotonic_ns())
        if self._timer is not None:
            self._timer.cancel()
        if self._timer_fd >= 0:
            self._loop.remove_reader(self._timer_fd)
            os.close(self._timer_fd)
        if self._stat_fd >= 0:
            os.close(self._stat_fd)
        self._timer_fd = self._stat_fd = -1

    def _due(self) -> None:
        now_ns = time.monotonic_ns()
        if self._timer_fd >= 0:
            with suppress(BlockingIOError):
                os.read(self._timer_fd, 8)
        self._count(now_ns)
        self._arm()

    def _count(self, now_ns: int) -> None:
        """Count the moments that are over, and bring the cells up to date."""
        # those that the loop has slept through count as well, or a long delay would weigh as little as none
        while self._due_ns <= now_ns:
            self._lag.add(now_ns - self._due_ns)
            self._due_ns = self._after(self._due_ns)
        cells, before, began = self.cells, self._before, self._began
        cells[_WALL] = before[_WALL] + now_ns - began[0]
        cells[_BUSY] = before[_BUSY] + time.thread_time_ns() - began[1]
        cells[_WAITED] = before[_WAITED] + self._waited_ns() - began[2]

    def _after(self, at_ns: int) -> int:
        """The next moment to look. Random, since servers have a beat of their own."""
        return at_ns + int(self._random(*_INTERVAL_NS))

    def _arm(self) -> None:
        if self._timer_fd >= 0:
            _settime(self._timer_fd, self._due_ns)
        else:
            self._timer = self._loop.call_later((self._due_ns - time.monotonic_ns()) / 1e9, self._due)

    def _waited_ns(self) -> int:
        """How long the thread was ready to run and had no processor."""
        if self._stat_fd < 0:
            return 0
        return int(os.pread(self._stat_fd, 64, 0).split()[1])


def _timerfd() -> int:
    """A timer of the monotonic clock as a descriptor; -1 where the system has none."""
    try:
        return int(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    except AttributeError:
        return -1


def _settime(fd: int, due_ns: int) -> None:
    _libc.timerfd_settime(fd, _TFD_TIMER_ABSTIME, _TIMERSPEC.pack(0, 0, *divmod(due_ns, 1_000_000_000)), None)


_libc = ctypes.CDLL(None)
