"""The prepared request bodies in one piece of memory that all worker processes map."""

from __future__ import annotations

import array
import mmap
import os
from collections.abc import Iterable, Sequence
from typing import overload

_COPY_BYTES = 1 << 20


class SharedBodies(Sequence[memoryview]):
    """Bodies by sample index, as views into a mapped anonymous file.

    The file descriptors (`fds`) may be handed to other processes, which open them with `attach`; the memory
    exists once, however many do, and it goes with the last of them.
    """

    def __init__(self, data_fd: int, offsets_fd: int) -> None:
        """Map bodies that `store` has written. The descriptors are taken over."""
        self.fds = (data_fd, offsets_fd)
        size = os.fstat(offsets_fd).st_size
        offsets = array.array("q")
        offsets.frombytes(os.pread(offsets_fd, size, 0))
        # a list of ints is read at half the cost of an array, and there is one int a body
        self._offsets = offsets.tolist()
        data_size = os.fstat(data_fd).st_size
        self._map = mmap.mmap(data_fd, data_size, prot=mmap.PROT_READ) if data_size else b""
        self._view = memoryview(self._map)

    @classmethod
    def store(cls, bodies: Iterable[bytes]) -> SharedBodies:
        """Write bodies to shared memory, one after another; none has to be kept."""
        data_fd = os.memfd_create("lbrun-bodies")
        offsets_fd = os.memfd_create("lbrun-offsets")
        offsets = array.array("q", [0])
        end = 0
        waiting = bytearray()
        for body in bodies:
            waiting += body
            end += len(body)
            offsets.append(end)
            if len(waiting) >= _COPY_BYTES:
                _write_all(data_fd, waiting)
                waiting.clear()
        _write_all(data_fd, waiting)
        _write_all(offsets_fd, offsets.tobytes())
        return cls(data_fd, offsets_fd)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[memoryview]: ...
    def __getitem__(self, index: int | slice) -> memoryview | Sequence[memoryview]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        offsets = self._offsets
        return self._view[offsets[index] : offsets[index + 1]]

    @property
    def n_bytes(self) -> int:
        """All bodies together."""
        return self._offsets[-1]

    def close(self) -> None:
        """Unmap and close; views that are still about keep the memory, not the descriptors."""
        for fd in self.fds:
            os.close(fd)
        self._view.release()


def _write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
