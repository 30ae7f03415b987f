"""One real ``lbrun`` command in processes of its own: started, watched, signalled, and ended for sure."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lbrun
from lbrun.results.events import read_events

_MARK = "LBRUN_FAULTS_RUN"
"""An environment variable by which the processes of a command are known, whoever their parent is by now."""
_LOOK_EVERY_S = 0.02

_T = TypeVar("_T")


class NotInTimeError(Exception):
    """What a scenario waited for did not come."""


class Command:
    """A running ``python -m lbrun``.

    folder: the run's. arguments: overrides. wrapper: a command that starts another, e.g. within limits.
    deadline_s: on the monotonic clock; nothing is waited for beyond it. given_up: nor once this is set.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        *,
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        deadline_s: float,
        given_up: threading.Event,
    ) -> None:
        self.folder, self._deadline_s, self._given_up = folder, deadline_s, given_up
        self.ended_s = 0.0
        """When `wait` saw its end, on the wall clock."""
        self._mark = uuid.uuid4().hex
        base = folder.parent
        self._out, self._err = base / "stdout.txt", base / "stderr.txt"
        root = str(Path(lbrun.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # files, not pipes: whoever holds the other end of a pipe could outlive a killed command
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [*wrapper, sys.executable, "-m", "lbrun", f"hydra.run.dir={folder}", *arguments],
                cwd=base,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {}), "PYTHONPATH": path, _MARK: self._mark},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that a user would have started."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether that process has ended."""
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        """Standard output so far."""
        return self._out.read_text(errors="replace")

    @property
    def told(self) -> str:
        """Standard error so far."""
        return self._err.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process that the user started, and to no other."""
        self._process.send_signal(number)

    def until(self, look: Callable[[], _T], what: str, *, also_after_end: bool = False) -> _T:
        """Look until there is something, and return it.

        Raises NotInTimeError at the deadline, or when lbrun has ended before.
        """
        while True:
            ended = self._process.poll() is not None
            if seen := look():
                return seen
            if ended and not also_after_end:
                last = "\n".join(self.told.splitlines()[-5:])
                raise NotInTimeError(
                    f"lbrun ended (status {self._process.returncode}) before: {what}\n{last}"
                )
            self._pause(f"did not come in time: {what}")

    def wait(self) -> int:
        """Wait for its end; its exit status. Raises NotInTimeError."""
        while (status := self._process.poll()) is None:
            self._pause("lbrun did not end in time")
        self.ended_s = self.ended_s or time.time()
        return status

    def _pause(self, too_late: str) -> None:
        if time.monotonic() > self._deadline_s:
            raise NotInTimeError(too_late)
        if self._given_up.wait(_LOOK_EVERY_S):
            raise NotInTimeError("given up")

    def events(self) -> list[dict[str, Any]]:
        """What it has noted of the servers so far."""
        return list(read_events(self.folder))

    def family(self, part_of_command: str = "") -> list[int]:
        """Ids of the processes that it has started and that live, also those that outlived it."""
        return [
            pid
            for pid in _processes_with(f"{_MARK}={self._mark}".encode())
            if pid != self.pid and part_of_command in _command_line(pid)
        ]

    def end(self) -> None:
        """End it with all that it has started."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes_with(variable: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # it has ended, or is nobody of ours
            continue
        if variable in environment.split(b"\0"):  # a zombie has no environment any more
            found.append(int(entry.name))
    return found


def _command_line(pid: int) -> str:
    try:
        return (
            (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""
