"""One run of lbrun as a user starts it, and what it cost: all of its processes together."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import BenchmarkError
from benchmarks.machine import REPOSITORY
from benchmarks.processes import Sampler, Usage
from benchmarks.server import MODEL

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run that ended well. cpu_s: user and system time of the command and everything it started.

    peak_mb: peak of its largest process. result: its result.json. usage: where sampling was asked for.
    folder: what it left, where it was asked to be kept.
    """

    n: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    result: dict[str, Any]
    usage: list[Usage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lbrun:
    """Starts lbrun. scratch: a folder for what runs leave behind. dataset: the data file."""

    scratch: Path
    dataset: Path

    def command(self, urls: Sequence[str], n: int, overrides: Sequence[str], run_dir: Path) -> list[str]:
        """A trial of n samples over the pool. The pool is in a file, as a thousand URLs should be."""
        pools = Path(tempfile.mkdtemp(dir=self.scratch, prefix="pool-"))
        (pools / "servers").mkdir()
        pool = {"urls": list(urls), "served_model": MODEL, "ready_timeout_s": 30}
        (pools / "servers" / "measured.yaml").write_text(json.dumps(pool))  # JSON is YAML
        return [
            *(sys.executable, "-m", "lbrun", "--config-dir", str(pools), "servers=measured"),
            *("rules=trial", f"scenario.trial.min_query_count={n}", f"dataset.path={self.dataset}"),
            *("report.html=false", f"hydra.run.dir={run_dir}", *overrides),
        ]

    def run(
        self,
        urls: Sequence[str],
        n: int,
        *overrides: str,
        sample_s: float | None = None,
        inspect: Callable[[Path], None] | None = None,
    ) -> Run:
        """Run n samples to the end. Raises BenchmarkError if any of them failed.

        sample_s: look at its processes this often. inspect: is given the run's folder before it is removed.
        """
        run_dir = Path(tempfile.mkdtemp(dir=self.scratch, prefix="run-"))
        return self._measured(self.command(urls, n, overrides, run_dir), n, run_dir, sample_s, inspect)

    def costs_us(
        self, urls: Sequence[str], sizes: tuple[int, int], repeats: int, *overrides: str
    ) -> list[float]:
        """CPU microseconds a sample, once for each repeat, by a short and a long run of these sizes."""
        short, long = sizes
        return [
            further_us(self.run(urls, short, *overrides), self.run(urls, long, *overrides))
            for _ in range(repeats)
        ]

    def run_embedded(self, n: int, *overrides: str, inspect: Callable[[Path], None] | None = None) -> Run:
        """The same over servers that lbrun itself starts; their CPU is in the figure."""
        run_dir = Path(tempfile.mkdtemp(dir=self.scratch, prefix="run-"))
        command = [
            *(sys.executable, "-m", "lbrun", "servers=embedded"),
            *(f"scenario.trial.min_query_count={n}", "report.html=false", f"hydra.run.dir={run_dir}"),
            *overrides,
        ]
        return self._measured(command, n, run_dir, None, inspect)

    def _measured(
        self,
        command: list[str],
        n: int,
        run_dir: Path,
        sample_s: float | None,
        inspect: Callable[[Path], None] | None,
    ) -> Run:
        output = run_dir.with_suffix(".txt")
        began = time.monotonic()
        with output.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY)
        sampler = Sampler(process.pid, sample_s) if sample_s else None
        if sampler is not None:
            sampler.start()
        killer = threading.Timer(TIMEOUT_S, process.kill)
        killer.start()
        try:
            used = wait(process)
        finally:
            killer.cancel()
            if sampler is not None:
                sampler.stop()
        wall_s = time.monotonic() - began
        try:
            result = json.loads((run_dir / "result.json").read_bytes())
        except (OSError, ValueError):
            result = {"verdict": "no result"}
        if result["verdict"] not in ("VALID", "INVALID") or result["samples"]["failed"]:
            said = output.read_text(errors="replace")[-2000:]
            raise BenchmarkError(f"a run of {n:,} samples ended as {result['verdict']}:\n{said}")
        if inspect is not None:
            inspect(run_dir)
        shutil.rmtree(run_dir)
        output.unlink()
        return Run(
            n=result["samples"]["issued"],
            cpu_s=used.ru_utime + used.ru_stime,
            wall_s=wall_s,
            peak_mb=used.ru_maxrss * 1024 / 1e6,
            result=result,
            usage=sampler.seen if sampler else [],
        )


def wait(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    """Wait for its end; what it used, and all descendants that it has waited for.

    It is ended where the wait is interrupted.
    """
    try:
        _, status, used = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return used


def further_us(less: Run, more: Run) -> float:
    """CPU microseconds of each sample that the longer run had more, so that start-up is out.

    Raises BenchmarkError where the two say nothing.
    """
    if more.n <= less.n:
        raise BenchmarkError(f"LoadGen issued {less.n:,} and {more.n:,} samples where it should issue more")
    if more.cpu_s <= less.cpu_s:
        raise BenchmarkError(
            f"{more.n:,} samples took {more.cpu_s:.2f} s of CPU, {less.n:,} took {less.cpu_s:.2f}: "
            "the runs are too short for this machine"
        )
    return (more.cpu_s - less.cpu_s) / (more.n - less.n) * 1e6
