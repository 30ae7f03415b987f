"""One run, seen from the process that the user started: servers, test, result, and what is told of them.

Whatever happens to the test's process, this one writes the verdict. `result.json` exists from the first
moment and says that the run was cut, so that even a kill -9 of everything leaves a true statement.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbrun.config import RunSettings
from lbrun.config.load import config_hash
from lbrun.config.secrets import make_redactor
from lbrun.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, ConfigError, Interrupted, LbrunError, RunFailed
from lbrun.results.environment import environment
from lbrun.results.result import ResultFile, has_records, read_result
from lbrun.run.folder_lock import FolderLock
from lbrun.run.screen import Screen
from lbrun.run.simulation import embedded_pool
from lbrun.run.supervisor import ChildEnd, Supervisor, stop_signals

if TYPE_CHECKING:
    from lbrun.run.conclusion import Conclusion

_WRITTEN = (
    "requests.arrows", "requests.parquet", "events.jsonl", "outputs.jsonl", "summary.txt", "report.html",
)  # fmt: skip


def run_job(settings: RunSettings, run_dir: Path, *, command: str, overrides: Sequence[str] = ()) -> int:
    """Run one test and return its exit status (see `lbrun.errors`).

    run_dir: the run's folder; it is made, and must not hold a result yet. command: how to run it again.
    overrides: what differs from the defaults, for a sweep's table.
    Raises ConfigError or DatasetError for what the user has to mend, after noting it in ``result.json``.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(run_dir, "hydra.run.dir")
    lock.acquire()
    try:
        if (run_dir / "result.json").exists() and not _is_unfinished(run_dir):
            raise ConfigError(
                f"hydra.run.dir: {run_dir} already holds a result; name another folder, or remove this one"
            )
        _refuse_strangers(run_dir)
        with _stop_signals_as_ctrl_c():
            return _Job(settings, run_dir, command, tuple(overrides), lock).run()
    finally:
        lock.release()


def record_config_error(run_dir: Path, problems: Sequence[str], overrides: Sequence[str]) -> None:
    """Leave a FAILED result for a sweep's job whose configuration is wrong."""
    run_dir.mkdir(parents=True, exist_ok=True)
    ResultFile(run_dir).begin({"overrides": list(overrides)})
    document = read_result(run_dir) or {}
    document |= {"state": "broken", "errors": list(problems), "exit_status": EXIT_USER_ERROR}
    from lbrun.results.result import replace_json

    replace_json(run_dir / "result.json", document)


def _refuse_strangers(run_dir: Path) -> None:
    """Without a result these files are not of a run that was cut, and would be lost. Raises ConfigError."""
    if (run_dir / "result.json").exists():
        return
    for name in (*_WRITTEN, "mlperf"):
        if (run_dir / name).exists():
            raise ConfigError(
                f"hydra.run.dir: {run_dir} holds {name}, which the run would overwrite; name another folder"
            )


def _is_unfinished(run_dir: Path) -> bool:
    """Whether the folder's result is of a run that never ended, which a resumed sweep runs again."""
    result = read_result(run_dir)
    return result is None or result.get("state") != "finished"


