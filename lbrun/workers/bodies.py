"""The prepared request bodies in one piece of memory that all worker processes map."""

from __future__ import annotations

import array
import contextlib
import mmap
import os
from collections.abc import Iterable, Sequence
from typing import overload

_COPY_BYTES = 1 << 20


class SharedBodies(Sequence[memoryview]):
    """Bodies by sample index, as views into a mapped anonymous file; a second file has where each begins.

    The file descriptors (`fds`) may be handed to other processes, which open them in the same way. The memory
    exists once, however many do, and it goes with the last of them.
    """

    def __init__(self, data_fd: int, offsets_fd: int) -> None:
        """Map bodies that `store` has written. The descriptors are taken over."""
        self.fds = (data_fd, offsets_fd)
        self._maps = [_map(data_fd), _map(offsets_fd)]
        self._view, offsets = (memoryview(mapped) for mapped in self._maps)
        self._offsets = offsets.cast("q")

    @classmethod
    def store(cls, bodies: Iterable[bytes]) -> SharedBodies:
        """Write bodies to shared memory, one after another; none has to be kept."""
        fds: list[int] = []
        try:
            fds += [os.memfd_create("lbrun-bodies"), os.memfd_create("lbrun-offsets")]
            _write_bodies(bodies, *fds)
            return cls(*fds)
        except BaseException:  # a row of the dataset that cannot be encoded, or no memory left
            for fd in fds:
                os.close(fd)
            raise

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[memoryview]: ...
    def __getitem__(self, index: int | slice) -> memoryview | Sequence[memoryview]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        offsets = self._offsets
        if index < 0:
            index += len(offsets) - 1
        if not 0 <= index < len(offsets) - 1:
            raise IndexError(index)
        return self._view[offsets[index] : offsets[index + 1]]

    @property
    def n_bytes(self) -> int:
        """All bodies together."""
        return self._offsets[-1]

    def close(self) -> None:
        """Close the descriptors; the memory is unmapped with the last view of a body that is still about."""
        for fd in self.fds:
            os.close(fd)
        self._view.release()
        self._offsets.release()
        for mapped in self._maps:
            if isinstance(mapped, mmap.mmap):
                with contextlib.suppress(BufferError):  # somebody holds a body
                    mapped.close()


def _map(fd: int) -> mmap.mmap | bytes:
    size = os.fstat(fd).st_size
    return mmap.mmap(fd, size, prot=mmap.PROT_READ) if size else b""  # nothing cannot be mapped


def _write_bodies(bodies: Iterable[bytes], data_fd: int, offsets_fd: int) -> None:
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


def _write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
