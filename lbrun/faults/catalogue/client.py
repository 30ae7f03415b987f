"""What happens to lbrun itself: no descriptors, no disk, a jumping clock, signals, and kill -9."""

from __future__ import annotations

import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable

from lbrun.errors import EXIT_FAILED, EXIT_INTERRUPTED
from lbrun.faults.evidence import Evidence
from lbrun.faults.limits import wrapper
from lbrun.faults.scenario import ANSWERED, Expected, Mode, Scenario
from lbrun.faults.stage import Stage
from lbrun.faults.wall_clock import JumpingClock, no_compiler

_DESCRIPTORS = 96
_IN_FLIGHT = 64
_FILE_BYTES = 200_000
_DISK = "400k"
_HOUR_S = 3600
_DRAIN_S = 5.0
_GONE_WITHIN_S = _DRAIN_S + 5.0
_MANY_IN_FLIGHT = 10_000
_ALL_AT_ONCE = 10_240
_TWO_WORKERS = ("client.workers=2",)
_WORKER = "lbrun.workers.process"
_TEST = "lbrun.run.child"
_INTERRUPTED = Expected(
    exit_status=frozenset({EXIT_INTERRUPTED}),
    lost=(1, None),
    says=("interrupted",),
    ends_within_s=_GONE_WITHIN_S,
)


# ---- resources


def _few_descriptors(stage: Stage) -> None:
    stage.wrapper = wrapper(NOFILE=_DESCRIPTORS)
    stage.start(f"servers.max_in_flight={_IN_FLIGHT}", slow=False)


def _met_local(evidence: Evidence) -> list[str]:
    met = {attempt["failure"] for row in evidence.rows for attempt in row["attempts"] or ()}
    return [] if "LOCAL" in met else [f"no attempt was short of a descriptor; failures: {met or 'none'}"]


def _small_files(stage: Stage) -> None:
    stage.wrapper = wrapper(FSIZE=_FILE_BYTES)
    stage.start(slow=False)


def _small_disk(stage: Stage) -> None:
    stage.folder.mkdir()
    mount, umount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    options = ["-t", "tmpfs", "-o", f"size={_DISK}", "lbrun-faults", str(stage.folder)]
    subprocess.run([mount, *options], check=True, capture_output=True)  # noqa: S603 - by its full path
    stage.on_end.append(
        lambda: subprocess.run([umount, "-l", str(stage.folder)], check=False, capture_output=True)  # noqa: S603
    )
    stage.start(slow=False)


def _no_mount() -> str | None:
    return None if os.geteuid() == 0 and shutil.which("mount") else "mounting a small disk needs root"


def _told_of_the_disk(evidence: Evidence) -> list[str]:
    """A disk that is full at the end cannot take the result: the one from the start says FAILED, too."""
    problems = [] if evidence.result.get("verdict") == "FAILED" else ["the verdict is not FAILED"]
    said = " ".join(evidence.result.get("errors", ())) + evidence.told + str(evidence.notes.get("output"))
    told = any(word in said for word in ("No space left", "File too large", "the run was cut"))
    return problems if told else [*problems, f"nothing is said of the disk: {said[:200]}"]


def _everything_in_flight(stage: Stage) -> None:
    stage.start(f"servers.max_in_flight={_ALL_AT_ONCE}", slow=False)


def _enough_descriptors() -> str | None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _ALL_AT_ONCE + 1000
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return None
    return f"10,000 connections need {needed} descriptors, the hard limit is {hard}"


def _all_in_flight(evidence: Evidence) -> list[str]:
    peak = evidence.in_flight_peak
    return [] if peak >= _MANY_IN_FLIGHT else [f"only {peak} requests were in flight at once"]


def _clock_jumps(stage: Stage) -> None:
    clock = JumpingClock(stage.base)
    stage.environment = clock.environment
    stage.start()
    stage.until_busy(0)
    clock.jump(_HOUR_S)
    stage.kill(stage.VICTIM)
    stage.linger(2.0)
    stage.servers.restart(stage.VICTIM)
    stage.until(lambda: stage.servers.answers(stage.VICTIM), "the server answers")
    stage.finish()
    stage.marks.clear()  # events carry the wall clock's times


