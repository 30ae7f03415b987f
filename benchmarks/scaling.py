"""Whether a request costs the same in a long run and over many servers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Figure
from benchmarks.program import Run
from benchmarks.server import Answers, running

TARGET = 1.2
IN_FLIGHT = 3_000


def run(bench: Bench) -> Iterator[Figure]:
    """10,000 to 1,000,000 samples, and 3 to 1,000 servers at the same number of requests in flight."""
    yield from _samples(bench)
    for strategy in ("round_robin", "least_outstanding"):
        yield from _servers(bench, strategy)


def _samples(bench: Bench) -> Iterator[Figure]:
    small, middle, large = (
        bench.n(10_000, 1_000),
        bench.n(110_000, 6_000),
        bench.n(1_000_000, 20_000),
    )
    bench.progress(f"{small:,} to {large:,} samples")
    with running(Answers()) as server:

        def go(n: int) -> Run:
            return bench.lbrun.run(server.urls, n, "servers.max_in_flight=64")

        runs = {n: [go(n) for _ in range(bench.repeats)] for n in (small, middle)}
        runs[large] = [go(large) for _ in range(min(2, bench.repeats))]
    cpu_s = {n: statistics.median(run.cpu_s for run in done) for n, done in runs.items()}
    early_us = (cpu_s[middle] - cpu_s[small]) / (middle - small) * 1e6
    late_us = (cpu_s[large] - cpu_s[middle]) / (large - middle) * 1e6
    if early_us <= 0 or late_us <= 0:
        raise BenchmarkError("the runs are too short for this machine")
    yield Figure(
        "scaling_samples_ratio",
        f"Cost a request up to {large:,} samples, to that up to {middle:,}",
        late_us / early_us,
        "x",
        TARGET,
        note=f"{early_us:.1f} us from {small:,} to {middle:,} samples, {late_us:.1f} us from there on",
    )


def _servers(bench: Bench, strategy: str) -> Iterator[Figure]:
    few, many = 3, 1_000
    # long, for a start over 1,000 servers takes seconds of CPU by itself, which are never twice the same
    sizes = bench.n(10_000, 5_000), bench.n(310_000, 25_000)
    costs = {}
    for n_servers in (few, many):
        bench.progress(f"{n_servers:,} servers, {strategy}")
        overrides = (f"servers.max_in_flight={IN_FLIGHT // n_servers}", f"strategy={strategy}")
        with running(Answers(), n_ports=n_servers) as server:
            costs[n_servers] = bench.lbrun.costs_us(server.urls, sizes, min(2, bench.repeats), *overrides)
    medians = {n_servers: statistics.median(samples) for n_servers, samples in costs.items()}
    yield Figure(
        f"scaling_servers_{strategy}_ratio",
        f"Cost a request over {many:,} servers, to that over {few} ({strategy})",
        medians[many] / medians[few],
        "x",
        TARGET,
        note=f"{_spread(costs[few])} and {_spread(costs[many])} us, {IN_FLIGHT:,} in flight in both",
    )


def _spread(samples: list[float]) -> str:
    """Every measurement, for a ratio says nothing of how sure it is."""
    return ", ".join(f"{sample:.1f}" for sample in samples)
