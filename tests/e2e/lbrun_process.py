"""lbrun as its users have it: a command in a process of its own, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from lbrun.results.events import read_events
from lbrun.results.records import read_requests

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("scenario.trial.min_query_count=24", "dataset.max_samples=24")
"""A run that is over in a moment: each of 24 samples once."""
SMALL_SERVER = (*SMALL, "scenario.percentile=0.8")
"""The same in the Server scenario, where LoadGen wants 459 queries to be sure of a 99th percentile."""

EXIT_STATUS = {"VALID": 0, "INVALID": 3, "FAILED": 1}
RESULT_KEYS = {
    "schema", "verdict", "official", "model", "scenario", "mode", "strategy", "samples", "attempts",
    "metrics", "servers", "errors", "environment", "config",
}  # fmt: skip
SERVER_KEYS = {"url", "requests", "completed", "failed", "ejections", "recoveries"}

_MARK = "LBRUN_TEST_COMMAND"
"""An environment variable by which the processes of a command are known, whoever their parent is by now."""

_T = TypeVar("_T")


def wait_until(look: Callable[[], _T], what: str, timeout_s: float = 30.0) -> _T:
    """Look until there is something, and return it; fail after the timeout, saying what did not come."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.02)
    return seen


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False  # it has ended, or is nobody of ours


def loadgen_log(folder: Path) -> dict[str, list[Any]]:
    """The values of LoadGen's detail log by their keys, also of one that was set aside."""
    values: dict[str, list[Any]] = {}
    for path in (folder / "mlperf").glob("mlperf_log_detail*.txt"):
        for line in path.read_text().splitlines():
            if line.startswith(":::MLLOG "):
                entry = json.loads(line.removeprefix(":::MLLOG "))
                values.setdefault(entry["key"], []).append(entry["value"])
    return values


