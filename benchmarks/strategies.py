"""CPU of balancing alone: microseconds per attempt for every strategy, at 3 and at 1,000 servers.

    python -m benchmarks.strategies

An attempt is `acquire` and `release` of the pool, i.e. the strategy's pick, the counts and the eligibility;
`+ health` adds the report of its success. Two loads: `steady` keeps 8 attempts a server in flight without a
bound; `pull` keeps every server full (max_in_flight 8), so each attempt makes a server leave and join.
Process time, best of five rounds.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator
from random import Random
from time import process_time

from rich.console import Console
from rich.table import Table

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from lbrun.balance import STRATEGIES, Pool, PoolSettings, ProbeOutcome, make_strategy

PER_SERVER = 8


def ready_pool(name: str, servers: int, max_in_flight: int | None) -> Pool:
    weights = [1.0 + server % 3 for server in range(servers)]
    urls = [f"http://server-{server}:8000" for server in range(servers)]
    settings = PoolSettings(urls, max_in_flight=max_in_flight, weights=weights)
    pool = Pool(settings, make_strategy(name), now_s=0.0)
    for now_s in (0.0, 1.0):
        for probe in pool.due_probes(now_s):
            pool.probe_result(probe, ProbeOutcome.OK, "", now_s)
    return pool


def measure(name: str, servers: int, *, pull: bool, health: bool, attempts: int) -> float:
    """Microseconds of CPU per attempt."""
    pool = ready_pool(name, servers, PER_SERVER if pull else None)
    lengths = [Random(1).randrange(50, 2000) for _ in range(4096)]
    open_attempts: deque[tuple[int, int]] = deque()
    for i in range(PER_SERVER * servers):
        server = pool.acquire(lengths[i % 4096])
        assert server is not None
        open_attempts.append((server, lengths[i % 4096]))
    best = float("inf")
    for _ in range(5):
        started = process_time()
        for i in range(attempts):
            server, tokens = open_attempts.popleft()
            if health:
                pool.succeeded(server, 2.0)
            pool.release(server, tokens)
            tokens = lengths[i & 4095]
            picked = pool.acquire(tokens)
            assert picked is not None
            open_attempts.append((picked, tokens))
        best = min(best, process_time() - started)
    return (best - _loop_s(attempts)) / attempts * 1e6


def _loop_s(attempts: int) -> float:
    """What the loop around the pool costs by itself."""
    queue = deque([(0, 1)] * 64)
    lengths = [1] * 4096
    started = process_time()
    for i in range(attempts):
        server, tokens = queue.popleft()
        tokens = lengths[i & 4095]
        assert server is not None
        queue.append((server, tokens))
    return process_time() - started


TARGETS_US = {3: 1.0, 1000: 3.0}


def run(bench: Bench) -> Iterator[Figure]:
    """Each strategy at 3 and at 1,000 servers, under a steady load."""
    attempts = bench.n(50_000, 2_000)
    for servers, target_us in TARGETS_US.items():
        for name in STRATEGIES:
            bench.progress(f"{name} over {servers:,} servers")
            steady = measure(name, servers, pull=False, health=False, attempts=attempts)
            pull = measure(name, servers, pull=True, health=False, attempts=attempts)
            yield Figure(
                f"strategy_{name}_{servers}_us",
                f"{name}, {servers:,} servers",
                steady,
                "us",
                target_us,
                note=f"pick and counts of an attempt; {pull:.2f} us where every server is kept full",
            )


def main() -> None:
    """A table of all strategies under all loads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attempts", type=int, default=50_000, help="attempts a round (default 50,000)")
    attempts = parser.parse_args().attempts
    loads = (("steady", False, False), ("pull", True, False), ("steady + health", False, True))
    columns = [(servers, load) for servers in TARGETS_US for load in loads]
    table = Table(
        "us of CPU an attempt", *(f"{label}, {servers:,} servers" for servers, (label, _, _) in columns)
    )
    for name in STRATEGIES:
        costs = [
            measure(name, servers, pull=pull, health=health, attempts=attempts)
            for servers, (_, pull, health) in columns
        ]
        table.add_row(name, *(f"{cost:.2f}" for cost in costs))
    Console().print(table)


if __name__ == "__main__":
    main()
