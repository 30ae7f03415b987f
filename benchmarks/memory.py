"""What memory grows with: samples, time, streams in flight. Resident memory; MB and KB by powers of ten."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Figure
from benchmarks.server import Answers, running

STREAMS = 10_000
_STEADY_QPS = 1_000


def run(bench: Bench) -> Iterator[Figure]:
    """A sample, a minute of constant load, 10,000 streams."""
    yield _per_sample(bench)
    yield _over_time(bench)
    yield _streams(bench)


def _per_sample(bench: Bench) -> Figure:
    few, many = bench.n(10_000, 1_000), bench.n(1_000_000, 20_000)
    bench.progress(f"memory at {many:,} samples")
    with running(Answers()) as server:
        less, more = (bench.lbrun.run(server.urls, n, "servers.max_in_flight=64") for n in (few, many))
    return Figure(
        "memory_sample_kb",
        f"Memory a sample besides the body, {many:,} samples",
        (more.peak_mb - less.peak_mb) * 1e3 / (more.n - less.n),
        "KB",
        1.5,
        note=f"peak of the largest process: {less.peak_mb:.0f} MB at {few:,} samples, {more.peak_mb:.0f} MB "
        f"at {many:,}, LoadGen's own share and the end of the run included",
    )


def _over_time(bench: Bench) -> Figure:
    n = bench.n(30_000, 6_000)
    bench.progress("memory over time")
    overrides = ("scenario=server", f"scenario.target_qps={_STEADY_QPS}")
    with running(Answers(chunks=8)) as server:
        run = bench.lbrun.run(server.urls, n, *overrides, sample_s=0.2)
    ended_s = run.usage[-1].at_s
    # the test's time, without start-up before it and the writing of results after it
    span_s = n / _STEADY_QPS
    seen = [usage for usage in run.usage if ended_s - 0.9 * span_s < usage.at_s < ended_s - 0.1 * span_s]
    if len(seen) < 8:
        raise BenchmarkError("too short a run to see memory over time")
    quarter = len(seen) // 4
    early, late = (
        statistics.median(usage.rss_mb for usage in part) for part in (seen[:quarter], seen[-quarter:])
    )
    return Figure(
        "memory_over_time_ratio",
        "Memory late in a steady run, to that early in it",
        late / early,
        "x",
        1.05,
        note=f"{_STEADY_QPS:,} QPS for {span_s:.0f} s: {early:.1f} MB, then {late:.1f} MB "
        f"({(late - early) * 1e6 / (0.6 * n):.0f} bytes a sample)",
    )


def _streams(bench: Bench) -> Figure:
    n = bench.n(STREAMS, 500)
    bench.progress(f"{n:,} streams in flight")
    overrides = ("scenario.stream=true", "servers.max_in_flight=null")
    with running(Answers(chunks=16, interval_us=500_000)) as server:
        few = bench.lbrun.run(server.urls, 100, *overrides)
        many = bench.lbrun.run(server.urls, n, *overrides)
        peak = server.stats()["peak_open"]
    if peak < 0.95 * n:
        raise BenchmarkError(f"only {peak:,} of {n:,} streams were open at one time")
    return Figure(
        "memory_stream_kb",
        f"Memory a stream, {n:,} in flight",
        (many.peak_mb - few.peak_mb) * 1e3 / (n - 100),
        "KB",
        100.0,
        note=f"{peak:,} open at one time, all completed; peak {many.peak_mb:.0f} MB; "
        "the kernel's socket buffers are not in it",
    )
