"""What a worker process is told before its first attempt."""

from __future__ import annotations

import pickle
import socket
import struct
from dataclasses import dataclass

from lbrun.formats import FormatOptions
from lbrun.transport.endpoint import Endpoint
from lbrun.transport.settings import Limits, Timeouts

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """endpoints: the pool. format_name, options: how answers are read (must be picklable). ca_file:
    authorities for https, None for the system's.
    """

    endpoints: tuple[Endpoint, ...]
    format_name: str
    options: FormatOptions
    timeouts: Timeouts
    limits: Limits
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """setup: of all workers. index, beats_fd, bodies_fds: of this one (see `lbrun.workers.beats`)."""

    setup: WorkerSetup
    index: int
    n_workers: int
    beats_fd: int
    bodies_fds: tuple[int, int]
    cpu: int | None


def send_launch(sock: socket.socket, launch: Launch) -> None:
    """Over a socket of our own to a process of our own: nobody else can write what `receive_launch` reads."""
    data = pickle.dumps(launch)
    sock.sendall(_LENGTH.pack(len(data)) + data)


def receive_launch(sock: socket.socket) -> Launch:
    """The other end. Raises EOFError when the parent is gone."""
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    launch = pickle.loads(_exactly(sock, length))  # noqa: S301 - see send_launch
    if not isinstance(launch, Launch):
        raise TypeError(f"a launch was expected, not {type(launch).__name__}")
    return launch


def _exactly(sock: socket.socket, n: int) -> bytes:
    data = bytearray()
    while len(data) < n:
        part = sock.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
