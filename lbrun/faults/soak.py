"""One long run under faults that never stop, while its memory and descriptors are watched."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lbrun.faults.command import NotInTimeError
from lbrun.faults.evidence import Evidence
from lbrun.faults.harness import gather, judge
from lbrun.faults.scenario import Expected, Mode, Row, Scenario
from lbrun.faults.stage import Stage

QPS = 60.0
_ROUND_S = 4.0
_SAMPLE_S = 1.0
_MAX_GROWTH_MIB = 24.0
"""Between the second quarter of a soak and its last; LoadGen keeps some bytes of every query for its end."""
_BYTES_PER_QUERY = 512
_MAX_MORE_DESCRIPTORS = 16
_TEST = "lbrun.run.child"
_KINDS = (
    "status_500*0.5",
    "reset_mid_stream*0.3",
    "reset_before_headers*0.3",
    "malformed_sse*0.3",
    "error_event_then_done*0.3",
    "status_429=1*0.5",
    "status_503_loading",
    "slow_factor=5",
    "split_packets",
    "empty_body*0.5",
    "hang_before_headers*0.05",
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the test's process holds at a moment; at_s: seconds of the soak."""

    at_s: float
    rss_mib: float
    descriptors: int


@dataclass(frozen=True, slots=True)
class Soak:
    """What came of it. faults: how many were made. usage: a sample a second."""

    row: Row
    faults: int
    usage: Sequence[Usage]

    def quarter(self, n: int) -> Sequence[Usage]:
        """The nth quarter of the soak, from 0."""
        end_s = self.usage[-1].at_s
        return [u for u in self.usage if n * end_s / 4 <= u.at_s <= (n + 1) * end_s / 4]

    def medians(self) -> list[tuple[float, float]]:
        """Memory in MiB and descriptors, by quarters; nothing of a soak that was never looked at."""
        return [_medians(self.quarter(n)) for n in range(4)] if self.usage else []

    def describe(self) -> str:
        """The same in a line each."""
        return "\n".join(
            f"quarter {n}: {rss:6.1f} MiB, {fds:4.0f} descriptors (medians)"
            for n, (rss, fds) in enumerate(self.medians(), 1)
        )


def _medians(usage: Sequence[Usage]) -> tuple[float, float]:
    return statistics.median(u.rss_mib for u in usage), statistics.median(u.descriptors for u in usage)


def not_flat(usage: Sequence[Usage], queries: int) -> list[str]:
    """What has grown between the second quarter and the last, beyond what LoadGen keeps of every query."""
    if len(usage) < 8:
        return [f"only {len(usage)} looks at memory and descriptors"]
    quarter = len(usage) // 4
    (rss_0, fds_0), (rss_1, fds_1) = _medians(usage[quarter : 2 * quarter]), _medians(usage[3 * quarter :])
    allowed = _MAX_GROWTH_MIB + queries * _BYTES_PER_QUERY / (1 << 20)
    problems = []
    if rss_1 - rss_0 > allowed:
        problems.append(
            f"memory has grown from {rss_0:.0f} to {rss_1:.0f} MiB, {allowed:.0f} MiB are allowed"
        )
    if fds_1 - fds_0 > _MAX_MORE_DESCRIPTORS:
        problems.append(f"descriptors have grown from {fds_0:.0f} to {fds_1:.0f}")
    return problems


def soak(minutes: float, seed: int = 0, keep: Path | None = None) -> Soak:
    """Let a run in the Server scenario last so long, with a new fault every few seconds."""
    duration_s = minutes * 60
    usage: list[Usage] = []
    faults: list[str] = []
    scenario = Scenario(
        name="soak",
        about=f"{minutes:g} minutes of rolling faults",
        act=partial(_roll, duration_s=duration_s, random=random.Random(seed), usage=usage, faults=faults),  # noqa: S311
        expected=Expected(),
        overrides=(
            f"scenario.trial.min_duration_s={duration_s:g}",
            "scenario.first_byte_timeout_s=10",
            "client.idle_timeout_s=5",
        ),
        samples=1,
        target_qps=QPS,
        bound_s=duration_s * 1.2 + 120,
    )
    base = Path(tempfile.mkdtemp(prefix="lbrun-soak-"))
    began_s = time.monotonic()
    stage = Stage(scenario, Mode.SERVER, base, deadline_s=began_s + scenario.bound_s)
    evidence: Evidence | None = None
    try:
        row = Row(scenario=scenario.name, mode=Mode.SERVER, verdict="-")
        try:
            scenario.act(stage)
            evidence = gather(stage, stage.run.wait())
            row = judge(scenario, evidence, time.monotonic() - began_s)
            problems = [*row.problems, *not_flat(usage, row.requests // 2)]
        except NotInTimeError as error:
            problems = [str(error)]
        row = replace(row, problems=tuple(problems))
        if problems and keep is not None:
            shutil.copytree(base, keep / "soak", dirs_exist_ok=True)
        return Soak(row, len(faults), usage)
    finally:
        stage.end()
        shutil.rmtree(base, ignore_errors=True)


def _roll(
    stage: Stage, *, duration_s: float, random: random.Random, usage: list[Usage], faults: list[str]
) -> None:
    """One fault after the other, on one server at a time, so that two always work."""
    stage.start()
    stage.until_busy()
    (pid,) = stage.until(lambda: stage.run.family(_TEST), "the test has a process")
    began_s = time.monotonic()
    end_s = began_s + duration_s - 2 * _ROUND_S
    while time.monotonic() < end_s:
        server = random.randrange(len(stage.servers))
        kind = random.choice(("kill", "freeze", *_KINDS))
        faults.append(kind)
        if kind == "kill":
            stage.servers.kill(server)
        elif kind == "freeze":
            stage.servers.freeze(server)
        else:
            stage.servers.have(server, kind)
        _watch(stage, pid, began_s, usage, _ROUND_S * (3 if kind == "freeze" else 1))
        if kind == "kill":
            stage.servers.restart(server)
            stage.until(partial(stage.servers.answers, server), "the killed server answers")
        elif kind == "freeze":
            stage.servers.thaw(server)
        else:
            stage.servers.heal(server)
        _watch(stage, pid, began_s, usage, _ROUND_S)


def _watch(stage: Stage, pid: int, began_s: float, usage: list[Usage], seconds: float) -> None:
    for _ in range(round(seconds / _SAMPLE_S)):
        usage.append(_usage(pid, time.monotonic() - began_s))
        stage.linger(_SAMPLE_S)


def _usage(pid: int, at_s: float) -> Usage:
    process = Path("/proc") / str(pid)
    pages = int((process / "statm").read_text().split()[1])
    return Usage(at_s, pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), len(list((process / "fd").iterdir())))