@contextlib.contextmanager
def _stop_signals_as_ctrl_c() -> Iterator[None]:
    """SIGTERM of batch systems and SIGHUP of a closed terminal end the run as Ctrl-C does.

    Also before and after the test.
    """
    old = {number: signal.signal(number, signal.default_int_handler) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Job:
    def __init__(
        self,
        settings: RunSettings,
        run_dir: Path,
        command: str,
        overrides: tuple[str, ...],
        lock: FolderLock,
    ) -> None:
        self._settings, self._run_dir, self._lock = settings, run_dir, lock
        self._redactor = make_redactor(settings.servers, os.environ)
        self._config = settings.model_dump(mode="json", by_alias=True)
        self._static: dict[str, Any] = {
            "model": settings.model.name,
            "scenario": settings.scenario.name,
            "mode": settings.mode,
            "strategy": settings.strategy.name,
            "command": command,
            "overrides": list(overrides),
            "config": self._config,
            "config_hash": config_hash(settings),
            "environment": environment(),
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def run(self) -> int:
        """Everything, in order."""
        began = time.monotonic()
        self._clear_leftovers()
        result = ResultFile(self._run_dir)
        result.begin(self._static)
        try:
            with self._servers() as urls, Screen(urls) as screen:
                held = self._lock.descriptor
                end = Supervisor(
                    self._order(urls),
                    self._run_dir / "lbrun.log",
                    drain_s=self._settings.client.drain_s,
                    inherited=() if held is None else (held,),
                ).run(screen.message)
            from lbrun.run.conclusion import conclude  # needs numpy and pyarrow, the test's start does not

            conclusion = conclude(
                self._settings, self._run_dir, urls, end, self._static, time.monotonic() - began
            )
        except LbrunError as error:
            self._note_failure(error)
            raise
        except KeyboardInterrupt:
            # outside the test, where the supervisor does not count signals
            interrupted = Interrupted("interrupted")
            self._note_failure(interrupted)
            raise interrupted from None
        return self._tell(result, end, conclusion)

    def _clear_leftovers(self) -> None:
        """A run that was cut and is run again starts from nothing: its records belong to no run now.

        Nor do its LoadGen logs, which would be taken for this run's if it broke early.
        """
        for name in _WRITTEN:
            (self._run_dir / name).unlink(missing_ok=True)
        for path in (self._run_dir / "mlperf").glob("mlperf_log_*"):
            path.unlink()

    @contextlib.contextmanager
    def _servers(self) -> Iterator[list[str]]:
        """The pool's URLs; embedded servers are started, and stopped again whatever happens."""
        embedded = embedded_pool(self._settings, self._run_dir)
        if embedded is None:
            yield list(self._settings.servers.urls)
            return
        try:
            yield embedded.start()
        finally:
            embedded.stop()

    def _order(self, urls: list[str]) -> dict[str, Any]:
        return {
            "settings": self._settings.model_dump_json(by_alias=True),
            "urls": urls,
            "run_dir": str(self._run_dir.resolve()),
            "cwd": str(Path.cwd()),
            "sys_path": [path or str(Path.cwd()) for path in sys.path],
        }

    def _note_failure(self, error: LbrunError) -> None:
        from lbrun.results.result import replace_json

        document = read_result(self._run_dir) or dict(self._static)
        state = "interrupted" if isinstance(error, Interrupted) else "broken"
        if not has_records(self._run_dir):  # there was no test, so that LoadGen has issued nothing
            document |= {
                counts: dict.fromkeys(document[counts], 0)
                for counts in ("samples", "attempts")
                if isinstance(document.get(counts), dict)
            }
        lines = self._redactor.redact_all(str(error).splitlines())
        document |= {"state": state, "errors": lines, "exit_status": error.exit_status}
        with contextlib.suppress(OSError):
            replace_json(self._run_dir / "result.json", document)

    def _tell(self, result: ResultFile, end: ChildEnd, conclusion: Conclusion) -> int:
        """Write result, summary and report, and show the summary."""
        from lbrun.results.report import write_report
        from lbrun.results.result import replace_text
        from lbrun.results.summary import FILE_NAME, WIDTH, render_summary
        from lbrun.terminal.output import columns, is_terminal, show

        outcome = conclusion.outcome.redacted(self._redactor.redact)
        trouble = []
        try:
            result.finish(outcome)
        except OSError as error:
            trouble.append(f"result.json could not be written: {error}")
        if self._settings.report.html and conclusion.has_records:
            try:
                write_report(outcome, self._run_dir)
            except Exception as error:  # plots may fail in many ways, and the result stands without them
                show(f"report.html could not be written: {type(error).__name__}: {error}\n", sys.stderr)
        summary = render_summary(outcome, self._run_dir)
        try:
            replace_text(self._run_dir / FILE_NAME, summary)
        except OSError as error:
            trouble.append(f"{FILE_NAME} could not be written: {error}")
        width, colour = columns(sys.stdout, WIDTH), is_terminal(sys.stdout)
        show(render_summary(outcome, self._run_dir, width=width, colour=colour))
        if trouble:
            raise RunFailed("\n".join(trouble))
        if end.interrupts:
            return EXIT_INTERRUPTED
        return outcome.judgement.exit_status
