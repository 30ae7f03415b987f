"""The client's own delays, measured while it runs, and when they would distort a result.

A client that is too slow looks like a slow server. Three delays tell, and make up its part of a latency:

    LoadGen issues ──to wire──> sent · · server · · byte arrives ──reading──> read ──to LoadGen──> told
                 main and worker's loop                      worker's loop       main loop

Beside them, how busy each loop is: one that is never idle has no reserve.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lbrun.histogram import DelayHistogram
from lbrun.loop_watch import LoopFigures, LoopWatch, figures

if TYPE_CHECKING:
    from lbrun.results.metrics import Distribution, Traffic

__all__ = ["ClientWatch", "DelayHistogram", "alerts", "loop_documents"]

LIMIT_SHARE = 0.05
"""More than this share of a latency limit is worth a warning."""
MEASURED_SHARE = 0.1
"""The same of a latency as it was measured."""
FLOOR_MS = 1.0
"""Less is not: the operating system's own delays are of that size."""
BUSY_SHARE = 0.9
"""An event loop that has, or waits for, a processor for more than this share of the time has no reserve."""
_STARVED_SHARE = 0.1
"""A loop that waits for a processor for more than this share of the time is late because of that."""


class ClientWatch:
    """Measures the main event loop's lateness and the process's CPU from `start` to `stop`."""

    def __init__(self) -> None:
        self._loop = LoopWatch()
        self._before = list(self._loop.cells)

    def start(self) -> None:
        """Begin on the running loop, whose thread this is."""
        self._wall_s, self._cpu_s = time.monotonic(), _cpu_s()
        self._loop.start()

    def stop(self, workers: Sequence[LoopFigures] = ()) -> dict[str, Any]:
        """End, and tell: CPU seconds, cores used, and all loops. workers: those of worker processes."""
        self._loop.stop()
        wall_s = max(time.monotonic() - self._wall_s, 1e-9)
        cpu_s = _cpu_s() - self._cpu_s
        main = figures("main", list(self._loop.cells), self._before)
        return {
            "cpu_s": cpu_s,
            "cores_used": cpu_s / wall_s,
            "loop_busy": main.busy,
            "loop_lag_ms": main.lag_ms,
            "loops": loop_documents([main, *workers]),
            "worker_busy": [worker.busy for worker in workers],
        }


def loop_documents(loops: Sequence[LoopFigures]) -> list[dict[str, Any]]:
    """The loops as ``result.json`` has them."""
    return [loop._asdict() for loop in loops]


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _Part(NamedTuple):
    """One of the client's delays in a latency. what: in words, with a place for the time."""

    what: str
    p50: float
    p99: float
    loops: tuple[str, ...]


class _Distortion(NamedTuple):
    """ratio: of the client's part to what is worth a warning."""

    ratio: float
    part: _Part
    of_what: str
    quantile: str


def alerts(
    client: Mapping[str, Any],
    limits_ms: Mapping[str, float],
    traffic: Traffic | None = None,
    *,
    latencies_count: bool = True,
    cpus: int | None = None,
) -> list[str]:
    """What to warn of in the first lines of a summary.

    client: as in ``result.json``. limits_ms: LoadGen's latency limits by name (``TTFT``, ``TPOT``,
    ``latency``), those that are in force. traffic: what was measured. latencies_count: the run is about
    latencies (Server), not about throughput alone (Offline). cpus: that may be used, where it is known.
    """
    loops = [LoopFigures(**loop) for loop in client.get("loops", ())]
    found = []
    named = None
    if latencies_count:
        worst = max(_distortions(client, loops, limits_ms, traffic), default=None)
        if worst is not None and worst.ratio > 1:
            named = max((x for x in loops if x.name in worst.part.loops), key=_lag_p99, default=None)
            whose = f"; {_described(named)}" if named is not None else ""
            at = getattr(worst.part, worst.quantile)
            found.append(
                f"the client itself took {worst.part.what.format(f'{at:.3g} ms')} ({worst.quantile}), and "
                f"its delays are {worst.of_what}: the latencies are not the servers' alone{whose}; "
                f"{_remedy(named, len(loops) - 1, cpus)}"
            )
    busiest = max(loops, key=lambda loop: loop.busy + loop.waiting, default=None)
    if busiest is not None and busiest is not named and busiest.busy + busiest.waiting > BUSY_SHARE:
        found.append(
            f"the client has no reserve, and may be the bottleneck: {_described(busiest)}; "
            f"{_remedy(busiest, len(loops) - 1, cpus)}"
        )
    return found


