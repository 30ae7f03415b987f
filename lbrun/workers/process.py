"""A worker process: ``python -m lbrun.workers.process FD LAUNCH_FD INDEX``.

FD is its end of a socket to the dispatcher's process, over which frames go (`lbrun.workers.wire`); LAUNCH_FD
says what to be (`lbrun.workers.setup`), INDEX which of the workers. When the socket closes, the process ends.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import struct
import sys
import time
from typing import cast

import msgspec

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind
from lbrun.formats import make_format
from lbrun.lifeline import die_with_parent
from lbrun.loop_watch import LoopWatch
from lbrun.redaction.streams import GuardedOutput
from lbrun.transport import InlineWorker, make_ssl_context, raise_descriptor_limit
from lbrun.workers import wire
from lbrun.workers.beats import BEAT_S, Beats
from lbrun.workers.bodies import SharedBodies
from lbrun.workers.setup import Launch, load_launch


class _Process(asyncio.Protocol):
    """Between the socket and the attempt loop: an `AttemptSink` that packs what it is told."""

    def __init__(self, launch: Launch, index: int) -> None:
        setup = launch.setup
        self._index = index
        self._n_servers = len(setup.endpoints)
        self._beats = Beats(launch.n_workers, self._n_servers, launch.beats_fd)
        self._worker = InlineWorker(
            setup.endpoints,
            SharedBodies(*launch.bodies_fds),
            make_format(setup.format_name, setup.options),
            timeouts=setup.timeouts,
            limits=launch.limits,
            tls=make_ssl_context(setup.ca_file) if any(e.tls for e in setup.endpoints) else None,
            prompt_lengths=setup.prompt_lengths,
        )
        self._frames = wire.Frames()
        self._out = bytearray()  # whole frames, in order
        self._first = bytearray()  # records of a FIRST frame
        self._done = bytearray()  # records of a DONE frame, after those
        self._flush_due = False
        self._words: dict[str, int] = {}
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._began_s = (0.0, 0.0, 0.0)

    # ---- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to work."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own class
        self._worker.start(self)
        self._began_s = (time.monotonic(), time.thread_time(), _cpu_s())
        LoopWatch(self._beats.loop(self._index)).start()
        self._beat()
        gc.collect()
        gc.freeze()

    def data_received(self, data: bytes) -> None:
        """Take commands."""
        self._frames.feed(data, self._command)

    def connection_lost(self, exc: Exception | None) -> None:
        """The dispatcher's process is gone."""
        self.ended.set()

    def _command(self, kind: int, payload: memoryview) -> None:
        worker = self._worker
        if kind == wire.ATTEMPTS:
            submit = worker.submit
            for attempt_id, sample_index, server, fresh in wire.ATTEMPT.iter_unpack(payload):
                submit(attempt_id, sample_index, server, bool(fresh))
        elif kind == wire.CANCEL:
            for (attempt_id,) in wire.ATTEMPT_ID.iter_unpack(payload):
                worker.cancel(attempt_id)
        elif kind == wire.EVICT:
            for (server,) in wire.SERVER.iter_unpack(payload):
                worker.evict(server)
        elif kind == wire.CLOSE:
            self._flush()
            report = wire.Report(*self._cost(), self._worker.unasked_answers())
            self._transport.write(wire.frame(wire.REPORT, msgspec.json.encode(report)))
            self._transport.close()

    # ---- AttemptSink

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        """Pack it."""
        record = wire.FIRST_TOKEN.pack(attempt_id, at_ns)
        if payload is None:
            self._first += record
        else:
            self._out += wire.frame(wire.FIRST_WITH, record + payload)
        self._schedule()

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        """Pack it."""
        answer = result.answer
        code = self._words.get(answer.finish_reason)
        if code is None:
            code = self._learn(answer.finish_reason)
        try:
            record = wire.pack_result(attempt_id, result, code)
        except struct.error:
            self.failed(attempt_id, _uncountable(result))
            return
        if answer.payload is None:
            self._done += record
        else:
            self._gather()
            self._out += wire.frame(wire.DONE_WITH, record + answer.payload)
        self._schedule()

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        """Pack it, after the attempt's first token."""
        self._gather()
        self._out += wire.frame(wire.FAILED, wire.pack_failure(attempt_id, failure))
        self._schedule()

    def _learn(self, word: str) -> int:
        if len(self._words) >= wire.MAX_WORDS:
            word = wire.OTHER_WORD
            if word in self._words:
                return self._words[word]
        code = self._words[word] = len(self._words)
        self._out += wire.frame(wire.WORD, bytes([code]) + word.encode("utf-8", "replace"))
        return code

    def _schedule(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _gather(self) -> None:
        """Turn gathered records into frames: first tokens before results."""
        if self._first:
            self._out += wire.frame(wire.FIRST, self._first)
            self._first.clear()
        if self._done:
            self._out += wire.frame(wire.DONE, self._done)
            self._done.clear()

    def _flush(self) -> None:
        """Hand over all that this turn of the loop has brought."""
        self._flush_due = False
        self._gather()
        if self._out:
            if not self._transport.is_closing():  # the dispatcher wants to hear no more, or is gone
                self._transport.write(bytes(self._out))
            self._out.clear()

    # ---- life

    def _beat(self) -> None:
        self._loop.call_later(BEAT_S, self._beat)
        last = self._worker.last_byte_ns
        self._beats.beat(self._index, time.monotonic_ns(), [last(s) for s in range(self._n_servers)])

    def _cost(self) -> tuple[float, float]:
        wall_s, thread_s, cpu_s = self._began_s
        elapsed_s = max(time.monotonic() - wall_s, 1e-9)
        return _cpu_s() - cpu_s, (time.thread_time() - thread_s) / elapsed_s

    async def close(self) -> None:
        """End the attempts that are still open; nobody hears of them."""
        await self._worker.close()


def _uncountable(result: AttemptResult) -> AttemptFailure:
    answer = result.answer
    return AttemptFailure(
        kind=FailureKind.MALFORMED,
        message=f"the server counts {answer.n_tokens} output and {answer.n_input_tokens} input tokens",
        at_ns=result.done_ns,
        sent_ns=result.sent_ns,
        sent=True,
        any_byte=True,
        status=200,
        first_token_ns=result.first_token_ns,
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _run(sock: socket.socket, launch: Launch, index: int) -> None:
    process = _Process(launch, index)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: process, sock=sock)
    await process.ended.wait()
    await process.close()


def main() -> None:
    """Run until the dispatcher's process closes the socket."""
    import uvloop

    fd, launch_fd, index = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a Ctrl-C means
    output = GuardedOutput()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    launch = load_launch(launch_fd)
    output.use(launch.setup.endpoints[0].redact)
    # the end of the socket tells the same, but not to a process that is stopped
    die_with_parent(launch.parent_pid)
    raise_descriptor_limit()
    cpu = launch.cpu(index)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(sock, launch, index))
    output.finish()


if __name__ == "__main__":
    main()
