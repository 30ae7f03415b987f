"""A server process never outlives the process that started it, whatever ends that one.

Two independent ways, since each has a gap:
- the kernel kills the child when the parent's thread that started it ends (Linux; also where the child is
  stopped, and cannot act itself);
- the child's standard input is a pipe whose other end the parent holds: its end is the parent's end.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to end this process with its parent; ends at once where the parent is gone already.

    parent_pid: who started this process, as it said itself, which closes the gap between start and request.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)


def wake_with_parents_end() -> None:
    """Ask the kernel to continue this process, should it be stopped, when its parent ends.

    For a process that sees the end of its parent by itself and has something to finish then.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def die_at_end_of_stdin(loop: asyncio.AbstractEventLoop) -> None:
    """End this process when the pipe from its parent ends."""

    def readable() -> None:
        if not os.read(0, 4096):
            os._exit(0)

    loop.add_reader(0, readable)
