"""LoadGen Server to 128-chunk streams: what 100,000 chunks cost the whole program."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import Figure, median_figure
from benchmarks.server import Answers, running

CHUNKS = 128
PACED_INTERVAL_US = 5_000
BURST_QPS, PACED_QPS = 4_000, 400


def run(bench: Bench) -> Iterator[Figure]:
    """In a burst (one write an answer) and paced (one packet a chunk)."""
    title = "Server, 128-chunk streams in a burst"
    bench.progress(title)
    costs = _costs(bench, Answers(CHUNKS), BURST_QPS, (bench.n(2_000, 1_000), bench.n(22_000, 5_000)))
    note = f"{BURST_QPS:,} streams a second, each in one write"
    yield median_figure("burst_s_per_100k", title, costs, "s/100k chunks", 0.10, note)
    sizes = bench.n(1_000, 1_000), bench.n(4_600, 1_600)
    for key, title, phases, target in (
        ("paced_s_per_100k", "Server, 128-chunk streams, paced", 1, 1.0),
        ("spread_s_per_100k", "the same, the streams not in step", 20, None),
    ):
        bench.progress(title)
        answers = Answers(CHUNKS, PACED_INTERVAL_US, phases)
        costs = _costs(bench, answers, PACED_QPS, sizes)
        note = (
            f"{PACED_QPS} streams a second, one packet a chunk, every {PACED_INTERVAL_US / 1000:g} ms "
            f"in {phases} phase{'s' * (phases > 1)}"
        )
        yield median_figure(key, title, costs, "s/100k chunks", target, note)


def _costs(bench: Bench, answers: Answers, qps: int, sizes: tuple[int, int]) -> list[float]:
    """CPU seconds per 100,000 chunks, once for each repeat."""
    overrides = ("scenario=server", f"scenario.target_qps={qps}")
    with running(answers) as server:
        costs_us = bench.lbrun.costs_us(server.urls, sizes, min(2, bench.repeats), *overrides)
    return [cost_us / answers.chunks / 10 for cost_us in costs_us]
