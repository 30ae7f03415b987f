"""The client's own delays: counted in constant memory, and told when they would distort a result."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.run.delays import ClientWatch, DelayHistogram, alerts


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_at_most_a_sixteenth_too_high_and_never_too_low(delays: list[int], q: float) -> None:
    histogram = DelayHistogram()
    for delay in delays:
        histogram.add(delay)
    rank = max(0, -(-int(q * 1000) * len(delays) // 1000) - 1)
    exact_ms = sorted(delays)[min(rank, len(delays) - 1)] / 1e6
    assert exact_ms <= histogram.quantile_ms(q) + 1e-12
    assert histogram.quantile_ms(q) <= exact_ms * (1 + 1 / 16) + 1e-5


def test_a_batch_counts_as_many_and_the_maximum_is_exact() -> None:
    histogram = DelayHistogram()
    histogram.add(1_000_000, 99)
    histogram.add(123_456_789)
    summary = histogram.summary_ms()
    assert summary is not None
    assert summary["max"] == pytest.approx(123.456789)
    assert summary["p50"] == pytest.approx(1.0, rel=0.07)


def test_nothing_counted_is_no_figure() -> None:
    assert DelayHistogram().summary_ms() is None


def test_a_negative_delay_counts_as_none() -> None:
    histogram = DelayHistogram()
    histogram.add(-5)
    assert histogram.summary_ms() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_a_delay_over_five_per_cent_of_the_nearest_limit_is_told() -> None:
    client = {"issue_to_wire_ms": {"p50": 1.0, "p99": 26.0, "max": 30.0}, "loop_busy": 0.2}
    assert alerts(client, {"TTFT": 2000.0}) == []
    found = alerts(client, {"TTFT": 500.0, "latency": 9000.0})
    assert len(found) == 1
    assert "26 ms from LoadGen's issue to the wire" in found[0]
    assert "TTFT limit of 500 ms" in found[0]


def test_a_saturated_loop_is_told_also_of_a_worker() -> None:
    assert "97%" in alerts({"loop_busy": 0.97}, {})[0]
    assert "95%" in alerts({"loop_busy": 0.1, "worker_busy": [0.3, 0.95]}, {})[0]
    assert alerts({"loop_busy": 0.5, "worker_busy": [0.3]}, {}) == []


def test_the_watch_tells_what_the_loop_used() -> None:
    async def body() -> dict[str, object]:
        watch = ClientWatch()
        watch.start()
        while watch.loop_lag.summary_ms() is None:
            await asyncio.sleep(0.005)
        return watch.stop()

    told = asyncio.run(body())
    assert told["cpu_s"] >= 0  # type: ignore[operator]
    assert told["loop_lag_ms"] is not None
    assert 0 <= told["loop_busy"] <= 1.5  # type: ignore[operator]