def _clock_goes_back(stage: Stage) -> None:
    clock = JumpingClock(stage.base)
    clock.jump(_HOUR_S)
    stage.environment = clock.environment
    stage.start()
    stage.until_busy(0)
    stage.breaks()
    clock.jump(0)


def _clock_did_not_matter(evidence: Evidence) -> list[str]:
    times = [event["at_s"] for event in evidence.events]
    jumped = any(later - earlier > _HOUR_S / 2 for earlier, later in itertools.pairwise(times))
    problems = [] if jumped else ["no event shows that the clock has jumped"]
    slow = [row for row in evidence.rows if row["done_ns"] - row["issued_ns"] > 60e9]
    return problems + ([f"{len(slow)} samples took over a minute"] if slow else [])


# ---- signals


def _signalled(number: signal.Signals, times: int) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        stage.start()
        stage.until_busy()
        stage.breaks()
        for n in range(times):
            if n:
                stage.until(lambda: "interrupted: draining" in stage.run.told, "it has heard the first one")
            stage.run.send(number)
        if times == 1:
            stage.servers.hurry()

    return act


def _sigterm_before_ready(stage: Stage) -> None:
    for server in range(len(stage.servers)):
        stage.servers.have(server, "status_503_loading")
    stage.start()
    stage.until(lambda: "waiting for 3 servers" in _log(stage), "it waits for the servers")
    stage.breaks()
    stage.run.send(signal.SIGTERM)


def _log(stage: Stage) -> str:
    try:
        return (stage.folder / "lbrun.log").read_text(errors="replace")
    except OSError:
        return ""


def _kill_worker(times: int) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        stage.start()
        stage.until_busy()
        for worker in stage.until(lambda: _two_of(stage), "both workers are there")[:times]:
            stage.breaks()
            os.kill(worker, signal.SIGKILL)
            stage.until(lambda worker=worker: worker not in stage.run.family(_WORKER), "it is gone")  # type: ignore[misc]
            stage.until(lambda: _two_of(stage), "another took its place")

    return act


def _two_of(stage: Stage) -> list[int]:
    workers = stage.run.family(_WORKER)
    return workers if len(workers) == 2 else []


def _kill_test(stage: Stage) -> None:
    stage.start()
    stage.until_busy()
    stage.until_running()
    stage.linger(1.2)  # records are written once a second
    stage.breaks()
    for pid in stage.run.family(_TEST):
        os.kill(pid, signal.SIGKILL)


def _kill_lbrun(moment: str) -> Callable[[Stage], None]:
    """SIGKILL for the process that the user started; its servers and its test must not outlive it."""

    def act(stage: Stage) -> None:
        stage.start()
        stage.until(lambda: (stage.folder / "result.json").exists(), "the run has a folder")
        if moment == "midway":
            stage.until_running()
            stage.linger(1.0)
        elif moment.startswith("random"):
            stage.linger(random.SystemRandom().uniform(0.0, 6.0))
        stage.breaks()
        stage.run.send(signal.SIGKILL)
        stage.run.until(
            lambda: not stage.run.family(), "all that it had started is gone", also_after_end=True
        )

    return act


_OWN_POOL = (
    "servers.embedded.slots=4",
    "servers.embedded.tpot_ms=10",
)
"""Slow enough for a run to last, whenever it is killed."""