def _distortions(
    client: Mapping[str, Any],
    loops: Sequence[LoopFigures],
    limits_ms: Mapping[str, float],
    traffic: Traffic | None,
) -> Iterator[_Distortion]:
    """The client's part of each latency, compared with its limit and with itself."""
    names = tuple(loop.name for loop in loops)
    readers = loops[1:] or loops[:1]
    reading = max((loop for loop in readers if loop.lag_ms), key=_lag_p99, default=None)
    to_wire = _part(client.get("issue_to_wire_ms"), "{} from LoadGen's issue to the wire", names)
    read = None
    if reading is not None:
        read = _part(reading.lag_ms, "{} from the arrival of bytes until they are read", (reading.name,))
    first_told = _part(client.get("first_token_to_loadgen_ms"), "{} from a first token to LoadGen", names)
    last_told = _part(client.get("last_byte_to_loadgen_ms"), "{} from the last byte to LoadGen", names)
    for name, parts, measured in (
        ("TTFT", (to_wire, read, first_told), traffic.ttft_ms if traffic else None),
        ("latency", (to_wire, read, last_told), traffic.latency_ms if traffic else None),
        ("TPOT", (_per_token(read, traffic),), traffic.tpot_ms if traffic else None),
    ):
        yield from _compared(name, [part for part in parts if part], limits_ms.get(name), measured)


def _compared(
    name: str, parts: Sequence[_Part], limit_ms: float | None, measured: Distribution | None
) -> Iterator[_Distortion]:
    """Delays in the middle add up; of the late ones at least the longest is in the figure."""
    if not parts:
        return
    floor_ms = 0.0 if name == "TPOT" else FLOOR_MS
    for quantile in ("p50", "p99"):
        longest = max(parts, key=lambda part: getattr(part, quantile))
        own_ms = sum(part.p50 for part in parts)
        if quantile == "p99":
            own_ms = max(own_ms, longest.p99)
            if limit_ms:
                of_what = f"over {LIMIT_SHARE:.0%} of the {name} limit of {limit_ms:g} ms"  # of the p99
                yield _Distortion(own_ms / max(LIMIT_SHARE * limit_ms, floor_ms), longest, of_what, quantile)
        if measured is not None and getattr(measured, quantile) > 0:
            whole_ms = getattr(measured, quantile)
            share = min(own_ms / whole_ms, 1.0)
            of_what = f"{share:.0%} of the measured {name} of {whole_ms:.3g} ms"
            yield _Distortion(own_ms / max(MEASURED_SHARE * whole_ms, floor_ms), longest, of_what, quantile)


def _part(spread: Mapping[str, float] | None, what: str, loops: tuple[str, ...]) -> _Part | None:
    return _Part(what, spread["p50"], spread["p99"], loops) if spread else None


def _per_token(read: _Part | None, traffic: Traffic | None) -> _Part | None:
    """What late reading does to the time per token: the first or last token of an answer is read late."""
    if read is None or traffic is None or not traffic.completed:
        return None
    gaps = traffic.output_tokens / traffic.completed - 1
    if gaps < 1:
        return None
    return read._replace(what="{} a token by reading late", p50=read.p50 / gaps, p99=read.p99 / gaps)


def _lag_p99(loop: LoopFigures) -> float:
    return loop.lag_ms["p99"] if loop.lag_ms else 0.0


def _described(loop: LoopFigures) -> str:
    """Which loop it is, and what it does with its time."""
    name = "the main event loop" if loop.name == "main" else f"the event loop of {loop.name}"
    text = f"{name} was busy {loop.busy:.0%} of the time"
    return text + f" and waited for a processor {loop.waiting:.0%}" if loop.waiting >= 0.01 else text


def _remedy(loop: LoopFigures | None, workers: int, cpus: int | None) -> str:
    """What to do about it."""
    starved = loop is not None and loop.waiting > _STARVED_SHARE
    if starved or (cpus is not None and cpus <= workers + 1):
        return "use a machine with more free cores, or fewer streams at a time"
    if loop is not None and loop.busy < 0.5:
        return "look for what else holds the machine up, or use fewer streams at a time"
    return f"use client.workers={max(2, 2 * workers)} where cores are free, or fewer streams at a time"
