"""The dispatcher's end of one worker process: the process, the socket to it, and the attempts it has."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import msgspec

from lbrun.attempt import AttemptFailure, AttemptSink, FailureKind
from lbrun.workers import wire

_POLL_S = 0.005


class LineOwner(Protocol):
    """Who is told of a line's end: `lbrun.workers.pool.ProcessWorkers`."""

    sink: AttemptSink

    def lost(self, line: Line) -> None:
        """The line's socket has closed."""


class Line(asyncio.Protocol):
    """One worker, whichever process it has at the time.

    open: attempts that are not reported yet; leaving this dict is what happens once, whatever is still on
    its way. restarts: processes that have replaced the first. started_ns: when the present one was started.
    killed_for: why it was killed from here, "" if it was not. report: what the process has cost, told as it
    closes.
    """

    def __init__(self, owner: LineOwner, index: int, environ: Mapping[str, str]) -> None:
        """environ: of the process."""
        self._owner, self.index, self._environ = owner, index, environ
        self.open: dict[int, None] = {}
        self.attempts = bytearray()  # records of the next ATTEMPTS frame
        self.report: wire.Report | None = None
        self.restarts = 0
        self.started_ns = 0
        self.killed_for = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.sock: socket.socket | None = None  # until `attach` is through
        self.transport: asyncio.WriteTransport | None = None
        self._unwritten = bytearray()  # frames from before there was a transport
        self._frames = wire.Frames()
        self._words: list[str] = []

    # ---- the process

    def spawn(self, launch_fd: int, fds: Sequence[int]) -> None:
        """Start a process for this line. It and `attach` need not wait for each other.

        launch_fd: what it will be (see `lbrun.workers.setup`). fds: what else it inherits. Raises OSError
        where this machine cannot start one more.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-P", "-m", "lbrun.workers.process"]
            command += [str(number), str(launch_fd), str(self.index)]
            try:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(number, launch_fd, *fds),
                    env={**self._environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self.process, self.sock = process, ours
        self.started_ns = time.monotonic_ns()
        self.killed_for = ""
        self._frames, self._words = wire.Frames(), []

    async def attach(self) -> None:
        """Connect to the process, on the running loop; what is written meanwhile waits."""
        sock = self.sock
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        finally:
            if self.sock is sock:  # and not already that of the next process
                self.sock = None

    def kill(self, why: str = "") -> None:
        """End the process at once."""
        if self.process is not None and self.process.poll() is None:
            self.killed_for = why
            self.process.kill()

    # ---- to the process

    def flush(self) -> None:
        """Write what was submitted."""
        if self.attempts:
            self.write(wire.frame(wire.ATTEMPTS, self.attempts))
            self.attempts.clear()

    def write(self, data: bytes) -> None:
        """Write frames, or keep them until there is a transport."""
        if self.transport is not None:
            self.transport.write(data)
        else:
            self._unwritten += data

    def fail_open(self, message: str) -> None:
        """Report all that is open as WORKER_DIED, and forget what was not written yet of it."""
        ids, now_ns = list(self.open), time.monotonic_ns()
        self.attempts.clear()
        self._unwritten.clear()
        for attempt_id in ids:
            if self.open.pop(attempt_id, 0) is None:  # a report may have cancelled others of the list
                self._owner.sink.failed(attempt_id, AttemptFailure(FailureKind.WORKER_DIED, message, now_ns))

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write what has waited."""
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's own class
        if self._unwritten:
            self.transport.write(bytes(self._unwritten))
            self._unwritten.clear()

    def data_received(self, data: bytes) -> None:
        """Take reports. What cannot be read ends the connection, and with that the process."""
        self._frames.feed(data, self._report)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process is gone, or closed as it was told."""
        self.transport = None
        if self.sock is not None:
            # the process died before `attach` was through. uvloop closes the descriptor now, and would leave
            # it to our socket object to close once more, when it may be another's
            self.sock.detach()
            self.sock = None
        self._owner.lost(self)

    def _report(self, kind: int, payload: memoryview) -> None:
        sink, open_ = self._owner.sink, self.open
        if kind == wire.DONE:
            for attempt_id, result in wire.unpack_results(payload, self._words):
                if open_.pop(attempt_id, 0) is None:
                    sink.completed(attempt_id, result)
        elif kind == wire.FIRST:
            for attempt_id, at_ns in wire.FIRST_TOKEN.iter_unpack(payload):
                if attempt_id in open_:
                    sink.first_token(attempt_id, at_ns, None)
        elif kind == wire.FIRST_WITH:
            attempt_id, at_ns = wire.FIRST_TOKEN.unpack_from(payload)
            if attempt_id in open_:
                sink.first_token(attempt_id, at_ns, bytes(payload[wire.FIRST_TOKEN.size :]))
        elif kind == wire.DONE_WITH:
            attempt_id, result = wire.unpack_result_with(payload, self._words)
            if open_.pop(attempt_id, 0) is None:
                sink.completed(attempt_id, result)
        elif kind == wire.FAILED:
            attempt_id, failure = wire.unpack_failure(payload)
            if open_.pop(attempt_id, 0) is None:
                sink.failed(attempt_id, failure)
        elif kind == wire.WORD:
            self._words.append(str(payload[1:], "utf-8"))
        elif kind == wire.REPORT:
            self.report = msgspec.json.decode(payload, type=wire.Report)


async def ended(process: subprocess.Popen[bytes], patience_s: float) -> str:
    """Wait for a process's end, and kill it where that takes too long; how it ended, in words."""
    if await _gone(process, patience_s):
        status = process.returncode
        return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    process.kill()
    # a process that the kernel cannot end either (it hangs in a driver) must not hold the run's end up
    return "killed" if await _gone(process, patience_s) else "not even when killed"


async def _gone(process: subprocess.Popen[bytes], within_s: float) -> bool:
    deadline_s = time.monotonic() + within_s
    while process.poll() is None:
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(_POLL_S)
    return True
