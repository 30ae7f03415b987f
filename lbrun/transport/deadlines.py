"""When the time of an attempt is over. Pure: times in, a verdict out."""

from __future__ import annotations

from typing import NamedTuple

from lbrun.attempt import FailureKind
from lbrun.transport.settings import Timeouts

END_GRACE_NS = 400_000_000
"""A stream that said its end mark is complete this long after its last byte, even where the server does not
end the HTTP message. With the longest interval between two looks it stays below a second."""


class Overdue(NamedTuple):
    """A deadline that has passed; kind None: the answer is complete, only its HTTP message has not ended."""

    kind: FailureKind | None
    message: str


_COMPLETE = Overdue(None, "")


class Deadlines:
    """The timeouts of attempts that are on a connection."""

    def __init__(self, timeouts: Timeouts) -> None:
        kinds, never = FailureKind, float("inf")
        self._first_byte_ns = _ns(timeouts.first_byte_s)
        self._idle_ns = _ns(timeouts.idle_s)
        self._total_ns = _ns(timeouts.total_s)
        self._first_byte = Overdue(
            kinds.FIRST_BYTE_TIMEOUT, f"no byte of answer within {timeouts.first_byte_s or never:g} s"
        )
        self._idle = Overdue(
            kinds.IDLE_TIMEOUT, f"no further byte of the answer within {timeouts.idle_s or never:g} s"
        )
        self._total = Overdue(
            kinds.TOTAL_TIMEOUT, f"the answer was not complete within {timeouts.total_s or never:g} s"
        )

    def overdue(
        self, now_ns: int, sent_ns: int, first_byte_ns: int, last_byte_ns: int, ended: bool
    ) -> Overdue | None:
        """The deadline that an attempt has missed, None where it is in time.

        ended: its stream has had its end mark. Times as in `lbrun.transport.connection.Connection`.
        """
        if not first_byte_ns:
            if now_ns - sent_ns > self._first_byte_ns:
                return self._first_byte
        elif ended:
            return _COMPLETE if now_ns - last_byte_ns > END_GRACE_NS else None
        elif now_ns - last_byte_ns > self._idle_ns:
            return self._idle
        return self._total if now_ns - sent_ns > self._total_ns else None


def _ns(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds * 1e9
