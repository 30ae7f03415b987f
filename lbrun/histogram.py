"""A histogram of delays in constant memory, which may be memory that processes share."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any

_SUB_BITS = 4  # 16 steps to a factor of two: percentiles are at most 6 % too high
_MAX = 64 << _SUB_BITS  # the cell behind the buckets
N_CELLS = _MAX + 1


class DelayHistogram:
    """Counts delays in log-linear buckets: a percentile at any time.

    Adding costs about 0.2 us, so it is done once a batch, with the batch's longest delay.

    cells: `N_CELLS` integers of 64 bits, which another process may read meanwhile; None: a list of its own.
    """

    __slots__ = ("cells",)

    def __init__(self, cells: Any = None) -> None:
        self.cells: MutableSequence[int] = [0] * N_CELLS if cells is None else cells

    def add(self, delay_ns: int, n: int = 1) -> None:
        """Count n delays of so many nanoseconds; negative ones count as 0."""
        if delay_ns < 0:
            delay_ns = 0
        cells = self.cells
        shift = delay_ns.bit_length() - _SUB_BITS - 1
        if shift < 0:
            shift = 0
        cells[(shift << _SUB_BITS) + (delay_ns >> shift)] += n
        if delay_ns > cells[_MAX]:
            cells[_MAX] = delay_ns

    def quantile_ms(self, q: float) -> float:
        """An upper bound of the quantile, in milliseconds; 0 where nothing was counted."""
        cells = self.cells
        left = q * sum(cells[:_MAX])
        for bucket, n in enumerate(cells[:_MAX]):
            left -= n
            if n and left <= 0:
                return min(_upper_ns(bucket), cells[_MAX]) / 1e6
        return cells[_MAX] / 1e6

    def summary_ms(self) -> dict[str, float] | None:
        """p50, p99 and max in milliseconds; None where nothing was counted."""
        if not any(self.cells[:_MAX]):
            return None
        return {"p50": self.quantile_ms(0.5), "p99": self.quantile_ms(0.99), "max": self.cells[_MAX] / 1e6}


def difference(now: Sequence[int], before: Sequence[int]) -> DelayHistogram:
    """What was counted between two copies of a histogram's cells; the maximum is the later one's."""
    return DelayHistogram([*(n - m for n, m in zip(now[:_MAX], before[:_MAX], strict=True)), now[_MAX]])


def _upper_ns(bucket: int) -> int:
    """The largest delay of a bucket."""
    if bucket < 2 << _SUB_BITS:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    return (((bucket - (shift << _SUB_BITS)) + 1) << shift) - 1
