"""Counts of a running test in memory that it shares with its parent, so that they survive its death.

The parent makes the memory and passes its descriptor; the child writes after each batch. A test that ends by
a signal, or by `os._exit` in a user's strategy, leaves what LoadGen had issued by then.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple, Self

_COUNTS = struct.Struct("<6q")
_SIZE = mmap.PAGESIZE


class LedgerCounts(NamedTuple):
    """issued, completed, failed: samples. attempts: requests sent, of which retried; restarted_streams."""

    issued: int = 0
    completed: int = 0
    failed: int = 0
    attempts: int = 0
    retried: int = 0
    restarted_streams: int = 0


class Ledger:
    """The shared counts. One process writes; a reader may see a batch half written, never a torn number."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SIZE)

    @classmethod
    def create(cls) -> Self:
        """New counts, all 0. Raises OSError where the system has no memory or descriptor left."""
        descriptor = os.memfd_create("lbrun-ledger")
        os.ftruncate(descriptor, _SIZE)
        return cls(descriptor)

    def write(
        self, issued: int, completed: int, failed: int, attempts: int, retried: int, restarted_streams: int
    ) -> None:
        """Set all counts."""
        _COUNTS.pack_into(self._map, 0, issued, completed, failed, attempts, retried, restarted_streams)

    def read(self) -> LedgerCounts:
        """The counts as they were last written."""
        return LedgerCounts(*_COUNTS.unpack_from(self._map, 0))

    def close(self) -> None:
        """Release the memory in this process."""
        self._map.close()
        os.close(self.descriptor)
