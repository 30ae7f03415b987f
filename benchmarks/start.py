"""What passes before the first request: time, CPU, memory."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.data import OFFICIAL_SAMPLES, official_shape
from benchmarks.figures import BenchmarkError, Figure, median_figure
from benchmarks.machine import REPOSITORY
from benchmarks.processes import Usage, usage
from benchmarks.server import Answers, Server, running

_FIRST_OF_THE_TEST = 2
"""The first POST tries the server; LoadGen's samples follow."""
_DEADLINE_S = 120.0
_LOOK_S = 0.005


def run(bench: Bench) -> Iterator[Figure]:
    """``--help``, then everything until LoadGen's first sample is at a server."""
    bench.progress("--help")
    help_s = [_help_s(bench.python) for _ in range(bench.repeats)]
    yield median_figure("start_help_s", "--help", help_s, "s", 1.0, "wall time")

    bench.progress(f"first request with {OFFICIAL_SAMPLES:,} samples")
    dataset, bodies_mb = official_shape(bench.scratch)
    with running(Answers()) as server:
        seen = [_first_request(bench, dataset, server) for _ in range(bench.repeats)]
    note = (
        f"from the command to LoadGen's first request; {OFFICIAL_SAMPLES:,} samples of 780 ids and "
        f"3.5 KB of text, a JSON file of {dataset.stat().st_size / 1e6:.0f} MB"
    )
    yield median_figure("start_wall_s", "First request, wall", [wall for wall, _ in seen], "s", 3.0, note)
    yield median_figure("start_cpu_s", "First request, CPU", [used.cpu_s for _, used in seen], "s", 3.0, note)
    yield median_figure(
        "start_memory_mb",
        "Memory beside the data",
        [used.pss_mb - bodies_mb for _, used in seen],
        "MB",
        200.0,
        f"of all processes at the first request, shared pages counted once, less the {bodies_mb:.0f} MB of "
        f"request bodies; {seen[0][1].rss_mb - bodies_mb:.0f} MB with shared pages counted in each",
    )
    yield median_figure(
        "start_peak_mb",
        "Peak memory until the first request",
        [used.peak_mb for _, used in seen],
        "MB",
        note="the data included",
    )


def _help_s(python: str) -> float:
    began = time.monotonic()
    subprocess.run([python, "-m", "lbrun", "--help"], check=True, capture_output=True, cwd=REPOSITORY)
    return time.monotonic() - began


def _first_request(bench: Bench, dataset: Path, server: Server) -> tuple[float, Usage]:
    """Seconds and usage at the moment of LoadGen's first request. The run is then ended."""
    run_dir = Path(tempfile.mkdtemp(dir=bench.scratch, prefix="run-"))
    lbrun = bench.with_dataset(dataset)
    before = server.stats()["posts"]
    began = time.monotonic()
    process = subprocess.Popen(
        # one at a time, so that little more than the first is done when it is seen
        lbrun.command(server.urls, OFFICIAL_SAMPLES, ("servers.max_in_flight=1",), run_dir),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
    )
    try:
        while server.stats()["posts"] - before < _FIRST_OF_THE_TEST:
            if process.poll() is not None or time.monotonic() - began > _DEADLINE_S:
                raise BenchmarkError("lbrun sent no request")
            time.sleep(_LOOK_S)
        wall_s, used = time.monotonic() - began, usage(process.pid)
    finally:
        _end(process)
    return wall_s, used


def _end(process: subprocess.Popen[bytes]) -> None:
    """Two interrupts end a run at once."""
    for _ in range(2):
        if process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.3)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
