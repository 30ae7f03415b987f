"""The client's own lateness is told in the first lines, whichever of its loops is late."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import psutil
from lbrun_process import SMALL_SERVER, Ended, Lbrun, Running

SERVER = (
    "scenario=server",
    *SMALL_SERVER,
    "servers.embedded.ttft_per_token_us=0",
    "servers.embedded.tpot_ms=1",
)

SLOW = """
import time
from lbrun.balance import BaseStrategy

class Slow(BaseStrategy):
    def pick(self, tokens):
        time.sleep(0.06)  # holds the main event loop up
        return self.view.eligible[0]
"""


def _warnings(ended: Ended) -> list[str]:
    """Those of the client's delays: of the result, which the first lines of the summary must show too."""
    found = [line for line in ended.result["warnings"] if line.startswith("the client")]
    head = ended.out.partition("\n\n")[0]
    assert head.count("Warning: the client") == len(found)
    return found


def _loops(ended: Ended) -> dict[str, Any]:
    return {loop["name"]: loop for loop in ended.result["client"]["loops"]}


def _worker(run: Running, index: int) -> psutil.Process | None:
    for process in run.family():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if "lbrun.workers.process" in command and command[-1] == str(index):
                return process
    return None


def test_a_worker_process_that_is_late_is_named(lbrun: Lbrun) -> None:
    run = lbrun.start(
        *SERVER, "client.workers=2", "scenario.target_qps=15", "servers.embedded.ttft_base_ms=20"
    )
    worker = run.until(lambda: _worker(run, 1), "the worker has started")
    run.until(lambda: run.says("running") or run.says("in flight"), "the test runs")
    # it is held up for real, and for most of the time
    with contextlib.suppress(psutil.NoSuchProcess):
        while run.process.poll() is None:
            worker.suspend()
            time.sleep(0.15)
            worker.resume()
            time.sleep(0.03)
    ended = run.wait()
    assert ended.result["samples"]["failed"] == 0
    (warning, *_) = _warnings(ended)
    assert "TTFT" in warning
    assert "the event loop of worker 1 was busy" in warning
    loops = _loops(ended)
    assert list(loops) == ["main", "worker 0", "worker 1"]
    assert loops["worker 1"]["lag_ms"]["p99"] > 75
    assert loops["worker 1"]["busy"] < 0.5
    assert loops["worker 1"]["lag_ms"]["p99"] > loops["worker 0"]["lag_ms"]["p99"]


def test_a_main_loop_that_is_late_is_named(lbrun: Lbrun, tmp_path: Path) -> None:
    (tmp_path / "slow_strategies.py").write_text(SLOW)
    ended = lbrun(
        *SERVER, "scenario.target_qps=8", "servers.embedded.ttft_base_ms=20", "servers.embedded.count=1",
        "strategy._target_=slow_strategies.Slow", "strategy.name=slow",
        "allowed_packages=[lbrun,slow_strategies]",
    )  # fmt: skip
    assert ended.result["samples"]["failed"] == 0, ended.err + ended.out
    (warning, *_) = _warnings(ended)
    assert "the main event loop was busy" in warning
    assert list(_loops(ended)) == ["main"]
    assert _loops(ended)["main"]["lag_ms"]["max"] > 40


def test_a_client_that_has_little_to_do_is_not_told_of(lbrun: Lbrun) -> None:
    """Against servers that are slow enough for any machine that runs this."""
    slow = ["scenario.target_qps=15", "servers.embedded.ttft_base_ms=1500", "servers.embedded.tpot_ms=30"]
    named = {argument.partition("=")[0] for argument in slow}
    others = [argument for argument in SERVER if argument.partition("=")[0] not in named]
    commands = {f"workers-{n}": [*others, *slow, f"client.workers={n}"] for n in (0, 2)}
    for name, ended in lbrun.all(commands).items():
        assert ended.result["verdict"] == "VALID", ended.err + ended.out
        assert _warnings(ended) == []
        assert len(_loops(ended)) == (1 if name == "workers-0" else 3)
        for loop in _loops(ended).values():
            assert loop["lag_ms"]["p50"] >= 0
            assert 0 < loop["busy"] < 0.9
