"""A run without servers: the command line as it is, and a stand-in for what carries a job out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lbrun.cli.main import main
from lbrun.config import RunSettings, config_hash


@dataclass
class Recorder:
    """Stands in for lbrun.run.job: notes what it is asked, and leaves a result as a finished run does.

    outcomes: exit statuses, or exceptions to raise, in turn; 0 when there are no more.
    """

    outcomes: list[Any] = field(default_factory=list)
    runs: list[tuple[RunSettings, Path, str, list[str]]] = field(default_factory=list)
    config_errors: list[tuple[Path, list[str], list[str]]] = field(default_factory=list)

    def run_job(
        self, settings: RunSettings, run_dir: Path, *, command: str, overrides: Sequence[str] = ()
    ) -> int:
        self.runs.append((settings, run_dir, command, list(overrides)))
        outcome = self.outcomes.pop(0) if self.outcomes else 0
        if isinstance(outcome, BaseException):
            raise outcome
        state = "interrupted" if outcome == 130 else "finished"
        verdict = {0: "VALID", 3: "INVALID"}.get(outcome, "FAILED")
        result = {
            "state": state,
            "verdict": verdict,
            "exit_status": outcome,
            "config_hash": config_hash(settings),
        }
        (run_dir / "result.json").write_text(json.dumps(result))
        return int(outcome)

    def record_config_error(self, run_dir: Path, problems: Sequence[str], overrides: Sequence[str]) -> None:
        self.config_errors.append((run_dir, list(problems), list(overrides)))


@dataclass(frozen=True)
class Ended:
    """What a command left on the terminal."""

    status: int
    out: str
    err: str


Lbrun = Callable[..., Ended]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    stand_in = Recorder()
    module = ModuleType("lbrun.run.job")
    module.run_job = stand_in.run_job  # type: ignore[attr-defined]
    module.record_config_error = stand_in.record_config_error  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lbrun.run.job", module)
    return stand_in


@pytest.fixture
def lbrun(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Lbrun:
    """Runs a command line in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> Ended:
        status = main(argv)
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run
