"""What a scenario acts on: the pool, the run, and the clock notes of what was done to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from lbrun.faults.command import Command
from lbrun.faults.evidence import OUT, Mark
from lbrun.faults.scenario import Mode, Scenario
from lbrun.faults.servers import Servers

_T = TypeVar("_T")
_IN_FLIGHT_EACH = 16


class Stage:
    """The scene of one scenario. `start` begins the run; whatever is started ends with `end`.

    given_up: once it is set, nothing is waited for any more.
    urls: what the run is told of the pool; a scenario may put something between. wrapper, environment: of the
    command. notes: what a scenario has seen itself, for its own check.
    """

    VICTIM = 1
    """The server that single faults strike; the others are well."""

    def __init__(
        self,
        scenario: Scenario,
        mode: Mode,
        base: Path,
        deadline_s: float,
        given_up: threading.Event | None = None,
    ) -> None:
        self.mode, self.base, self.folder = mode, base, base / "run"
        self.marks: list[Mark] = []
        self.last_fault_s: float | None = None
        self.wrapper: Sequence[str] = ()
        self.environment: Mapping[str, str] = {}
        self.notes: dict[str, Any] = {}
        self.on_end: list[Callable[[], object]] = []
        self._scenario, self._deadline_s = scenario, deadline_s
        self._given_up = given_up or threading.Event()
        self._servers: Servers | None = None
        self._run: Command | None = None
        self.urls: Sequence[str] = ()

    # ---- pool and run

    def open_pool(self, **where: Any) -> Servers:
        """Start the pool (see `Servers` for `where`); done before `start` unless a scenario does it."""
        self._servers = Servers(self._scenario.servers or {}, self.base / "servers", **where)
        self.urls = self._servers.urls
        return self._servers

    @property
    def servers(self) -> Servers:
        """The pool."""
        return self.open_pool() if self._servers is None else self._servers

    @property
    def has_pool(self) -> bool:
        """Whether there is a pool of the stage's own."""
        return self._servers is not None

    @property
    def run(self) -> Command:
        """The run that `start` began."""
        if self._run is None:
            raise RuntimeError("the scenario has not started its run")
        return self._run

    @property
    def has_ended(self) -> bool:
        """Whether the run has begun and is over."""
        return self._run is not None and self._run.ended

    def start(self, *overrides: str, slow: bool | None = None) -> None:
        """Start the run. slow: make the pool slow first, until `finish`; by default in Offline mode.

        In Server mode queries come at a rate, so that nothing is gained by slowness.
        """
        scenario = self._scenario
        pool = ["servers=embedded"]
        if scenario.servers is not None:
            if slow or (slow is None and self.mode is Mode.OFFLINE):
                self.servers.slow_down()
            self.servers  # noqa: B018 - it is opened by being asked for
            pool = [f"servers.urls=[{','.join(self.urls)}]"]
        arguments = [*pool, *_load(scenario, self.mode), *scenario.overrides, *overrides]
        by_key = {argument.partition("=")[0]: argument for argument in arguments}  # the last one wins
        self._run = Command(
            self.folder,
            list(by_key.values()),
            wrapper=self.wrapper,
            environment=self.environment,
            deadline_s=self._deadline_s,
            given_up=self._given_up,
        )

    def finish(self) -> None:
        """Let the run come to its end soon."""
        if self._servers is not None:
            self._servers.hurry()

    def end(self) -> None:
        """End whatever still runs; harmless when called again."""
        if self._run is not None:
            self._run.end()
        while self.on_end:
            self.on_end.pop()()
        if self._servers is not None:
            self._servers.stop()

    # ---- faults, noted

    def breaks(self, *servers: int) -> None:
        """Note that these servers fail from now on."""
        self.last_fault_s = time.time()
        self.marks += [Mark(server, self.last_fault_s) for server in servers]

    def mends(self, *servers: int) -> None:
        """Note that these servers can serve again from now on."""
        now_s = time.time()
        for server in servers:
            next(mark for mark in reversed(self.marks) if mark.server == server).mended_s = now_s

    def kill(self, *servers: int) -> None:
        """SIGKILL, noted."""
        self.breaks(*servers)
        for server in servers:
            self.servers.kill(server)

    def restart(self, *servers: int) -> None:
        """Start killed servers again, noted when they answer."""
        for server in servers:
            self.servers.restart(server)
        for server in servers:
            self.until(lambda server=server: self.servers.answers(server), f"server {server} answers")  # type: ignore[misc]
            self.mends(server)
            self.servers.resume(server)

    def strike(self, server: int, *faults: str) -> None:
        """Let a server have faults, noted."""
        self.breaks(server)
        self.servers.have(server, *faults)

    def heal(self, server: int) -> None:
        """Take them away, noted."""
        self.servers.heal(server)
        self.mends(server)

    # ---- waiting for events, never for times

    def until(self, look: Callable[[], _T], what: str) -> _T:
        """Look until there is something, while the run lasts. Raises NotInTimeError."""
        return self.run.until(look, what)

    def until_busy(self, *servers: int, answered: int = 3) -> None:
        """Until these servers have answered some requests of the run; the first is the trial before it."""
        for server in servers or range(len(self.servers)):
            self.until(
                lambda server=server: self.servers.finished(server) >= answered,  # type: ignore[misc]
                f"server {server} is at work",
            )

    def until_out(self, *servers: int) -> None:
        """Until these servers have been taken out since they were broken."""
        for server in servers:
            self._until_state(server, OUT, self._mark(server).broke_s)

    def is_out(self, server: int) -> bool:
        """Whether a server is out of service now, by what the run has noted."""
        states = [event["to"] for event in self.run.events() if event.get("server") == self.urls[server]]
        return bool(states) and states[-1] in OUT

    def until_back(self, *servers: int) -> None:
        """Until these servers are in service again, since they were mended."""
        for server in servers:
            self._until_state(server, ("ready",), self._mark(server).mended_s or 0.0)

    def until_running(self) -> None:
        """Until the test has begun."""
        self.until(lambda: (self.folder / "requests.arrows").exists(), "the test has begun")

    def linger(self, seconds: float) -> None:
        """Let a fault last: for faults that are defined by their duration."""
        end_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end_s, f"{seconds:g} s pass")

    def _mark(self, server: int) -> Mark:
        return next(mark for mark in reversed(self.marks) if mark.server == server)

    def _until_state(self, server: int, states: Sequence[str], since_s: float) -> None:
        def look() -> bool:
            return any(
                event.get("server") == self.urls[server]
                and event.get("to") in states
                and datetime.fromisoformat(event["ts"]).timestamp() >= since_s - 0.001
                for event in self.run.events()
            )

        self.until(look, f"server {server} becomes {' or '.join(states)}")


def _load(scenario: Scenario, mode: Mode) -> list[str]:
    count = f"scenario.trial.min_query_count={scenario.samples}"
    common = ["rules=trial", f"scenario={mode}", count, "report.html=false", "report.record_outputs=true"]
    if mode is Mode.OFFLINE:
        return [*common, f"servers.max_in_flight={_IN_FLIGHT_EACH}"]
    # what a fault costs in latency is no matter here
    limits = ["scenario.ttft_limit_ms=600000", "scenario.tpot_limit_ms=600000"]
    return [*common, f"scenario.target_qps={scenario.target_qps:g}", *limits]