SCENARIOS = (
    Scenario(
        name="in_flight_10000",
        about="10,240 requests are sent at once, each takes 20 s",
        act=_everything_in_flight,
        servers={"slots": 4096, "ttft_base_ms": 20_000.0, "tpot_ms": 0.0, "output_tokens_mean": 8.0},
        expected=Expected(stays_in=True),
        modes=(Mode.OFFLINE,),
        samples=_ALL_AT_ONCE,
        bound_s=180.0,
        unless=_enough_descriptors,
        check=_all_in_flight,
        alone=True,
    ),
    Scenario(
        name="few_descriptors",
        about=f"lbrun may open {_DESCRIPTORS} files, and wants {3 * _IN_FLIGHT} connections",
        act=_few_descriptors,
        servers={"slots": 64, "ttft_base_ms": 200.0},
        expected=Expected(stays_in=True),
        modes=(Mode.OFFLINE,),
        samples=512,
        check=_met_local,
    ),
    Scenario(
        name="file_size_limit",
        about=f"no file may grow beyond {_FILE_BYTES:,} bytes",
        act=_small_files,
        expected=Expected(exit_status=frozenset({EXIT_FAILED, *ANSWERED}), lost=(0, None), cut=True),
        modes=(Mode.OFFLINE,),
        samples=2048,
        check=_told_of_the_disk,
    ),
    Scenario(
        name="disk_full",
        about=f"the run's folder is on a disk of {_DISK}",
        act=_small_disk,
        expected=Expected(exit_status=frozenset({EXIT_FAILED}), lost=(0, None), cut=True),
        modes=(Mode.OFFLINE,),
        samples=2048,
        unless=_no_mount,
        check=_told_of_the_disk,
    ),
    Scenario(
        name="clock_goes_back",
        about="the wall clock is put back by an hour: LoadGen would wait for it, the run ends and says why",
        act=_clock_goes_back,
        expected=Expected(
            exit_status=frozenset({EXIT_FAILED}), lost=(0, None), says=("back by 3,600",), ends_within_s=5.0
        ),
        unless=no_compiler,
    ),
    Scenario(
        name="clock_jumps",
        about="the wall clock is put forward by an hour, a server dies and returns: the run says that "
        "LoadGen's times are wrong",
        act=_clock_jumps,
        expected=Expected(exit_status=frozenset({EXIT_FAILED}), says=("forward by 3,600",)),
        unless=no_compiler,
        check=_clock_did_not_matter,
    ),
    Scenario(
        name="sigint_once",
        about="Ctrl-C: what is in flight may end, the rest is given up",
        act=_signalled(signal.SIGINT, 1),
        expected=_INTERRUPTED,
        quick=(Mode.OFFLINE,),
    ),
    Scenario(
        name="sigint_twice",
        about="Ctrl-C twice: it ends at once",
        act=_signalled(signal.SIGINT, 2),
        expected=Expected(
            exit_status=frozenset({EXIT_INTERRUPTED}),
            lost=(0, None),
            says=("interrupted",),
            ends_within_s=5.0,
        ),
    ),
    Scenario(
        name="sigterm",
        about="SIGTERM in the middle of the test, as Ctrl-C",
        act=_signalled(signal.SIGTERM, 1),
        expected=_INTERRUPTED,
        modes=(Mode.SERVER,),
    ),
    Scenario(
        name="sigterm_before_ready",
        about="SIGTERM while lbrun waits for its servers",
        act=_sigterm_before_ready,
        expected=Expected(
            exit_status=frozenset({EXIT_INTERRUPTED}), says=("interrupted",), ends_within_s=5.0
        ),
        modes=(Mode.OFFLINE,),
    ),
    Scenario(
        name="worker_killed",
        about="one of two worker processes is killed: it is started again",
        act=_kill_worker(1),
        overrides=_TWO_WORKERS,
        expected=Expected(stays_in=True),
    ),
    Scenario(
        name="workers_killed",
        about="both worker processes are killed, one after the other",
        act=_kill_worker(2),
        overrides=_TWO_WORKERS,
        expected=Expected(stays_in=True),
        modes=(Mode.OFFLINE,),
    ),
    Scenario(
        name="test_killed",
        about="the process of the test is killed: the other one writes what is known",
        act=_kill_test,
        samples=2048,
        expected=Expected(
            exit_status=frozenset({EXIT_FAILED}), lost=(0, None), says=("SIGKILL",), ends_within_s=10.0
        ),
    ),
    *(
        Scenario(
            name=f"kill9_{moment}",
            about=f"kill -9 of lbrun {when}: files readable, servers and test gone",
            act=_kill_lbrun(moment),
            servers=None,
            overrides=_OWN_POOL,
            expected=Expected(lost=(0, None), cut=True, says=("the run was cut",)),
            modes=modes,
            samples=2048,
        )
        for moment, when, modes in (
            ("early", "before its test has begun", (Mode.OFFLINE,)),
            ("midway", "in the middle of the test", (Mode.OFFLINE, Mode.SERVER)),
            ("random", "at a random moment from its first file on", (Mode.OFFLINE, Mode.SERVER)),
            ("random_2", "at another random moment", (Mode.OFFLINE, Mode.SERVER)),
        )
    ),
)
