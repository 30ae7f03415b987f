"""What the servers count, and how it reads on `/metrics`: Prometheus text with the real servers' names.

Names, labels and histogram bounds are those of vLLM 0.32 and SGLang 0.5.23, reduced to what the simulated
engine can tell truthfully.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

# fmt: off
VLLM_TTFT_BOUNDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)
VLLM_TPOT_BOUNDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)
VLLM_E2E_BOUNDS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)
SGLANG_TTFT_BOUNDS = (
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0,
)
SGLANG_E2E_BOUNDS = (*SGLANG_TTFT_BOUNDS, 600.0, 1200.0, 1800.0, 2400.0)
# fmt: on


class Finished(Protocol):
    """What is recorded of a request; times in seconds of one clock."""

    n_prompt: int
    n_emitted: int
    arrived_s: float

    @property
    def started_s(self) -> float:
        """When it got its slot."""

    @property
    def first_s(self) -> float:
        """When its first token was due."""


class Histogram:
    """A Prometheus histogram. bounds: upper ends of the buckets, rising, without infinity."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, `times` times."""
        self._counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound, how many are at most that), the last bound being +Inf."""
        rows, total = [], 0
        for bound, count in zip((*self.bounds, "+Inf"), self._counts, strict=True):
            total += count
            rows.append((str(bound), total))
        return rows


class ServerMetrics:
    """Counters and histograms of one server since its start."""

    def __init__(self, backend: str) -> None:
        vllm = backend == "vllm"
        self._by_streaming = not vllm  # SGLang tells streams and whole answers apart, vLLM does not
        self.prompt_tokens: Counter[bool] = Counter()  # by whether streamed
        self.generation_tokens: Counter[bool] = Counter()
        self.requests: Counter[bool] = Counter()
        self.finished: Counter[str] = Counter()  # by reason
        self.ttft = {s: Histogram(VLLM_TTFT_BOUNDS if vllm else SGLANG_TTFT_BOUNDS) for s in (False, True)}
        self.e2e = {s: Histogram(VLLM_E2E_BOUNDS if vllm else SGLANG_E2E_BOUNDS) for s in (False, True)}
        self.inter_token = Histogram(VLLM_TPOT_BOUNDS)
        self.queue_time = Histogram(VLLM_E2E_BOUNDS)

    def record(self, request: Finished, reason: str, streamed: bool, now_s: float) -> None:
        """Count a request that is over; only answers go into the histograms."""
        streamed = streamed and self._by_streaming
        self.finished[reason] += 1
        self.generation_tokens[streamed] += request.n_emitted
        if reason not in ("stop", "length"):
            return
        self.requests[streamed] += 1
        self.prompt_tokens[streamed] += request.n_prompt
        self.queue_time.observe(request.started_s - request.arrived_s)
        self.ttft[streamed].observe(request.first_s - request.arrived_s)
        self.e2e[streamed].observe(now_s - request.arrived_s)
        if request.n_emitted > 1:
            times = request.n_emitted - 1
            self.inter_token.observe(max(0.0, now_s - request.first_s) / times, times)


class Exposition:
    """Builds the text of `/metrics`.

    labels: those that every line has. Labels stand in alphabetical order, as both servers write them.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        self._lines: list[str] = []

    def family(self, name: str, kind: str, meaning: str) -> None:
        """Begin a metric."""
        self._lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]

    def value(self, name: str, value: float, **labels: str) -> None:
        """One line of the current metric."""
        pairs = sorted({**self._labels, **labels}.items())
        text = ",".join(f'{k}="{_escaped(v)}"' for k, v in pairs)
        self._lines.append(f"{name}{{{text}}} {float(value)!r}")

    def histogram(self, name: str, histogram: Histogram, **labels: str) -> None:
        """All lines of a histogram."""
        rows = histogram.cumulative()
        for bound, count in rows:
            self.value(f"{name}_bucket", count, le=bound, **labels)
        self.value(f"{name}_count", rows[-1][1], **labels)
        self.value(f"{name}_sum", histogram.sum, **labels)

    def text(self) -> bytes:
        """The whole page."""
        return "\n".join([*self._lines, ""]).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
