"""Metrics agree with a plain reckoning, row by row; failed samples count nowhere else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outcomes import MS, START_NS, URLS, Row, lost, record, steady

from lbrun.attempt import FailureKind
from lbrun.results.failures import group_failures
from lbrun.results.metrics import Distribution, Traffic, first_send_ms, measure
from lbrun.results.records import PARQUET_NAME, read_requests
from lbrun.results.table import NO_ATTEMPTS_KEY, ROW, to_batch

KINDS = [int(kind) for kind in FailureKind]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    issued = START_NS + draw(st.integers(0, 10**10))
    sent = issued + draw(st.integers(0, 10**9))
    first = sent + draw(st.integers(1, 10**9))
    failure = draw(st.sampled_from([0, 0, 0, *KINDS]))
    server = draw(st.integers(0, 2))
    tries = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2), st.just(sent), st.just(first), st.sampled_from(KINDS), st.just("why")
            ),
            min_size=1 if failure else 0,
            max_size=4,
        )
    )
    return Row(
        query_id=draw(st.integers(0, 2**64 - 1)),
        server=server,
        n_attempts=len(tries) + (0 if failure else 1),
        issued_ns=issued,
        sent_ns=sent,
        first_byte_ns=first,
        first_token_ns=draw(st.sampled_from([0, first])),
        done_ns=first + draw(st.integers(0, 10**10)),
        n_input_tokens=draw(st.integers(0, 5000)),
        n_tokens=0 if failure else draw(st.integers(1, 5000)),
        failure=failure,
        restarted=draw(st.booleans()),
        attempts=tries or None,
    )


def _nearest_rank(values: list[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed."""
    ordered = sorted(values)
    rank = max(1, math.ceil(round(percent * len(ordered) / 100, 9)))
    return ordered[rank - 1]


def _same(got: Distribution | None, values: list[float]) -> None:
    if not values:
        assert got is None
        return
    assert got is not None
    assert got.n == len(values)
    assert got.mean == pytest.approx(sum(values) / len(values))
    assert (got.min, got.max) == (min(values), max(values))
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("p99_9", 99.9)):
        assert getattr(got, name) == _nearest_rank(values, percent)


def _check(got: Traffic, good: list[Row], duration_s: float) -> None:
    assert got.completed == len(good)
    assert got.input_tokens == sum(row.n_input_tokens for row in good)
    assert got.output_tokens == sum(row.n_tokens for row in good)
    assert got.duration_s == pytest.approx(duration_s)
    per_s = 1 / duration_s if duration_s else 0
    assert got.requests_per_s == pytest.approx(len(good) * per_s)
    assert got.output_tokens_per_s == pytest.approx(got.output_tokens * per_s)
    streams = [row for row in good if row.first_token_ns]
    _same(got.latency_ms, [(row.done_ns - row.issued_ns) / 1e6 for row in good])
    _same(got.queue_ms, [(row.sent_ns - row.issued_ns) / 1e6 for row in good])
    _same(got.ttft_ms, [(row.first_token_ns - row.issued_ns) / 1e6 for row in streams])
    _same(
        got.tpot_ms,
        [(r.done_ns - r.first_token_ns) / (r.n_tokens - 1) / 1e6 for r in streams if r.n_tokens > 1],
    )


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.lists(rows(), min_size=1, max_size=40))
def test_metrics_agree_with_a_plain_reckoning(tmp_path: Path, data: list[Row]) -> None:
    (tmp_path / PARQUET_NAME).unlink(missing_ok=True)
    record(tmp_path, data)
    got = measure(read_requests(tmp_path), URLS)
    duration_s = (max(row.done_ns for row in data) - min(row.issued_ns for row in data)) / 1e9
    good = [row for row in data if not row.failure]
    _check(got.overall, good, duration_s)
    assert got.overall.failed == len(data) - len(good)
    assert got.attempts.total == sum(row.n_attempts for row in data)
    assert got.attempts.retried == sum(max(row.n_attempts - 1, 0) for row in data)
    assert got.attempts.restarted_streams == sum(row.restarted for row in data)
    for server, traffic in enumerate(got.servers):
        here = [row for row in good if row.server == server]
        _check(traffic, here, duration_s)
        tries = [attempt for row in data for attempt in row.attempts or () if attempt[0] == server]
        assert traffic.failed == len(tries)
        assert traffic.requests == len(here) + len(tries)
    assert sum(traffic.requests for traffic in got.servers) == got.attempts.total
    if good:
        assert sum(traffic.share for traffic in got.servers) == pytest.approx(1)


def test_a_run_without_rows_has_zeros_and_no_latencies(tmp_path: Path) -> None:
    got = measure(read_requests(tmp_path), URLS)
    assert got.overall.completed == got.overall.failed == got.attempts.total == 0
    assert got.overall.requests_per_s == 0
    assert got.overall.latency_ms is None
    assert len(got.servers) == 3


def test_what_passes_before_a_retry_is_not_the_clients_own_delay(tmp_path: Path) -> None:
    failed_before = [(1, START_NS, START_NS + MS, int(FailureKind.HTTP_5XX), "500")]
    retried = Row(99, n_attempts=2, sent_ns=START_NS + 900 * MS, attempts=failed_before)
    record(tmp_path, [*steady(9), retried, lost(100)])
    records = read_requests(tmp_path)
    delays = first_send_ms(records)
    assert delays is not None
    assert delays.n == 9
    assert delays.max < 900
    queueing = measure(records, URLS).overall.queue_ms
    assert queueing is not None
    assert queueing.max == 900


def test_a_server_unknown_to_the_pool_counts_in_the_whole_only(tmp_path: Path) -> None:
    record(tmp_path, steady(9))
    got = measure(read_requests(tmp_path), URLS[:2])
    assert got.overall.completed == 9
    assert [traffic.completed for traffic in got.servers] == [3, 3]


def test_a_kind_of_failure_that_does_not_exist_is_refused() -> None:
    row = ROW.pack(*Row(1, failure=99)[:13], 0, NO_ATTEMPTS_KEY)
    with pytest.raises(ValueError, match="99 is no kind of failure"):
        to_batch([row], {}, servers=URLS, finish_reasons=["stop"], start_ns=0)


def test_failures_that_differ_in_numbers_only_are_one_group(tmp_path: Path) -> None:
    retried = Row(
        9,
        n_attempts=2,
        attempts=[(1, START_NS, START_NS + MS, int(FailureKind.HTTP_5XX), "500: \x1b[31moops\nagain")],
    )
    record(tmp_path, [lost(i) for i in range(5)] + [retried] + steady(3))
    first, second = group_failures(read_requests(tmp_path))
    assert (first.server, first.kind, first.attempts, first.samples_lost) == (URLS[0], "REFUSED", 15, 5)
    assert (second.server, second.kind, second.attempts, second.samples_lost) == (URLS[1], "HTTP_5XX", 1, 0)
    assert second.message == "500: [31moops again"


def test_a_sample_that_was_never_sent_is_in_the_failures_too(tmp_path: Path) -> None:
    record(tmp_path, [lost(1)._replace(server=-1, n_attempts=0, attempts=None)])
    (group,) = group_failures(read_requests(tmp_path))
    assert (group.server, group.attempts, group.samples_lost) == ("", 1, 1)
