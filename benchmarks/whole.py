"""LoadGen Offline to whole answers: what a request costs the whole program."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import Figure, median_figure
from benchmarks.server import Answers, running

TARGET_US = 35.0
NOTE = "CPU of all processes, long runs less short ones; request body 1 KB, answer 530 bytes with its head"


def run(bench: Bench) -> Iterator[Figure]:
    """At 64 and 1,024 in flight, and with two worker processes."""
    sizes = bench.n(20_000, 2_000), bench.n(140_000, 22_000)
    cases = (
        ("whole_64_us", "Offline, whole answers, 64 in flight", 64, 0),
        ("whole_1024_us", "Offline, whole answers, 1,024 in flight", 1024, 0),
        ("whole_64_workers_us", "Offline, whole answers, 64 in flight, 2 worker processes", 64, 2),
    )
    for key, title, in_flight, workers in cases:
        bench.progress(title)
        overrides = (f"servers.max_in_flight={in_flight}", f"client.workers={workers}")
        with running(Answers()) as server:
            costs = bench.lbrun.costs_us(server.urls, sizes, bench.repeats, *overrides)
        yield median_figure(key, title, costs, "us/request", TARGET_US, NOTE)
