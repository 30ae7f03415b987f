"""How late the client itself is, while it works at 1,000 queries a second."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Figure
from benchmarks.server import Answers, running

QPS = 1_000
CHUNKS = 32
INTERVAL_US = 5_000
PHASES = 20
TARGET_MS = 2.0


def run(bench: Bench) -> Iterator[Figure]:
    """From LoadGen to the wire and back, over paced streams; then all of it in one figure."""
    overrides = ("scenario=server", f"scenario.target_qps={QPS}")
    n = bench.n(12_000, 2_000)
    bench.progress(f"{QPS:,} paced streams a second")
    with running(Answers(CHUNKS, INTERVAL_US, PHASES)) as server:
        result = bench.lbrun.run(server.urls, n, *overrides).result
    client = result["client"]
    note = (
        f"{QPS:,} streams a second of {CHUNKS} chunks, one packet each every {INTERVAL_US / 1000:g} ms; "
        f"the event loop was busy {client['loop_busy']:.0%} of the time"
    )
    for key, name, title in (
        ("delay_to_wire", "issue_to_wire_ms", "from LoadGen's issue to the wire"),
        ("delay_to_loadgen", "last_byte_to_loadgen_ms", "from the last byte to LoadGen"),
        ("delay_loop_lag", "loop_lag_ms", "lateness of the event loop"),
    ):
        spread = client[name]
        if spread is None:
            raise BenchmarkError(f"the run did not measure {name}")
        target = None if key == "delay_loop_lag" else TARGET_MS
        more = f"{note}; p50 {spread['p50']:.3g} ms, longest {spread['max']:.3g} ms"
        yield Figure(f"{key}_p99_ms", f"Client's delay {title}, p99", spread["p99"], "ms", target, note=more)
    # LoadGen's clock starts when a query is due and ends in its completion call, the records' when it is
    # issued and when its last byte is read: the means differ by what LoadGen and the client add around it
    loadgen_ms = float(result["loadgen"]["summary"]["Mean latency (ns)"]) / 1e6
    yield Figure(
        "delay_schedule_mean_ms",
        "LoadGen's latency beyond the records', mean",
        loadgen_ms - result["metrics"]["latency_ms"]["mean"],
        "ms",
        note="from LoadGen's schedule to its issue, and from the last byte to its completion call",
    )
    bench.progress(f"{QPS:,} immediate answers a second")
    with running(Answers(CHUNKS)) as server:
        result = bench.lbrun.run(server.urls, n, *overrides).result
    summary = result["loadgen"]["summary"]
    yield Figure(
        "delay_immediate_p99_ms",
        "LoadGen's latency of an immediate answer, p99",
        float(summary["99.00 percentile latency (ns)"]) / 1e6,
        "ms",
        TARGET_MS,
        note=f"{QPS:,} QPS of streams in one write each: schedule to wire, server and network, last byte to "
        f"LoadGen, all together; mean {float(summary['Mean latency (ns)']) / 1e6:.3g} ms",
    )
