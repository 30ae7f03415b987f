"""Carrying out what was composed: one run, or the jobs of a sweep one after another."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbrun.cli.mistakes import problems_of, report_error
from lbrun.config import RunSettings, config_hash, load_settings
from lbrun.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_USER_ERROR,
    EXIT_VALID,
    Interrupted,
    LbrunError,
)

if TYPE_CHECKING:
    from lbrun.run.folder_lock import FolderLock

_WORST_FIRST = (EXIT_INTERRUPTED, EXIT_USER_ERROR, EXIT_FAILED, EXIT_INVALID, EXIT_VALID)


def worst(statuses: Sequence[int]) -> int:
    """The exit status of a sweep: that of its worst job."""
    return min(statuses, key=_rank, default=EXIT_VALID)


def _rank(status: int) -> int:
    return _WORST_FIRST.index(status) if status in _WORST_FIRST else _WORST_FIRST.index(EXIT_FAILED)


def command_line(overrides: Sequence[str], config_dir: Path | None = None) -> str:
    """The command that runs a job again, ready for a shell."""
    own = ["--config-dir", str(config_dir)] if config_dir is not None else []
    return shlex.join(["python", "-m", "lbrun", *own, *overrides])


class SingleRun:
    """The one job of a run. config_dir: the folder with groups of the user's own."""

    def __init__(self, config_dir: Path | None = None) -> None:
        self._config_dir = config_dir
        self.status = EXIT_VALID

    def __call__(self, config: Mapping[str, Any], run_dir: Path, overrides: Sequence[str]) -> int:
        """Run it; return its exit status, and keep it."""
        try:
            self.status = _run(load_settings(config), run_dir, overrides, self._config_dir)
        except LbrunError as error:
            report_error(error)
            self.status = error.exit_status
        return self.status


class Sweep:
    """The jobs of a sweep, called in turn. One that fails does not stop the others, an interrupt does.

    planned: the jobs' overrides, as far as they are known beforehand, so that those not begun are listed.
    config_dir: the folder with groups of the user's own.
    """

    def __init__(self, planned: Sequence[Sequence[str]], config_dir: Path | None = None) -> None:
        self._planned = planned
        self._config_dir = config_dir
        self._statuses: list[int] = []
        self._sweep_dir: Path | None = None
        self._lock: FolderLock | None = None
        self._refused = False

    @property
    def status(self) -> int:
        """The exit status of what has been run."""
        return worst(self._statuses)

    def __call__(
        self,
        config: Callable[[], Mapping[str, Any]],
        run_dir: Path,
        overrides: Sequence[str],
        sweep_dir: Path,
        number: int,
    ) -> int:
        """Run one job and return its exit status. Raises KeyboardInterrupt when the user asked to stop."""
        if not self._may_write(sweep_dir):
            return EXIT_USER_ERROR
        self._sweep_dir = sweep_dir
        of = f" of {len(self._planned)}" if len(self._planned) > number else ""
        title = f"job {number + 1}{of}: {' '.join(overrides) or 'all defaults'}"
        try:
            status = self._job(config, run_dir, overrides, title)
        except (KeyboardInterrupt, Interrupted):
            status = EXIT_INTERRUPTED
        self._statuses.append(status)
        self._write(sweep_dir)
        if status == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        return status

    def _may_write(self, sweep_dir: Path) -> bool:
        """Whether the sweep has its folder for itself; says once who else has it."""
        from lbrun.run.folder_lock import FolderLock

        if self._lock is None and not self._refused:
            sweep_dir.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(sweep_dir, "hydra.sweep.dir")
            try:
                lock.acquire()
            except LbrunError as error:
                report_error(error)
                self._refused = True
                self._statuses.append(error.exit_status)
            else:
                self._lock = lock
        return not self._refused

    def _job(
        self, config: Callable[[], Mapping[str, Any]], run_dir: Path, overrides: Sequence[str], title: str
    ) -> int:
        from lbrun.results.result import read_result
        from lbrun.results.sweep import finished
        from lbrun.run.job import record_config_error

        try:
            settings = load_settings(config())
            if finished(run_dir, config_hash(settings)):
                _say(f"\n{title}: finished before, not run again\n")
                return int((read_result(run_dir) or {}).get("exit_status", EXIT_VALID))
            _say(f"\n{title}\n")
            return _run(settings, run_dir, overrides, self._config_dir)
        except Interrupted:
            raise
        except LbrunError as error:
            report_error(error)
            if not (run_dir / "result.json").exists():
                problems = problems_of(error)
                record_config_error(run_dir, problems, overrides)
            return error.exit_status

    def _folders(self) -> dict[str, Sequence[str]]:
        """The planned jobs by their folders, which Hydra numbers."""
        return {str(number): overrides for number, overrides in enumerate(self._planned)}

    def _write(self, sweep_dir: Path) -> None:
        from lbrun.results.sweep import write_sweep

        try:
            write_sweep(sweep_dir, self._folders())
        except OSError as error:
            report_error(LbrunError(f"{sweep_dir}: the comparison could not be written: {error}"))

    def show(self) -> None:
        """Show the comparison of all jobs, those included that have not begun."""
        if self._sweep_dir is None:
            return
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        from lbrun.results.summary import WIDTH
        from lbrun.results.sweep import read_sweep, render_sweep
        from lbrun.terminal.output import columns, is_terminal

        rows = read_sweep(self._sweep_dir, self._folders())
        width, colour = columns(sys.stdout, WIDTH), is_terminal(sys.stdout)
        _say("\n" + render_sweep(rows, self._sweep_dir, width=width, colour=colour))


def _run(settings: RunSettings, run_dir: Path, overrides: Sequence[str], config_dir: Path | None) -> int:
    from lbrun.run.job import run_job

    return run_job(settings, run_dir, command=command_line(overrides, config_dir), overrides=list(overrides))


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
