"""The client's own delays: counted in constant memory, and told when they would distort a result."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.histogram import difference
from lbrun.loop_watch import LoopFigures
from lbrun.results.metrics import Distribution, Traffic
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


def test_two_copies_differ_by_what_was_counted_between() -> None:
    histogram = DelayHistogram()
    histogram.add(9_000_000, 50)
    before = list(histogram.cells)
    histogram.add(1_000_000, 99)
    histogram.add(5_000_000)
    summary = difference(list(histogram.cells), before).summary_ms()
    assert summary is not None
    assert summary["p50"] == pytest.approx(1.0, rel=0.07)
    assert difference(before, before).summary_ms() is None


# ---- what is worth a warning


def _ms(p50: float, p99: float) -> dict[str, float]:
    return {"p50": p50, "p99": p99, "max": 2 * p99}


def _loop(name: str, busy: float = 0.1, waiting: float = 0.0, p50: float = 0.1, p99: float = 0.3) -> Any:
    return {"name": name, "busy": busy, "waiting": waiting, "lag_ms": _ms(p50, p99)}


def _spread(p50: float, p99: float) -> Distribution:
    return Distribution(n=100, mean=p50, min=p50, p50=p50, p90=p99, p99=p99, p99_9=p99, max=p99)


def _traffic(ttft: Distribution | None, tpot: Distribution | None, latency: Distribution) -> Traffic:
    return Traffic(
        requests=100, completed=100, failed=0, share=1.0, input_tokens=100, output_tokens=100 * 101,
        duration_s=10.0, requests_per_s=10.0, input_tokens_per_s=10.0, output_tokens_per_s=10.0,
        ttft_ms=ttft, tpot_ms=tpot, latency_ms=latency, queue_ms=None,
    )  # fmt: skip


STREAMS = _traffic(_spread(20, 120), _spread(5, 8), _spread(600, 900))


def test_a_delay_over_five_per_cent_of_the_nearest_limit_is_told() -> None:
    client = {"issue_to_wire_ms": _ms(1.0, 26.0), "loops": [_loop("main")]}
    assert alerts(client, {"TTFT": 2000.0}) == []
    found = alerts(client, {"TTFT": 500.0, "latency": 9000.0})
    assert len(found) == 1
    assert "26 ms from LoadGen's issue to the wire" in found[0]
    assert "TTFT limit of 500 ms" in found[0]


def test_a_delay_within_the_limit_is_told_where_it_is_much_of_what_was_measured() -> None:
    loops = [_loop("main", p99=50.0), _loop("worker 0"), _loop("worker 1", busy=0.7, p99=45.0)]
    (found,) = alerts({"loops": loops}, {"TTFT": 2000.0}, STREAMS)
    assert "45 ms from the arrival of bytes until they are read (p99)" in found
    assert "38% of the measured TTFT of 120 ms" in found
    assert "worker 1 was busy 70% of the time" in found
    assert "client.workers=4" in found
    assert alerts({"loops": loops}, {"TTFT": 2000.0}, STREAMS, latencies_count=False) == []


def test_the_main_loop_reads_only_where_there_are_no_workers() -> None:
    late = _loop("main", p99=45.0)
    assert alerts({"loops": [late, _loop("worker 0")]}, {}, STREAMS) == []
    assert len(alerts({"loops": [late]}, {}, STREAMS)) == 1


def test_small_delays_in_the_middle_add_up() -> None:
    parts = {name: _ms(1.5, 2.0) for name in ("issue_to_wire_ms", "first_token_to_loadgen_ms")}
    client = {**parts, "loops": [_loop("main", p50=1.2, p99=2.0)]}
    (found,) = alerts(client, {}, STREAMS)
    assert "21% of the measured TTFT of 20 ms" in found
    client["loops"] = [_loop("main", p50=0.2)]
    del client["issue_to_wire_ms"]
    assert alerts(client, {}, STREAMS) == []


def test_what_is_below_a_millisecond_is_not_told() -> None:
    fast = _traffic(_spread(0.3, 0.5), None, _spread(0.3, 0.5))
    assert alerts({"loops": [_loop("main", p50=0.2, p99=0.3)]}, {"TTFT": 10.0}, fast) == []


def test_late_reading_is_compared_with_the_time_per_token_over_the_whole_answer() -> None:
    late = {"loops": [_loop("main", p99=90.0)]}
    slow_start = _traffic(_spread(5000, 9000), _spread(5, 8), _spread(6000, 9900))
    (found,) = alerts(late, {}, slow_start)  # 90 ms over 100 gaps
    assert "0.9 ms a token by reading late" in found
    assert "11% of the measured TPOT of 8 ms" in found
    (found,) = alerts(late, {"TPOT": 15.0}, _traffic(None, _spread(40, 80), _spread(6000, 9900)))
    assert "5% of the TPOT limit of 15 ms" in found


def test_whole_answers_are_compared_by_their_latency() -> None:
    whole = _traffic(None, None, _spread(100, 300))
    (found,) = alerts({"loops": [_loop("main", p99=40.0)]}, {}, whole)
    assert "13% of the measured latency of 300 ms" in found


def test_a_saturated_loop_is_told_also_of_a_worker_and_where_only_throughput_counts() -> None:
    assert "97%" in alerts({"loops": [_loop("main", busy=0.97)]}, {}, latencies_count=False)[0]
    (found,) = alerts({"loops": [_loop("main"), _loop("worker 0"), _loop("worker 1", busy=0.95)]}, {})
    assert "worker 1 was busy 95%" in found
    assert alerts({"loops": [_loop("main", busy=0.5), _loop("worker 0", busy=0.3)]}, {}) == []


def test_a_loop_that_waits_for_a_processor_needs_another_machine_and_no_more_workers() -> None:
    (found,) = alerts({"loops": [_loop("main"), _loop("worker 0", busy=0.45, waiting=0.5)]}, {})
    assert "waited for a processor 50%" in found
    assert "more free cores" in found
    assert "client.workers" not in found
    (found,) = alerts({"loops": [_loop("main", busy=0.95)]}, {}, cpus=1)
    assert "client.workers" not in found


def test_one_loop_is_told_of_once() -> None:
    client = {"loops": [_loop("main", busy=0.97, p99=80.0)]}
    assert len(alerts(client, {}, STREAMS)) == 1


# ---- the watch


def test_the_watch_tells_what_the_loops_used() -> None:
    async def body() -> dict[str, Any]:
        watch = ClientWatch()
        watch.start()
        await asyncio.sleep(0.1)
        return watch.stop([LoopFigures("worker 0", 0.3, 0.0, None)])

    told = asyncio.run(body())
    assert told["cpu_s"] >= 0
    assert told["loop_lag_ms"] is not None
    assert 0 <= told["loop_busy"] <= 1.5
    assert [loop["name"] for loop in told["loops"]] == ["main", "worker 0"]
    assert told["worker_busy"] == [0.3]
