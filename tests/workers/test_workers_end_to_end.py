"""Whole runs with worker processes: the command, LoadGen, embedded servers, and what is written of it all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

_BOUND_S = 60.0
_ROOT = Path(__file__).resolve().parents[2]
_SMALL = ["dataset.max_samples=24", "report.html=false"]


class Run:
    """``python -m lbrun`` in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self.folder = folder / "run"
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        # a file, not a pipe: whoever holds the other end of a pipe could outlive a killed command
        self._said = (folder / "said.txt").open("w+b")
        self.process = psutil.Popen(
            [sys.executable, "-m", "lbrun", *_SMALL, *arguments, f"hydra.run.dir={self.folder}"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
        )

    def workers(self, but: int = 0) -> list[psutil.Process]:
        """The worker processes that there are now, without that one."""
        return [p for p in self._family() if p.pid != but and "lbrun.workers.process" in _command(p)]

    def a_worker_at_work(self, but: int = 0) -> psutil.Process:
        """Wait until a worker process, not that one, has connections to the servers."""
        found: list[psutil.Process] = self.until(
            lambda: list(filter(_is_at_work, self.workers(but))), "a worker is at work"
        )
        return found[0]

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """Wait for something to happen while the command runs."""
        deadline_s = time.monotonic() + _BOUND_S
        while not (seen := look()):
            assert self.process.poll() is None, f"ended before: {what}\n{self.said()}"
            assert time.monotonic() < deadline_s, f"waited in vain: {what}\n{self.said()}"
            time.sleep(0.01)
        return seen

    def result(self) -> dict[str, Any]:
        """Wait for the end; what result.json says, with the books checked."""
        status = self.process.wait(_BOUND_S)
        assert (self.folder / "result.json").exists(), self.said()
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        samples = result["samples"]
        assert samples["issued"] == samples["completed"] + samples["failed"]
        assert sum(server["completed"] for server in result["servers"]) == samples["completed"]
        assert (status == 0) == (result["verdict"] == "VALID"), self.said()
        return result

    def said(self) -> str:
        """All that the command has written, and the log of its test."""
        log = self.folder / "lbrun.log"
        texts = [Path(self._said.name).read_text(), log.read_text() if log.exists() else ""]
        return "\n".join(texts)

    def end(self) -> None:
        """End it with all that it has started."""
        for process in [*self._family(), self.process]:
            if process.is_running():
                process.kill()
        self.process.wait()
        self._said.close()

    def _family(self) -> list[psutil.Process]:
        return [] if not self.process.is_running() else list(self.process.children(recursive=True))


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []  # it has ended meanwhile


def _is_at_work(process: psutil.Process) -> bool:
    try:
        return any(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections("tcp"))
    except psutil.Error:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start_one(*arguments: str) -> Run:
        runs.append(Run(tmp_path / f"{len(runs)}", *arguments))
        return runs[-1]

    yield start_one
    for one in runs:
        one.end()


_SCENARIOS = {
    "offline": ["scenario=offline", "servers.embedded.slots=8"],
    # LoadGen wants few queries to be sure of an 80th percentile
    "server": ["scenario=server", "scenario.percentile=0.8", "scenario.target_qps=60"],
}
"""Runs of about two seconds, so that something can happen meanwhile. None depends on its speed, and so they
are made side by side."""


def test_runs_with_worker_processes_are_valid_and_their_counts_are_exact(start: Callable[..., Run]) -> None:
    settings = ["client.workers=2", "scenario.trial.min_query_count=100"]
    runs = {name: start(*settings, *scenario) for name, scenario in _SCENARIOS.items()}
    for name, run in runs.items():
        result = run.result()
        assert result["verdict"] == "VALID", run.said()
        issued = result["samples"]["issued"]
        assert issued >= 100
        assert result["samples"] == {"issued": issued, "completed": issued, "failed": 0}
        assert result["attempts"]["total"] == issued
        counts = [server["requests"] for server in result["servers"]]
        assert max(counts) - min(counts) <= 1, "round robin, over both processes"
        assert result["client"]["workers"] == 2
        assert all(0 < busy < 1 for busy in result["client"]["worker_busy"])
        if name == "server":
            assert result["metrics"]["ttft_ms"]["p50"] > 0


def test_runs_survive_the_death_of_a_worker_process(start: Callable[..., Run]) -> None:
    # long answers, so that neither run is over before the other has been looked at
    settings = ["client.workers=2", "scenario.trial.min_query_count=120", "servers.embedded.tpot_ms=40"]
    runs = [start(*settings, *scenario) for scenario in _SCENARIOS.values()]
    victims = []
    for run in runs:
        victims.append(run.a_worker_at_work())
        victims[-1].kill()
    for run, victim in zip(runs, victims, strict=True):
        run.until(lambda run=run, pid=victim.pid: len(run.workers(but=pid)) == 2, "another takes its place")
    for run in runs:
        result = run.result()
        assert result["verdict"] == "VALID", run.said()
        assert result["samples"]["failed"] == 0
        assert result["samples"]["completed"] == result["samples"]["issued"] >= 120
        assert result["attempts"]["retried"] > 0
        assert result["attempts"]["total"] == result["samples"]["issued"] + result["attempts"]["retried"]
        assert all(server["ejections"] == 0 for server in result["servers"]), "no server is to blame"
        assert "worker process" in run.said()


def test_a_run_whose_worker_dies_again_fails_and_says_so(start: Callable[..., Run]) -> None:
    run = start("client.workers=1", "scenario.trial.min_query_count=150", "servers.embedded.tpot_ms=50")
    first = run.a_worker_at_work()
    first.kill()
    run.a_worker_at_work(but=first.pid).kill()
    result = run.result()
    assert result["verdict"] == "FAILED"
    assert any("worker process 0 ended by SIGKILL" in error for error in result["errors"]), result["errors"]
    assert result["samples"]["failed"] > 0