@dataclass(frozen=True)
class Ended:
    """A command that has ended. folder: of its run, or of its sweep."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return document

    @property
    def records(self) -> Any:
        """The per-sample records, a pyarrow table."""
        return read_requests(self.folder)

    @property
    def headline(self) -> str:
        """The first line of standard output."""
        return self.out.partition("\n")[0]

    @property
    def told(self) -> list[str]:
        """What lbrun told on standard error, without the lines of its progress."""
        return [line for line in self.err.splitlines() if not line.startswith("[")]

    @property
    def complaint(self) -> list[str]:
        """The error that it ended with, from ``lbrun: ...`` on."""
        return [line for line in self.told if not line.startswith("warning: ")]

    def check_books(self) -> dict[str, Any]:
        """What is true of every run that LoadGen has ended, whatever its verdict; returns result.json."""
        result, records = self.result, self.records
        assert result.keys() >= RESULT_KEYS
        assert result["schema"] == 1
        assert result["environment"]
        assert result["config"]["model"]["name"] == result["model"]
        assert self.headline.startswith(f"{result['verdict']}, "), self.headline
        if result["state"] != "interrupted":
            assert self.status == EXIT_STATUS[result["verdict"]]
        assert result["exit_status"] == self.status
        assert bool(result["errors"]) == (result["verdict"] != "VALID")

        samples = result["samples"]
        assert samples["issued"] == samples["completed"] + samples["failed"]
        assert records.num_rows == samples["issued"]
        assert records.num_rows - records.column("failure").null_count == samples["failed"]
        query_ids = records.column("query_id").to_pylist()
        assert len(set(query_ids)) == len(query_ids)
        assert "complete a sample twice" not in json.dumps(loadgen_log(self.folder))

        for server in result["servers"]:
            assert server.keys() >= SERVER_KEYS
            assert server["requests"] == server["completed"] + server["failed"]
        assert sum(server["completed"] for server in result["servers"]) == samples["completed"]
        if samples["failed"] == 0:
            assert result["verdict"] in ("VALID", "INVALID")
            assert sum(server["requests"] for server in result["servers"]) == result["attempts"]["total"]
            assert result["attempts"]["total"] == samples["issued"] + result["attempts"]["retried"]
        else:
            assert result["verdict"] == "FAILED"
        return result


class Running:
    """A command on its way. folder: where its run, or sweep, is written."""

    def __init__(
        self, process: subprocess.Popen[bytes], folder: Path, out: Path, err: Path, mark: str
    ) -> None:
        self.process, self.folder = process, folder
        self._out, self._err, self._mark = out, err, mark

    def wait(self, timeout_s: float = 60.0) -> Ended:
        """Wait for its end; one that does not end in time is killed, and the test fails."""
        status = self.process.wait(timeout_s)
        return Ended(status, self._out.read_text(), self._err.read_text(), self.folder)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that the user started, and to no other."""
        self.process.send_signal(number)

    def until(self, look: Callable[[], _T], what: str, timeout_s: float = 30.0) -> _T:
        """Wait for something to happen while the command runs; fail at once when it has ended before."""

        def look_at_it() -> _T | None:
            if seen := look():
                return seen
            status = self.process.poll()
            assert status is None, f"ended with status {status} before: {what}\n{self._err.read_text()}"
            return None

        return wait_until(look_at_it, what, timeout_s)  # type: ignore[return-value]

    def until_state(self, url: str, *states: str) -> dict[str, Any]:
        """Wait until ``events.jsonl`` says that a server has come to one of the states."""
        return self.until(
            lambda: [e for e in self.events() if e.get("server") == url and e.get("to") in states],
            f"{url} becomes {' or '.join(states)}",
        )[-1]

    def events(self) -> list[dict[str, Any]]:
        """What has happened to the servers so far."""
        return list(read_events(self.folder))

    def says(self, text: str) -> bool:
        """Whether it has shown this on standard error, where progress goes."""
        return text in self._err.read_text()

    def family(self) -> list[psutil.Process]:
        """The processes that it has started and that have not ended, also those that outlived it."""
        return [
            process
            for process in psutil.process_iter()
            if process.pid != self.process.pid and _is_marked(process, self._mark)
        ]

    def test_process(self) -> psutil.Process:
        """The process in which LoadGen's test happens."""

        def look() -> psutil.Process | None:
            for process in self.family():
                try:
                    if "lbrun.run.child" in process.cmdline():
                        return process
                except psutil.Error:
                    continue
            return None

        return self.until(look, "the test has a process")

    def end(self) -> None:
        """End it with all that it has started, for the end of a test."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


class Lbrun:
    """Starts ``python -m lbrun`` below a folder, which is the current one of every command."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._started: list[Running] = []

    def start(
        self, *arguments: str, folder: str = "run", report: bool = False, env: Mapping[str, str] | None = None
    ) -> Running:
        """Start a command; its run is written to `folder`. report: with report.html."""
        many = "-m" in arguments
        where = f"hydra.{'sweep' if many else 'run'}.dir={folder}"
        extra = [where, *([] if report else ["report.html=false"])]
        return self.start_plain(*arguments, *extra, folder=folder, env=env)

    def start_plain(
        self, *arguments: str, folder: str = "outputs", env: Mapping[str, str] | None = None
    ) -> Running:
        """Start a command exactly as given. folder: where its files will be looked for."""
        number = len(self._started)
        out, err = self.base / f"stdout-{number}.txt", self.base / f"stderr-{number}.txt"
        # files, not pipes: whoever holds the other end of a pipe could outlive a killed command
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "lbrun", *arguments],
                cwd=self.base,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**_environment(), _MARK: str(out), **(env or {})},
                start_new_session=True,
            )
        running = Running(process, self.base / folder, out, err, mark=str(out))
        self._started.append(running)
        return running

    def __call__(
        self, *arguments: str, folder: str = "run", report: bool = False, env: Mapping[str, str] | None = None
    ) -> Ended:
        """Run a command to its end."""
        return self.start(*arguments, folder=folder, report=report, env=env).wait()

    def all(self, commands: Mapping[str, Sequence[str]]) -> dict[str, Ended]:
        """Run commands side by side, where nothing depends on their speed; keys are their folders."""
        started = [self.start(*arguments, folder=folder) for folder, arguments in commands.items()]
        return {folder: run.wait() for folder, run in zip(commands, started, strict=True)}

    def end(self) -> None:
        """End whatever still runs."""
        for running in self._started:
            running.end()


def urls(servers: Iterable[str]) -> str:
    """The override that makes these servers the pool."""
    return f"servers.urls=[{','.join(servers)}]"


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
