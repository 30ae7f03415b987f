"""A user's strategy may fail in any way: the run ends, says why, and its books hold what the servers saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from embedded_servers import Servers
from lbrun_process import Lbrun, urls

MODULE = """
import os, signal
from lbrun.balance import BaseStrategy

def end(how):
    if how.startswith("exit"):
        os._exit(int(how[4:]))
    if how.startswith("signal"):
        os.kill(os.getpid(), int(how[6:]))
    raise {"base": BaseException, "system": SystemExit, "ctrl_c": KeyboardInterrupt, "gen": GeneratorExit,
            "error": ValueError}[how]("on purpose")

class Mine(BaseStrategy):
    name = "mine"

    def __init__(self, where="pick", how="base", after=6):
        self.where, self.how, self.left = where, how, after
        if where == "init":
            end(how)

    def _turn(self, where):
        if where == self.where:
            self.left -= 1
            if self.left < 0:
                end(self.how)

    def pick(self, tokens):
        self._turn("pick")
        return self.view.eligible[0]

    def started(self, server, tokens):
        self._turn("notice")
"""


@pytest.fixture
def run_mine(
    lbrun: Lbrun, healthy: Callable[..., Servers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Runs with a strategy that fails."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "mine_pkg.py").write_text(MODULE)

    def run(where: str, how: str, *more: str) -> Any:
        return lbrun(
            urls(healthy().urls),
            "rules=trial",
            "scenario.trial.min_query_count=24",
            "dataset.max_samples=24",
            "strategy.name=mine",
            "strategy._target_=mine_pkg.Mine",
            "allowed_packages=[lbrun,mine_pkg]",
            f"+strategy.params={{where:{where},how:{how}}}",
            *more,
        )

    return run


@pytest.mark.parametrize("how", ["base", "system", "ctrl_c", "gen", "error"])
@pytest.mark.parametrize("where", ["pick", "notice"])
def test_an_exception_of_any_kind_breaks_the_run_with_its_reason(
    run_mine: Callable[..., Any], where: str, how: str
) -> None:
    ended = run_mine(where, how)
    result = ended.check_books()
    assert (ended.status, result["state"]) == (1, "broken")
    assert "on purpose" in ended.headline
    assert result["samples"]["issued"] == 24


@pytest.mark.parametrize("how", ["base", "system", "ctrl_c"])
def test_a_strategy_that_cannot_be_made_is_one_line_before_any_load(
    run_mine: Callable[..., Any], how: str
) -> None:
    ended = run_mine("init", how)
    assert ended.status == 2
    assert len(ended.complaint) == 1
    assert "on purpose" in ended.complaint[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("how", "said"),
    [("exit0", "status 0"), ("exit3", "status 3"), ("signal9", "SIGKILL"), ("signal11", "SIGSEGV")],
)
def test_a_process_that_dies_leaves_what_loadgen_had_issued(
    run_mine: Callable[..., Any], how: str, said: str, workers: int
) -> None:
    ended = run_mine("pick", how, f"client.workers={workers}")
    result = ended.result
    assert (ended.status, result["verdict"], result["state"]) == (1, "FAILED", "broken")
    assert said in ended.headline
    samples = result["samples"]
    assert samples["issued"] == 24
    assert samples["issued"] == samples["completed"] + samples["failed"]
    assert all(server["ejections"] in (0, None) for server in result["servers"])
