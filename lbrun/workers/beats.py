"""A small shared table by which workers show that they live, how late they are, and when their servers last
sent a byte.

A row a worker: its own last beat, a time per server, and the figures of its event loop (`lbrun.loop_watch`).
Times are ``time.monotonic_ns()``, which is one clock for all processes. Each worker writes only its row, ten
to fifty times a second, and each value is one aligned 8-byte write.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

from lbrun import loop_watch

BEAT_S = 0.1


class Beats:
    """The table; `fd` may be handed to other processes, which open it in the same way."""

    def __init__(self, n_workers: int, n_servers: int, fd: int | None = None) -> None:
        """fd: of a table with as many workers and servers, taken over; None for a new one."""
        self._n_workers, self._row = n_workers, 1 + n_servers + loop_watch.N_CELLS
        size = n_workers * self._row * 8
        if fd is None:
            fd = os.memfd_create("lbrun-beats")
            os.ftruncate(fd, size)
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        self._cells = memoryview(self._map).cast("q")

    def beat(self, worker: int, now_ns: int, last_byte_ns: Iterable[int] = ()) -> None:
        """Write a worker's row. Servers of which it has not heard, 0, keep what its predecessor had heard."""
        at = worker * self._row
        for offset, value in enumerate(last_byte_ns, 1):
            if value:
                self._cells[at + offset] = value
        self._cells[at] = now_ns

    def last_beat_ns(self, worker: int) -> int:
        """When the worker last wrote, 0 if never."""
        return self._cells[worker * self._row]

    def last_byte_ns(self, server: int) -> int:
        """When the server last sent a byte to any worker, 0 if never."""
        return max(self._cells[worker * self._row + 1 + server] for worker in range(self._n_workers))

    def loop(self, worker: int) -> memoryview:
        """The figures of a worker's event loop, for `lbrun.loop_watch`. To be released before `close`."""
        end = (worker + 1) * self._row
        return self._cells[end - loop_watch.N_CELLS : end]

    def close(self) -> None:
        """Unmap and close."""
        self._cells.release()
        self._map.close()
        os.close(self.fd)
