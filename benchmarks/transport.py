"""What the data plane alone costs: CPU of its process per request, and per 100,000 chunks of a stream.

    python -m benchmarks.transport CASE [--seconds 3] [--profile]

A case is measured for some seconds once every connection has carried an answer, so that start-up is not in
the figures. The memory is what the process grew by, per attempt in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Figure, median_figure
from benchmarks.machine import REPOSITORY
from benchmarks.server import Answers, running
from lbrun.attempt import AttemptFailure, AttemptResult
from lbrun.formats import FormatOptions, make_format
from lbrun.formats.api import RequestFormat
from lbrun.transport import InlineWorker, make_endpoint, raise_descriptor_limit

TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Case:
    """in_flight: attempts, at all times. target: us a request, or for streams seconds per 100,000 chunks."""

    key: str
    title: str
    in_flight: int
    answers: Answers
    target: float


CASES = (
    Case("transport_64_us", "whole answers, 64 in flight", 64, Answers(), 15),
    Case("transport_1024_us", "whole answers, 1,024 in flight", 1024, Answers(), 15),
    Case("transport_burst_s", "128-chunk streams in a burst", 64, Answers(128), 0.10),
    Case("transport_burst_1000_s", "1,000-chunk streams in a burst", 64, Answers(1000), 0.10),
    Case("transport_paced_s", "128-chunk streams, paced", 256, Answers(128, 5_000), 1.0),
    Case("transport_10000_s", "10,000 streams in flight, paced", 10_000, Answers(16, 200_000), 1.0),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """n: requests that were measured. cpu_us: each. s_per_100k_chunks: of streams. kb_each: in flight."""

    n: int
    cpu_us: float
    s_per_100k_chunks: float | None
    kb_each: float


class Load:
    """An `AttemptSink` that sends an attempt for each that is completed."""

    def __init__(self, worker: InlineWorker, n_bodies: int) -> None:
        self.worker, self.n_bodies = worker, n_bodies
        self.n_completed = self.n_first_tokens = self.next_id = 0
        self.failure: AttemptFailure | None = None

    def send(self) -> None:
        """Submit one more."""
        attempt_id = self.next_id
        self.next_id = attempt_id + 1
        self.worker.submit(attempt_id, attempt_id % self.n_bodies, 0)

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        """Count."""
        self.n_first_tokens += 1

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        """Count, and keep the number in flight."""
        self.n_completed += 1
        self.send()

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        """None should."""
        self.failure = failure


async def measure(case: Case, port: int, seconds: float, profile: cProfile.Profile | None = None) -> Cost:
    """The cost in a window in which the case runs undisturbed."""
    answers = case.answers
    options = FormatOptions(model="llama", backend="vllm", stream=answers.chunks > 0, prompt="text")
    request_format: RequestFormat = make_format("completions", options)
    bodies = [b'{"prompt":"' + b"x" * 1000 + b'"}'] * 1000
    endpoint = make_endpoint(f"http://127.0.0.1:{port}", request_format.path)
    worker = InlineWorker([endpoint], bodies, request_format)
    load = Load(worker, len(bodies))
    worker.start(load)
    gc.collect()
    gc.freeze()
    rss = _rss_bytes()
    for _ in range(case.in_flight):
        load.send()
    while load.n_completed < case.in_flight and load.failure is None:  # noqa: ASYNC110 - only the warm-up
        await asyncio.sleep(0.1)
    rss = _rss_bytes() - rss
    stream_s = answers.interval_us * answers.chunks / 1e6
    if profile is not None:
        profile.enable()
    n, cpu_s = load.n_completed, _cpu_s()
    await asyncio.sleep(max(seconds, 2 * stream_s))
    n, cpu_s = load.n_completed - n, _cpu_s() - cpu_s
    if profile is not None:
        profile.disable()
    await worker.close()
    if load.failure is not None:
        raise BenchmarkError(f"{case.title}: {load.failure}")
    cpu_us = cpu_s / n * 1e6
    per_chunks = cpu_us / answers.chunks / 10 if answers.chunks else None
    return Cost(n, cpu_us, per_chunks, rss / 1e3 / case.in_flight)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(bench: Bench) -> Iterator[Figure]:
    """Each case in a process of its own, so that none inherits another's heap."""
    for index, case in enumerate(CASES):
        bench.progress(f"data plane alone: {case.title}")
        costs = [_in_own_process(bench, index) for _ in range(bench.repeats)]
        note = f"{costs[0].kb_each:.1f} KB resident for each in flight"
        title = f"Data plane alone, {case.title}"
        if case.answers.chunks:
            samples = [cost.s_per_100k_chunks or 0.0 for cost in costs]
            yield median_figure(case.key, title, samples, "s/100k chunks", case.target, note)
        else:
            yield median_figure(
                case.key, title, [cost.cpu_us for cost in costs], "us/request", case.target, note
            )


def _in_own_process(bench: Bench, index: int) -> Cost:
    seconds = "0.5" if bench.quick else "2"
    command = [bench.python, "-m", "benchmarks.transport", str(index), "--seconds", seconds, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=TIMEOUT_S)
    if done.returncode:
        raise BenchmarkError(f"{CASES[index].title}: {done.stderr[-2000:]}")
    return Cost(**json.loads(done.stdout))


def main() -> None:
    """Run one case, or profile it."""
    cases = "\n".join(f"  {index}  {case.title}" for index, case in enumerate(CASES))
    parser = argparse.ArgumentParser(
        description=f"{(__doc__ or '').partition(chr(10))[0]}\n\n{cases}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("case", type=int, choices=range(len(CASES)))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    parser.add_argument("--profile", action="store_true", help="under cProfile, which itself costs much")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    case = CASES[arguments.case]
    profile = cProfile.Profile() if arguments.profile else None
    with running(case.answers) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        cost = runner.run(measure(case, server.ports[0], arguments.seconds, profile))
    if profile is not None:
        profile.print_stats("tottime")
    figures = asdict(cost)
    sys.stdout.write(json.dumps(figures) if arguments.json else f"{case.title}: {figures}\n")


if __name__ == "__main__":
    main()
