"""The dispatcher's side of worker processes: one `lbrun.attempt.Worker` over several of them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence

from lbrun.attempt import AttemptSink
from lbrun.errors import RunFailed
from lbrun.loop_watch import LoopFigures, figures, forget_maximum
from lbrun.workers import wire
from lbrun.workers.beats import Beats
from lbrun.workers.bodies import SharedBodies
from lbrun.workers.line import Line, ended
from lbrun.workers.setup import Launch, WorkerSetup, store_launch

log = logging.getLogger("lbrun.workers")

SILENCE_S = 10.0
"""A worker that shows no sign of life for so long, with the dispatcher's own loop on time, is ended."""
START_S = 60.0
"""The same for one that starts up, which on a busy machine with many workers can take a while."""
_LOOK_S = 1.0
_DEATH_S = 0.5
"""From the end of a process's socket to the end of the process; longer, and it is killed."""
_CLOSE_S = 3.0
_RESTARTS = 1


class ProcessWorkers:
    """Worker processes behind the `lbrun.attempt.Worker` protocol.

    Attempts go to the processes in turn. A process that dies is noticed by its socket; its attempts fail as
    WORKER_DIED (the dispatcher sends them again, and no server is blamed) and it is started once more. When
    it dies again, `on_broken` is called with the reason, once. One that hangs is killed first.

    The processes start at once, so that they are ready when the servers are. They end with the thread that
    starts them, which is the one that calls the constructor, and later that of the event loop.
    """

    def __init__(
        self,
        n: int,
        setup: WorkerSetup,
        bodies: SharedBodies,
        *,
        on_broken: Callable[[str], None],
        cpus: Sequence[int] = (),
        environ: Mapping[str, str] | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        """n: processes. bodies: stay the caller's to close. cpus: processors to pin the processes to, in
        turn; empty: not pinned. environ: the processes' environment; by default this one's. silence_s: see
        SILENCE_S.

        Raises RunFailed where this machine cannot start so many.
        """
        if n < 1:
            raise ValueError(f"at least one worker process is needed, not {n}")
        self._on_broken = on_broken
        self._silence_s, self._look_s = silence_s, min(_LOOK_S, silence_s / 4)
        self.sink: AttemptSink
        self._loop: asyncio.AbstractEventLoop
        self._turn = 0
        self._closing = self._broken = False
        self._gone = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._beats = Beats(n, len(setup.endpoints))
        self._launch_fd = store_launch(Launch(setup, n, tuple(cpus), os.getpid(), self._beats.fd, bodies.fds))
        self._inherited = (self._beats.fd, *bodies.fds)
        self._loops_before: list[list[int]] = []
        self._lines = [Line(self, index, os.environ if environ is None else environ) for index in range(n)]
        self._up = list(self._lines)  # those with a process
        try:
            for line in self._lines:
                line.spawn(self._launch_fd, self._inherited)
        except OSError as error:
            self._abandon()
            raise RunFailed(f"{line.index} of {n} worker processes could be started: {error}") from error

    @property
    def pids(self) -> list[int]:
        """The processes' ids, by worker; of those that have a process."""
        return [line.process.pid for line in self._lines if line.process is not None]

    # ---- Worker

    def start(self, sink: AttemptSink) -> None:
        """Connect to the processes; what is submitted meanwhile waits."""
        self.sink = sink
        self._loop = asyncio.get_running_loop()
        for line in self._lines:
            self._do(self._attach(line))
        self._schedule_look()

    def submit(self, attempt_id: int, sample_index: int, server: int, fresh: bool = False) -> None:
        """Give the attempt to the next process."""
        up = self._up
        turn = self._turn + 1
        if turn >= len(up):
            turn = 0
        self._turn = turn
        line = up[turn] if up else self._without_process()
        line.open[attempt_id] = None
        line.attempts += wire.ATTEMPT.pack(attempt_id, sample_index, server, fresh)

    def flush(self) -> None:
        """Write the batches."""
        for line in self._up:
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
        if self._closing:
            return
        self._closing = True
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*self._tasks)  # connecting and reaping are short
        for line in self._lines:
            line.open.clear()
            if line.transport is not None:
                line.write(wire.frame(wire.CLOSE))
            else:
                line.kill()  # nothing was begun there
        await self._until_gone(_CLOSE_S)
        for line in self._lines:
            if line.transport is not None:
                line.kill()  # which ends the connection
        await self._until_gone(_CLOSE_S)
        processes = [line.process for line in self._lines if line.process is not None]
        await asyncio.gather(*(ended(process, _CLOSE_S) for process in processes))
        self._close_descriptors()

    @property
    def replaced(self) -> int:
        """How many processes have died and were started again."""
        return sum(line.restarts for line in self._lines)

    def watch_loops(self) -> None:
        """Have `loops` tell of the time from now on."""
        self._loops_before = []
        for line in self._lines:
            cells = self._beats.loop(line.index)
            self._loops_before.append(list(cells))
            forget_maximum(cells)

    def loops(self) -> list[LoopFigures]:
        """How late and how busy the processes' event loops are, to a tenth of a second; before `close`."""
        return [
            figures(f"worker {i}", list(self._beats.loop(i)), before)
            for i, before in enumerate(self._loops_before)
        ]

    def reports(self) -> list[wire.Report]:
        """After `close`: what each process says that could still tell."""
        return [line.report for line in self._lines if line.report]

    def unasked_answers(self) -> list[int]:
        """After `close`: how many answers each server has sent that nobody had asked for."""
        return [sum(n) for n in zip(*(report.unasked_answers for report in self.reports()), strict=True)]

    # ---- life and death of the processes

    def lost(self, line: Line) -> None:
        """A line's socket has closed (called by the line): replace its process, or say that all is over."""
        self._gone.set()
        if self._closing:
            return
        process, killed_for, n_open = line.process, line.killed_for, len(line.open)
        self._up.remove(line)
        line.process = None
        line.fail_open("its worker process ended")
        trouble = ""
        if line.restarts < _RESTARTS:
            trouble = self._replace(line)
        else:
            trouble = "it had been started again before"

        async def reap() -> None:
            how = "" if process is None else await ended(process, _DEATH_S)
            reason = f"worker process {line.index} ended {killed_for or how}"
            log.error("%s, with %d attempts open; %s", reason, n_open, trouble or "another takes its place")
            if trouble:
                self._break(f"{reason}; {trouble}")

        self._do(reap())

    def _replace(self, line: Line) -> str:
        """Give the line another process; returns why that cannot be done, "" if it can."""
        line.restarts += 1
        try:
            line.spawn(self._launch_fd, self._inherited)
        except OSError as error:
            return f"another could not be started: {error}"
        self._up.append(line)
        self._do(self._attach(line))
        return ""

    async def _attach(self, line: Line) -> None:
        try:
            await line.attach()
        except OSError as error:
            line.kill(f"since it could not be connected to: {error}")
            line.connection_lost(error)

    def _break(self, reason: str) -> None:
        if self._broken or self._closing:
            return
        self._broken = True
        self._on_broken(reason)
        if not self._up:
            self._refuse()

    def _without_process(self) -> Line:
        """Where an attempt goes when no process is left: it fails, if not at once, then with the run."""
        if self._broken:
            self._loop.call_soon(self._refuse)
        return self._lines[0]

    def _refuse(self) -> None:
        self._lines[0].fail_open("no worker process is left")

    def _schedule_look(self) -> None:
        due_s = self._loop.time() + self._look_s
        self._watch = self._loop.call_at(due_s, self._look, due_s)

    def _look(self, due_s: float) -> None:
        """Kill a process that hangs; its socket then tells of its end."""
        late_s = self._loop.time() - due_s
        self._schedule_look()
        if late_s > self._look_s:
            return  # this process was held up itself, and the others may have been as well
        now_ns = time.monotonic_ns()
        for line in self._up:
            beat_ns = self._beats.last_beat_ns(line.index)
            if beat_ns > line.started_ns:
                silent_ns, bound_s = now_ns - beat_ns, self._silence_s
            else:
                silent_ns, bound_s = now_ns - line.started_ns, max(START_S, self._silence_s)
            if silent_ns > bound_s * 1e9:
                line.kill(f"(it was silent for {bound_s:g} s, and killed)")

    # ---- ends

    def _do(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_gone(self, within_s: float) -> None:
        """Wait until all sockets have closed."""
        try:
            async with asyncio.timeout(within_s):
                while any(line.transport is not None for line in self._lines):
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            pass

    def _abandon(self) -> None:
        """Take back what the constructor has begun."""
        for line in self._lines:
            if line.process is not None:
                line.process.kill()
                line.process.wait()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        for line in self._lines:
            if line.sock is not None:
                line.sock.close()
        os.close(self._launch_fd)
        self._beats.close()
