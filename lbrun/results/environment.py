"""What a run ran on, as far as a reader needs it to judge or repeat the figures."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import lbrun

_PACKAGES = (
    "mlcommons-loadgen",
    "hydra-core",
    "omegaconf",
    "uvloop",
    "httptools",
    "httpx",
    "tenacity",
    "msgspec",
    "numpy",
    "pyarrow",
    "pillow",
    "starlette",
    "uvicorn",
)


def environment() -> dict[str, object]:
    """Versions and machine; nothing that names a host, a user or a path."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "lbrun": lbrun.__version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "packages": packages,
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
