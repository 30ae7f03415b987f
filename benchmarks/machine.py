"""What the figures were measured on. No name of the machine, its user or its folders."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def describe() -> dict[str, object]:
    """Processor, memory, kernel, versions, the commit, and how busy the machine is just now."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {
            name: _version(name) for name in ("uvloop", "httptools", "msgspec", "mlcommons-loadgen")
        },
        "commit": _commit(),
        "load_average": os.getloadavg()[0],
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit, with a mark where lbrun itself was changed since; "" outside a repository."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + (" (changed)" if _git("status", "--porcelain", "--", "lbrun", "conf") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
