"""Offline over unequal servers: how long the last answer takes with each strategy, beside the ideal.

The servers are lbrun's own simulated ones, with speeds 1, 1 and 0.33. The ideal is a perfect schedule: all
the work that the run's answers were, done at the sum of the servers' rates without a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from lbrun.balance import STRATEGIES

SPEEDS = (1.0, 1.0, 0.33)
SLOTS = 32
TTFT_BASE_S, TTFT_PER_TOKEN_S, TPOT_S = 0.010, 12.5e-6, 0.001
TARGET = 1.05


def run(bench: Bench) -> Iterator[Figure]:
    """Every strategy as a pull, with as much in flight at each server as it works on; then all at once."""
    n = bench.n(12_000, 300)
    for name in STRATEGIES:
        bench.progress(f"makespan, {name}")
        ratio, seconds, ideal_s = _makespan(bench, name, n, max_in_flight=str(SLOTS))
        yield Figure(
            f"makespan_{name}_ratio",
            f"Makespan to the ideal, {name}, pull",
            ratio,
            "x",
            TARGET,
            note=f"{n:,} samples in {seconds:.1f} s, ideal {ideal_s:.1f} s; speeds 1, 1, 0.33; "
            f"max_in_flight={SLOTS}",
        )
    n = bench.n(2_000, 300)
    for name in STRATEGIES:
        bench.progress(f"makespan, {name}, all at once")
        ratio, seconds, ideal_s = _makespan(bench, name, n, max_in_flight="null")
        yield Figure(
            f"makespan_{name}_unlimited_ratio",
            f"Makespan to the ideal, {name}, all at once",
            ratio,
            "x",
            note=f"{n:,} samples in {seconds:.1f} s, ideal {ideal_s:.1f} s; max_in_flight=null",
        )


def _makespan(bench: Bench, strategy: str, n: int, max_in_flight: str) -> tuple[float, float, float]:
    """Makespan over ideal; makespan in seconds; ideal in seconds."""
    work_s = 0.0

    def inspect(run_dir: Path) -> None:
        nonlocal work_s
        work_s = _work_s(run_dir)

    run = bench.lbrun.run_embedded(
        n,
        f"strategy={strategy}",
        *(("servers.weights=[1,1,0.33]",) if strategy == "weighted" else ()),
        f"servers.max_in_flight={max_in_flight}",
        f"servers.embedded.speeds=[{','.join(map(str, SPEEDS))}]",
        f"servers.embedded.slots={SLOTS}",
        f"servers.embedded.ttft_base_ms={TTFT_BASE_S * 1e3:g}",
        f"servers.embedded.ttft_per_token_us={TTFT_PER_TOKEN_S * 1e6:g}",
        f"servers.embedded.tpot_ms={TPOT_S * 1e3:g}",
        inspect=inspect,
    )
    ideal_s = work_s / (SLOTS * sum(SPEEDS))
    seconds = float(run.result["metrics"]["duration_s"])
    return seconds / ideal_s, seconds, ideal_s


def _work_s(run_dir: Path) -> float:
    """Seconds that the run's answers would take one slot at speed 1."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    table = parquet.read_table(run_dir / "requests.parquet", columns=["n_input_tokens", "n_tokens"])
    n_in, n_out = (pc.sum(table.column(name)).as_py() for name in ("n_input_tokens", "n_tokens"))
    n = table.num_rows
    return float(n * TTFT_BASE_S + n_in * TTFT_PER_TOKEN_S + (n_out - n) * TPOT_S)
