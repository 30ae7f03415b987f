"""What the suite consists of: each benchmark by name, in the order in which they run.

A benchmark is a function from a `Bench` to figures. It may take a minute or two, and ends what it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import delay, formats, makespan, memory, scaling, start, strategies, streams, transport, whole
from benchmarks.bench import Bench
from benchmarks.figures import Figure


@dataclass(frozen=True, slots=True)
class Benchmark:
    """name: for the command line. what: in a line."""

    name: str
    what: str
    run: Callable[[Bench], Iterator[Figure]]


BENCHMARKS = (
    Benchmark("whole", "LoadGen Offline to whole answers, the whole program", whole.run),
    Benchmark("streams", "LoadGen Server to streams, in a burst and paced", streams.run),
    Benchmark("transport", "the data plane alone", transport.run),
    Benchmark("strategies", "picking a server, and keeping its state", strategies.run),
    Benchmark("formats", "reading answers", formats.run),
    Benchmark("delay", "the client's own delay at 1,000 QPS", delay.run),
    Benchmark("scaling", "cost at more samples and more servers", scaling.run),
    Benchmark("memory", "memory a sample, over time, and of 10,000 streams", memory.run),
    Benchmark("start", "time, CPU and memory until the first request", start.run),
    Benchmark("makespan", "Offline over unequal servers, every strategy", makespan.run),
)
