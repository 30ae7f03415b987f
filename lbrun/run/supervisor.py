"""The parent's side of a test's process: start it, pass its messages on, interrupt it, end it if it hangs.

The child has a session of its own, so that a terminal's Ctrl-C reaches only the parent: the first one asks
the child to drain, the second one kills it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbrun.run.awake import AwakeClock
from lbrun.run.channel import Channel, Message
from lbrun.run.ledger import Ledger, LedgerCounts


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask to stop. SIGHUP only where it is not ignored, as it is under nohup."""
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    return tuple(wanted)


SILENCE_S = 120.0
"""A running test that reports no progress for so long hangs, and is ended."""
_AFTER_DRAIN_S = 15.0


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a test's process ended.

    outcome: its report, None if it never came. error: lines for the user, with the exit status they ask for.
    returncode: negative for a signal. interrupts: how often the user asked to stop. hung: it was ended for
    its silence. counts: what the test had counted at its end, whatever ended it. broken: why it was broken
    off, "" if it was not. held_up_s: how long all of lbrun was stopped meanwhile. servers: the pool as it was
    last told. warnings: what was noted meanwhile.
    """

    outcome: dict[str, Any] | None
    error: tuple[str, ...]
    error_status: int
    is_bug: bool
    returncode: int
    interrupts: int
    hung: bool
    counts: LedgerCounts
    broken: str = ""
    held_up_s: float = 0.0
    servers: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    def describe_death(self) -> str:
        """What to say of a process that ended without a report."""
        if self.hung:
            return f"the test's process reported nothing for {SILENCE_S:.0f} s and was ended"
        if self.returncode < 0:
            name = signal.Signals(-self.returncode).name
            return f"the test's process was ended by {name}"
        return f"the test's process ended with status {self.returncode} and no report"


class Supervisor:
    """Starts one test's process and stays with it until its end."""

    def __init__(
        self, order: Message, log_path: Path, *, drain_s: float, inherited: Sequence[int] = ()
    ) -> None:
        """order: the child's first message (see `lbrun.run.child`). log_path: gets all that it prints.

        inherited: descriptors that stay open in the child.
        """
        self._inherited = tuple(inherited)
        self._order, self._log_path, self._drain_s = order, log_path, drain_s
        self._interrupts = 0

    def run(self, on_message: Callable[[Message], None]) -> ChildEnd:
        """Start, watch, reap. on_message gets progress, phases, notes and server states."""
        ours, theirs = socket.socketpair()
        # counted from here on: a Ctrl-C while the process is started must not leave it behind
        with self._signals() as wake, self._log_path.open("ab") as log:
            ledger = Ledger.create()
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "lbrun.run.child", str(theirs.fileno()), str(ledger.descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno(), ledger.descriptor, *self._inherited],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
            theirs.close()
            channel = Channel(ours)
            try:
                return self._watch(process, channel, wake, on_message, ledger)
            finally:
                channel.close()
                if process.poll() is None:
                    process.kill()
                process.wait()
                ledger.close()

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        channel: Channel,
        wake: socket.socket,
        on_message: Callable[[Message], None],
        ledger: Ledger,
    ) -> ChildEnd:
        channel.send(self._order, must=True)
        outcome: dict[str, Any] | None = None
        error: Message = {}
        seen = 0
        broken, servers, warnings = "", (), []
        clock = AwakeClock()
        kill_at: float | None = None
        running = hung = False
        heard_at = clock.now_s()
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while not channel.closed:
                selector.select(0.5)
                with contextlib.suppress(BlockingIOError):
                    wake.recv(64)
                if self._interrupts > seen:
                    seen = self._interrupts
                    if seen == 1:
                        channel.send({"type": "drain"}, must=True)
                        on_message({"type": "phase", "text": "interrupted: draining; again to stop at once"})
                        kill_at = clock.now_s() + self._drain_s + _AFTER_DRAIN_S
                    else:
                        process.kill()
                messages = channel.receive()
                now = clock.now_s()
                if messages:
                    heard_at = now
                for message in messages:
                    kind = message.get("type")
                    if kind == "outcome":
                        outcome = message
                    elif kind == "error":
                        error = message
                    elif kind == "broken":
                        broken = message["reason"]
                    else:
                        if kind == "progress":
                            running, servers = True, message["servers"]
                        elif kind == "note":
                            warnings.append(message["text"])
                        on_message(message)
                if running and now - heard_at > SILENCE_S:
                    hung = True
                if hung or (kill_at is not None and now > kill_at):
                    process.kill()
        try:
            returncode = process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            returncode = process.wait()
        return ChildEnd(
            outcome=outcome,
            error=tuple(error.get("lines", ())),
            error_status=int(error.get("status", 0)),
            is_bug=bool(error.get("bug")),
            returncode=returncode,
            interrupts=self._interrupts,
            hung=hung,
            counts=ledger.read(),
            broken=broken,
            held_up_s=clock.held_up_s,
            servers=tuple(servers),
            warnings=tuple(warnings),
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Signals to stop are counted, and wake the selector; the old handlers come back afterwards."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)

        def count(signum: int, frame: object) -> None:
            self._interrupts += 1
            with contextlib.suppress(OSError):
                writer.send(b"!")

        old = {number: signal.signal(number, count) for number in stop_signals()}
        try:
            yield reader
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            reader.close()
            writer.close()
