"""Two commands never write to one folder; a lock of a dead command is taken over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lbrun.errors import ConfigError
from lbrun.run.folder_lock import NAME, FolderLock

HOLD = """
import sys
from pathlib import Path
from lbrun.run.folder_lock import FolderLock
FolderLock(Path(sys.argv[1]), "key").acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_one_is_told_who_holds_the_folder_and_changes_nothing(tmp_path: Path) -> None:
    first = FolderLock(tmp_path, "hydra.run.dir")
    first.acquire()
    with pytest.raises(ConfigError, match=rf"^hydra.run.dir: .*process {os.getpid()} on "):
        FolderLock(tmp_path, "hydra.run.dir").acquire()
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        lock = FolderLock(tmp_path, "key")
        lock.acquire()
        lock.release()
        lock.release()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ConfigError, match=f"process {holder.pid}"):
            FolderLock(tmp_path, "key").acquire()
        holder.kill()
        holder.wait()
    assert (tmp_path / NAME).exists()
    lock = FolderLock(tmp_path, "key")
    lock.acquire()
    lock.release()
