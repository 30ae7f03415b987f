"""What a worker process is told before its first attempt."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lbrun.formats import FormatOptions
from lbrun.transport.endpoint import Endpoint
from lbrun.transport.settings import Limits, Timeouts


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """endpoints: the pool. format_name, options: how answers are read (must be picklable). limits: of all
    workers together, where they bound a number of connections. ca_file: authorities for https, None for the
    system's. prompt_lengths: see `lbrun.transport.worker`.
    """

    endpoints: tuple[Endpoint, ...]
    format_name: str
    options: FormatOptions
    timeouts: Timeouts
    limits: Limits
    ca_file: str | None = None
    prompt_lengths: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """The same for all workers. cpus: to pin them to, in turn. parent_pid: the dispatcher's process.

    beats_fd, bodies_fds: see `lbrun.workers.beats` and `lbrun.workers.bodies`; a descriptor has the same
    number in every process.
    """

    setup: WorkerSetup
    n_workers: int
    cpus: tuple[int, ...]
    parent_pid: int
    beats_fd: int
    bodies_fds: tuple[int, int]

    @property
    def limits(self) -> Limits:
        """One worker's share of the limits."""
        limits, n = self.setup.limits, self.n_workers
        return replace(
            limits,
            max_connecting=max(1, limits.max_connecting // n),
            max_connecting_per_server=max(1, limits.max_connecting_per_server // n),
        )

    def cpu(self, index: int) -> int | None:
        """The processor to pin a worker to, if any."""
        return self.cpus[index % len(self.cpus)] if self.cpus else None


def store_launch(launch: Launch) -> int:
    """The launch in shared memory, as a file descriptor that worker processes inherit.

    Not on the command line or in the environment, where others could read the API key in it; and not
    through the worker's socket, where a large pool would have to wait for a process that still starts up.
    """
    data = memoryview(pickle.dumps(launch))
    fd = os.memfd_create("lbrun-launch")
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def load_launch(fd: int) -> Launch:
    """What `store_launch` has stored; the descriptor is closed.

    It is unpickled, since only the process that has started this one could have written it.
    """
    with os.fdopen(fd, "rb") as file:
        # the position is shared with all who hold the descriptor, so it is not used
        launch = pickle.loads(os.pread(fd, os.fstat(file.fileno()).st_size, 0))  # noqa: S301 - see above
    if not isinstance(launch, Launch):
        raise TypeError(f"a launch was expected, not {type(launch).__name__}")
    return launch
