"""A lock on the folder of a run or sweep, so that two commands never write to one folder.

It is a `flock` on a file in the folder. The kernel releases it with the last process that has it open, so the
file of a dead command is taken over. The test's process inherits the lock: it may outlive a killed parent for
the seconds in which it writes its records. On file systems without `flock` there is no protection.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from lbrun.errors import ConfigError

NAME = ".lbrun.lock"


class FolderLock:
    """Holds a folder from `acquire` to `release`. descriptor: for processes that write there."""

    def __init__(self, folder: Path, key: str) -> None:
        """key: the configuration key that names the folder, for messages."""
        self._folder, self._key = folder, key
        self.descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises ConfigError, with who holds it, where another process has it."""
        path = self._folder / NAME
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 4096, 0)
                os.close(descriptor)
                raise ConfigError(
                    f"{self._key}: {self._folder} is in use by {_described(holder)}; "
                    "wait for its end, or name another folder"
                ) from None
            except OSError:
                break  # a file system that knows no locks
            if _is_at(path, descriptor):
                break
            os.close(descriptor)  # its holder has removed the file since it was opened
        self.descriptor = descriptor
        self_told = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(self_told).encode(), 0)

    def release(self) -> None:
        """Give the folder free, and remove the file; harmless when called again."""
        if self.descriptor is None:
            return
        with contextlib.suppress(OSError):
            (self._folder / NAME).unlink()
        os.close(self.descriptor)
        self.descriptor = None


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _described(holder: bytes) -> str:
    try:
        told = json.loads(holder)
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    except (ValueError, KeyError, TypeError):
        return "another lbrun"
