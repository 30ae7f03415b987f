"""The client's own delays, measured while it runs, and when they would distort a result.

A client that is too slow looks like a slow server. Three delays tell: from LoadGen's issue to the request on
the wire, from the last byte of an answer to its completion at LoadGen, and how late the event loop is.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Mapping
from typing import Any

LIMIT_SHARE = 0.05
"""More than this share of the latency limit is worth a warning."""
BUSY_SHARE = 0.9
"""An event loop that is busier than this has no reserve."""

_SUB_BITS = 4  # 16 steps to a factor of two: percentiles are at most 6 % too high
_SAMPLE_S = 0.02


class DelayHistogram:
    """Counts delays in log-linear buckets: constant memory, a percentile at any time.

    Adding costs about 0.2 us, so it is done once a batch, with the batch's longest delay.
    """

    __slots__ = ("_buckets", "_max_ns", "_n")

    def __init__(self) -> None:
        self._buckets = [0] * (64 << _SUB_BITS)
        self._n = 0
        self._max_ns = 0

    def add(self, delay_ns: int, n: int = 1) -> None:
        """Count n delays of so many nanoseconds; negative ones count as 0."""
        if delay_ns < 0:
            delay_ns = 0
        shift = max(0, delay_ns.bit_length() - _SUB_BITS - 1)
        self._buckets[(shift << _SUB_BITS) + (delay_ns >> shift)] += n
        self._n += n
        if delay_ns > self._max_ns:
            self._max_ns = delay_ns

    def quantile_ms(self, q: float) -> float:
        """An upper bound of the quantile, in milliseconds; 0 where nothing was counted."""
        left = q * self._n
        for bucket, n in enumerate(self._buckets):
            left -= n
            if n and left <= 0:
                return min(_upper_ns(bucket), self._max_ns) / 1e6
        return self._max_ns / 1e6

    def summary_ms(self) -> dict[str, float] | None:
        """p50, p99 and max in milliseconds; None where nothing was counted."""
        if not self._n:
            return None
        return {"p50": self.quantile_ms(0.5), "p99": self.quantile_ms(0.99), "max": self._max_ns / 1e6}


def _upper_ns(bucket: int) -> int:
    """The largest delay of a bucket."""
    if bucket < 2 << _SUB_BITS:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    return (((bucket - (shift << _SUB_BITS)) + 1) << shift) - 1


class ClientWatch:
    """Measures the event loop's lateness and CPU from `start` to `stop`, fifty times a second."""

    def __init__(self) -> None:
        self.loop_lag = DelayHistogram()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin on the running loop, whose thread this is."""
        self._loop = asyncio.get_running_loop()
        self._wall_s, self._thread_s, self._cpu_s = time.monotonic(), time.thread_time(), _cpu_s()
        self._due_s = self._loop.time() + _SAMPLE_S
        self._timer = self._loop.call_at(self._due_s, self._sample)

    def _sample(self) -> None:
        now_s = self._loop.time()
        self.loop_lag.add(int((now_s - self._due_s) * 1e9))
        self._due_s = now_s + _SAMPLE_S
        self._timer = self._loop.call_at(self._due_s, self._sample)

    def stop(self) -> dict[str, Any]:
        """End, and tell: CPU seconds, cores used, and the share of time that the loop's thread was busy."""
        if self._timer is not None:
            self._timer.cancel()
        wall_s = max(time.monotonic() - self._wall_s, 1e-9)
        cpu_s = _cpu_s() - self._cpu_s
        return {
            "cpu_s": cpu_s,
            "cores_used": cpu_s / wall_s,
            "loop_busy": (time.thread_time() - self._thread_s) / wall_s,
            "loop_lag_ms": self.loop_lag.summary_ms(),
        }


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def alerts(client: Mapping[str, Any], limits_ms: Mapping[str, float]) -> list[str]:
    """What to warn of in the first lines of a summary.

    client: as in ``result.json``. limits_ms: LoadGen's latency limits by name (``TTFT``, ``latency``), those
    that are in force.
    """
    found = []
    if limits_ms:
        name, limit_ms = min(limits_ms.items(), key=lambda item: item[1])
        for key, what in (
            ("issue_to_wire_ms", "from LoadGen's issue to the wire"),
            ("last_byte_to_loadgen_ms", "from the last byte to LoadGen"),
        ):
            spread = client.get(key)
            if spread and spread["p99"] > LIMIT_SHARE * limit_ms:
                found.append(
                    f"the client itself took {spread['p99']:.3g} ms {what} (p99), over 5 % of the "
                    f"{name} limit of {limit_ms:g} ms: the latencies are not the servers' alone"
                )
    busy = max(client.get("loop_busy", 0.0), *client.get("worker_busy", ()), 0.0)
    if busy > BUSY_SHARE:
        found.append(
            f"the client's event loop was busy {busy:.0%} of the time: it may be the bottleneck; "
            "use more worker processes (client.workers) or cores"
        )
    return found
