"""The dispatcher's side of worker processes: one `lbrun.attempt.Worker` over several of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from lbrun.attempt import AttemptFailure, AttemptSink, FailureKind
from lbrun.workers import wire
from lbrun.workers.beats import Beats
from lbrun.workers.bodies import SharedBodies
from lbrun.workers.setup import Launch, WorkerSetup, send_launch

log = logging.getLogger("lbrun.workers")

SILENCE_S = 10.0
"""A worker that shows no sign of life for so long, with the dispatcher's own loop on time, is ended."""
_CLOSE_S = 3.0
_RESTARTS = 1


class _Line(asyncio.Protocol):
    """One worker: its process, its socket, and what waits to be written."""

    def __init__(self, owner: ProcessWorkers, index: int) -> None:
        self._owner, self.index = owner, index
        self.process: subprocess.Popen[bytes] | None = None
        self.transport: asyncio.WriteTransport | None = None
        self.attempts = bytearray()  # records of an ATTEMPTS frame
        self.open: dict[int, None] = {}
        self.words: list[str] = []
        self.report: dict[str, float] = {}
        self.restarts = 0
        self.alive = False
        self.started_ns = 0
        self._frames = wire.Frames()
        self._before = bytearray()  # frames from before there was a transport

    def launch(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """A new process for this line."""
        self.process, self.sock = process, sock
        self.alive, self.transport = True, None
        self.started_ns = time.monotonic_ns()
        self.words.clear()
        self._frames = wire.Frames()

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
            self._before += data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write what has waited."""
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's own class
        if self._before:
            self.transport.write(bytes(self._before))
            self._before.clear()

    def data_received(self, data: bytes) -> None:
        """Take reports."""
        self._frames.feed(data, self._report)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process is gone, or closed as it was told."""
        self.alive, self.transport = False, None
        self.attempts.clear()
        self._before.clear()
        self._owner.lost(self)

    def _report(self, kind: int, payload: memoryview) -> None:
        sink, open_ = self._owner.sink, self.open
        if kind == wire.DONE:
            for attempt_id, result in wire.unpack_results(payload, self.words):
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
            attempt_id, result = wire.unpack_result_with(payload, self.words)
            if open_.pop(attempt_id, 0) is None:
                sink.completed(attempt_id, result)
        elif kind == wire.FAILED:
            attempt_id, failure = wire.unpack_failure(payload)
            if open_.pop(attempt_id, 0) is None:
                sink.failed(attempt_id, failure)
        elif kind == wire.WORD:
            self.words.append(str(payload[1:], "utf-8"))
        elif kind == wire.REPORT:
            self.report = msgspec.json.decode(payload)


class ProcessWorkers:
    """Worker processes behind the `lbrun.attempt.Worker` protocol.

    Attempts go to the processes in turn. A process that dies is noticed by its socket; its attempts fail as
    WORKER_DIED (the dispatcher sends them again, and no server is blamed) and it is started once more. When
    it dies again, `on_broken` is called with the reason. One that hangs is killed first.

    The processes start at once, so that they are ready when the servers are.
    """

    def __init__(
        self,
        n: int,
        setup: WorkerSetup,
        bodies: SharedBodies,
        *,
        on_broken: Callable[[str], None],
        cpus: Sequence[int] = (),
    ) -> None:
        """n: processes. cpus: processors to pin them to, in turn; empty: not pinned."""
        self._setup, self._bodies, self._on_broken, self._cpus = setup, bodies, on_broken, tuple(cpus)
        self._beats = Beats(n, len(setup.endpoints))
        self.sink: AttemptSink
        self._loop: asyncio.AbstractEventLoop
        self._lines = [_Line(self, index) for index in range(n)]
        self._up = list(self._lines)
        self._turn = 0
        self._closing = False
        self._gone = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        for line in self._lines:
            self._launch(line)

    # ---- Worker

    def start(self, sink: AttemptSink) -> None:
        """Connect to the processes; what is submitted meanwhile waits."""
        self.sink = sink
        self._loop = asyncio.get_running_loop()
        for line in self._lines:
            self._attach(line)
        self._watch_due_s = self._loop.time() + 1.0
        self._watch = self._loop.call_at(self._watch_due_s, self._look)

    def submit(self, attempt_id: int, sample_index: int, server: int, fresh: bool = False) -> None:
        """Give the attempt to the next process."""
        up = self._up
        turn = self._turn + 1
        if turn >= len(up):
            turn = 0
        self._turn = turn
        line = up[turn] if up else self._lines[0]
        line.open[attempt_id] = None
        line.attempts += wire.ATTEMPT.pack(attempt_id, sample_index, server, fresh)

    def flush(self) -> None:
        """Write the batches."""
        for line in self._lines:
            if line.attempts:
                line.flush()

    def cancel(self, attempt_id: int) -> None:
        """Drop the attempt; what is on its way back of it is not reported."""
        for line in self._lines:
            if line.open.pop(attempt_id, 0) is None:
                line.flush()
                line.write(wire.frame(wire.CANCEL, wire.ATTEMPT_ID.pack(attempt_id)))

    def evict(self, server: int) -> None:
        """Have every process fail its attempts there that have no byte yet."""
        for line in self._up:
            line.flush()
            line.write(wire.frame(wire.EVICT, wire.SERVER.pack(server)))

    def last_byte_ns(self, server: int) -> int:
        """When the server last sent a byte to any of the processes, to a tenth of a second; 0 if never."""
        return self._beats.last_byte_ns(server)

    async def close(self) -> None:
        """Have the processes close their connections and report their cost; kill those that do not."""
        self._closing = True
        if self._watch is not None:
            self._watch.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._lines:
            line.open.clear()
            if line.transport is not None:
                line.write(wire.frame(wire.CLOSE))
            elif line.alive:
                line.sock.close()
                line.alive = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                while any(line.transport is not None for line in self._lines):
                    self._gone.clear()
                    await self._gone.wait()
        for line in self._lines:
            if line.process is not None:
                await self._end(line.process)
        self._beats.close()

    def reports(self) -> list[dict[str, float]]:
        """After `close`: ``cpu_s`` and ``busy`` (share of time) of each process that could still tell."""
        return [line.report for line in self._lines if line.report]

    # ---- life and death of the processes

    def _launch(self, line: _Line) -> None:
        ours, theirs = socket.socketpair()
        fds = (theirs.fileno(), self._beats.fd, *self._bodies.fds)
        path = os.pathsep.join(part for part in sys.path if part)
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "lbrun.workers.process", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        cpu = self._cpus[line.index % len(self._cpus)] if self._cpus else None
        launch = Launch(self._setup, line.index, len(self._lines), self._beats.fd, self._bodies.fds, cpu)
        send_launch(ours, launch)
        ours.setblocking(False)
        line.launch(ours, process)

    def _attach(self, line: _Line) -> None:
        task = self._loop.create_task(self._loop.create_connection(lambda: line, sock=line.sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def lost(self, line: _Line) -> None:
        """A line's socket has closed (called by the line)."""
        self._gone.set()
        if self._closing:
            return
        how = self._reap(line)
        if line in self._up:
            self._up.remove(line)
        log.error("worker process %d ended (%s) with %d attempts open", line.index, how, len(line.open))
        self._fail_open(line, how)
        if line.restarts >= _RESTARTS:
            self._on_broken(f"worker process {line.index} ended twice, last by {how}")
            return
        line.restarts += 1
        self._launch(line)
        self._attach(line)
        self._up.append(line)

    def _fail_open(self, line: _Line, how: str) -> None:
        now_ns = time.monotonic_ns()
        ids = list(line.open)
        line.open.clear()
        for attempt_id in ids:
            failure = AttemptFailure(FailureKind.WORKER_DIED, f"its worker process ended ({how})", now_ns)
            self.sink.failed(attempt_id, failure)

    def _reap(self, line: _Line) -> str:
        process = line.process
        if process is None:
            return "never started"
        try:
            status = process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _CLOSE_S
        while process.poll() is None and time.monotonic() < deadline_s:  # noqa: ASYNC110 - the run is over
            await asyncio.sleep(0.01)
        if process.poll() is None:
            process.kill()
        process.wait()

    def _look(self) -> None:
        """Once a second: end a process that hangs."""
        now_s = self._loop.time()
        late_s = now_s - self._watch_due_s
        self._watch_due_s = now_s + 1.0
        self._watch = self._loop.call_at(self._watch_due_s, self._look)
        if late_s > 1.0:
            return  # this process was held up itself, and the others may have been as well
        now_ns = time.monotonic_ns()
        for line in list(self._up):
            if line.transport is None and line.process is not None and line.process.poll() is not None:
                line.connection_lost(None)  # it ended before it was connected to
                continue
            seen_ns = max(self._beats.last_beat_ns(line.index), line.started_ns)
            if now_ns - seen_ns > SILENCE_S * 1e9 and line.process is not None:
                log.error("worker process %d is silent for %g s: killed", line.index, SILENCE_S)
                line.process.kill()
