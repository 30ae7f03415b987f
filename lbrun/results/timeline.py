"""A run over time, from its records: arrays for the report's plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lbrun.results.metrics import server_codes
from lbrun.results.table import ATTEMPT_TYPE

_ATTEMPT = [ATTEMPT_TYPE.field(i).name for i in range(ATTEMPT_TYPE.num_fields)]
_CDF_POINTS = 400


@dataclass(frozen=True, slots=True)
class Timeline:
    """Equal bins of time. Per server: arrays of the length of `edges_s` less one.

    edges_s: borders of the bins, seconds since the run's start. tokens_per_s: output tokens of the
    samples completed in each bin. in_flight: requests that are out, failed ones too, mean over each bin.
    """

    edges_s: Any
    tokens_per_s: tuple[Any, ...]
    in_flight: tuple[Any, ...]


def timeline(requests: Any, servers: Sequence[str], n_bins: int = 120) -> Timeline | None:
    """Cut the run into bins; None where no sample was answered."""
    answered = requests.filter(
        pc.and_(
            pc.is_null(requests.column("failure")),
            pc.and_(pc.is_valid(requests.column("sent_ns")), pc.is_valid(requests.column("done_ns"))),
        )
    )
    if answered.num_rows == 0:
        return None
    done = answered.column("done_ns").to_numpy() / 1e9
    tokens = answered.column("n_tokens").to_numpy()
    codes = server_codes(answered, servers)
    sent_s, end_s, sent_to = _sent(answered, requests, servers)
    begin, end = float(sent_s.min()), float(end_s.max())
    edges = np.linspace(begin, max(end, begin + 1e-6), n_bins + 1)
    width = edges[1] - edges[0]
    per_s, out = [], []
    for server in range(len(servers)):
        here, there = codes == server, sent_to == server
        per_s.append(np.histogram(done[here], edges, weights=tokens[here])[0] / width)
        out.append(_mean_in_flight(sent_s[there], end_s[there], edges))
    return Timeline(edges, tuple(per_s), tuple(out))


def _sent(answered: Any, requests: Any, servers: Sequence[str]) -> tuple[Any, Any, Any]:
    """Of all requests that were sent: begin and end in seconds, and the server."""
    only = answered.filter(pc.is_null(answered.column("attempts")))
    several = pa.table(
        pc.list_flatten(requests.column("attempts").combine_chunks()).flatten(), names=_ATTEMPT
    )
    several = several.filter(pc.and_(pc.is_valid(several["sent_ns"]), pc.is_valid(several["end_ns"])))
    several = several.set_column(0, "server", several["server"].dictionary_encode())
    sent = np.concatenate((only["sent_ns"].to_numpy(), several["sent_ns"].to_numpy())) / 1e9
    ended = np.concatenate((only["done_ns"].to_numpy(), several["end_ns"].to_numpy())) / 1e9
    return sent, ended, np.concatenate((server_codes(only, servers), server_codes(several, servers)))


def cumulative(values_ms: Any) -> tuple[Any, Any] | None:
    """The distribution function of some values: (ms, share up to there), thinned to a few hundred points."""
    if len(values_ms) == 0:
        return None
    # Half of the points lie in the last tenth: the tail is what the reader looks for.
    shares = np.concatenate((np.linspace(0, 0.9, _CDF_POINTS // 2), np.linspace(0.9, 1, _CDF_POINTS // 2)))
    return np.quantile(values_ms, shares, method="inverted_cdf"), shares


def latencies_ms(requests: Any, from_column: str, to_column: str) -> Any:
    """The time between two columns of the answered samples that have both, in milliseconds."""
    good = requests.filter(
        pc.and_(
            pc.is_null(requests.column("failure")),
            pc.and_(pc.is_valid(requests.column(from_column)), pc.is_valid(requests.column(to_column))),
        )
    )
    return (good.column(to_column).to_numpy() - good.column(from_column).to_numpy()) / 1e6


def _mean_in_flight(sent: Any, done: Any, edges: Any) -> Any:
    """The time that all requests together spent in each bin, divided by the bin's width."""
    return np.diff(_time_before(done, edges) * -1 + _time_before(sent, edges)) / np.diff(edges)


def _time_before(moments: Any, edges: Any) -> Any:
    """For each edge: the sum over the moments before it of how long before it they were."""
    moments = np.sort(moments)
    sums = np.concatenate(([0.0], np.cumsum(moments)))
    n = np.searchsorted(moments, edges)
    return n * edges - sums[n]
