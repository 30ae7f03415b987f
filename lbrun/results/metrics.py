"""Latency, throughput and shares from a run's records.

A failed sample counts as failed and nowhere else: neither in a latency nor in a throughput. The clock of
a sample starts when LoadGen issues it, so that waiting and retries are part of what is measured:

    ttft_ms     first token reported - issued                      (streams)
    tpot_ms     (done - first token) / (output tokens - 1)         (streams of at least two tokens)
    latency_ms  done - issued; end to end
    queue_ms    request sent - issued; what passed before the attempt that was answered
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

_NS_PER_MS = 1e6
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Distribution:
    """A quantity in milliseconds. Percentiles are nearest-rank: each is a value that did occur."""

    n: int
    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was asked and answered in a span of time, by the whole pool or by one server.

    completed, failed: of the pool: samples; of a server: attempts. requests: HTTP requests that ended.
    share: of all completed samples. Tokens are those of completed samples, as the servers counted them.
    duration_s: from the run's first issue to its last completion, the same for pool and servers, so that
    their rates add up. Distributions are None where nothing was measured.
    """

    requests: int
    completed: int
    failed: int
    share: float
    input_tokens: int
    output_tokens: int
    duration_s: float
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    latency_ms: Distribution | None
    queue_ms: Distribution | None


@dataclass(frozen=True, slots=True)
class AttemptCounts:
    """HTTP requests of a run. retried: those beyond each sample's first.

    restarted_streams: samples whose stream was cut and begun again elsewhere.
    """

    total: int
    retried: int
    restarted_streams: int


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Everything measured in a run; servers in the order they were asked for."""

    overall: Traffic
    servers: tuple[Traffic, ...]
    attempts: AttemptCounts


def measure(requests: Any, servers: Sequence[str]) -> RunMetrics:
    """Compute the metrics of a table of records (`lbrun.results.records.read_requests`).

    servers: URLs of the pool; one without a request gets zeros.
    """
    rows = _Rows(requests, servers)
    failed_at = _failed_attempts(requests, servers)
    n_completed = int(rows.good.sum())
    per_server = []
    for server, (begin, end) in enumerate(rows.server_slices):
        good = rows.by_server[begin:end]
        n_failed = failed_at[server]
        share = len(good) / n_completed if n_completed else 0.0
        per_server.append(rows.traffic(good, requests=len(good) + n_failed, failed=n_failed, share=share))
    n_attempts = _numbers(requests, "n_attempts")
    overall = rows.traffic(
        np.flatnonzero(rows.good),
        requests=int(n_attempts.sum()),
        failed=len(rows.good) - n_completed,
        share=1.0 if n_completed else 0.0,
    )
    counts = AttemptCounts(
        total=int(n_attempts.sum()),
        retried=int((n_attempts - 1).clip(min=0).sum()),
        restarted_streams=int(_numbers(requests, "restarted").sum()),
    )
    return RunMetrics(overall, tuple(per_server), counts)


class _Rows:
    """The columns as NumPy arrays, and the good rows ordered by server."""

    def __init__(self, requests: Any, servers: Sequence[str]) -> None:
        self.issued = _numbers(requests, "issued_ns")
        self.sent = _numbers(requests, "sent_ns")
        self.first = _numbers(requests, "first_token_ns")
        self.has_first = _present(requests, "first_token_ns")
        self.done = _numbers(requests, "done_ns")
        self.n_in = _numbers(requests, "n_input_tokens")
        self.n_out = _numbers(requests, "n_tokens")
        self.good = ~_present(requests, "failure")
        codes = server_codes(requests, servers)
        # Sorted once and sliced, so that a pool of a thousand servers does not cost a thousand masks.
        good = np.flatnonzero(self.good)
        self.by_server = good[np.argsort(codes[good], kind="stable")]
        bounds = np.searchsorted(codes[self.by_server], np.arange(len(servers) + 1))
        self.server_slices = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        span_ns = int(self.done.max() - self.issued.min()) if len(self.done) else 0
        self.duration_s = span_ns / _NS_PER_S

    def traffic(self, good: Any, *, requests: int, failed: int, share: float) -> Traffic:
        """The metrics of the given good rows."""
        issued, done, n_out = self.issued[good], self.done[good], self.n_out[good]
        first, has_first = self.first[good], self.has_first[good]
        streamed = has_first & (n_out > 1)
        tokens_in, tokens_out = int(self.n_in[good].sum()), int(n_out.sum())
        per_s = 1 / self.duration_s if self.duration_s > 0 else 0.0
        return Traffic(
            requests=requests,
            completed=len(good),
            failed=failed,
            share=share,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            duration_s=self.duration_s,
            requests_per_s=len(good) * per_s,
            input_tokens_per_s=tokens_in * per_s,
            output_tokens_per_s=tokens_out * per_s,
            ttft_ms=distribution((first - issued)[has_first] / _NS_PER_MS),
            tpot_ms=distribution((done - first)[streamed] / (n_out[streamed] - 1) / _NS_PER_MS),
            latency_ms=distribution((done - issued) / _NS_PER_MS),
            queue_ms=distribution((self.sent[good] - issued) / _NS_PER_MS),
        )


def first_send_ms(requests: Any) -> Distribution | None:
    """From LoadGen's issue to the request on the wire, of the samples whose first attempt was answered.

    The client's own part of a latency; what passes before a retry is the failed attempt's.
    """
    at_once = ~_present(requests, "failure") & (_numbers(requests, "n_attempts") == 1)
    issued, sent = _numbers(requests, "issued_ns"), _numbers(requests, "sent_ns")
    return distribution((sent - issued)[at_once] / _NS_PER_MS)


def distribution(values_ms: Any) -> Distribution | None:
    """Mean, extremes and percentiles of an array; None where it is empty."""
    if len(values_ms) == 0:
        return None
    p50, p90, p99, p99_9 = np.percentile(values_ms, [50, 90, 99, 99.9], method="inverted_cdf").tolist()
    return Distribution(
        n=len(values_ms),
        mean=float(values_ms.mean()),
        min=float(values_ms.min()),
        p50=p50,
        p90=p90,
        p99=p99,
        p99_9=p99_9,
        max=float(values_ms.max()),
    )


def server_codes(requests: Any, servers: Sequence[str]) -> Any:
    """Each row's server as its index in `servers`, `len(servers)` for none or an unknown one."""
    column = requests.column("server").combine_chunks()
    index = {url: i for i, url in enumerate(servers)}
    # One entry more than words: null is given the last position.
    meaning = np.array(
        [*(index.get(word, len(servers)) for word in column.dictionary.to_pylist()), len(servers)]
    )
    return meaning[pc.fill_null(column.indices, len(meaning) - 1).to_numpy(zero_copy_only=False)]


def _failed_attempts(requests: Any, servers: Sequence[str]) -> list[int]:
    """How many attempts failed at each server."""
    attempts = pc.list_flatten(requests.column("attempts"))
    counts = dict.fromkeys(servers, 0)
    if len(attempts):
        failed = pc.is_valid(pc.struct_field(attempts, "failure"))
        urls = pc.struct_field(attempts, "server").filter(failed)
        for entry in pc.value_counts(urls).to_pylist():
            if entry["values"] in counts:
                counts[entry["values"]] = entry["counts"]
    return [counts[url] for url in servers]


def _numbers(requests: Any, name: str) -> Any:
    """A column as int64; null is 0."""
    return pc.cast(requests.column(name), "int64").fill_null(0).to_numpy()


def _present(requests: Any, name: str) -> Any:
    return pc.is_valid(requests.column(name)).to_numpy()
