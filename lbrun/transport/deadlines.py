"""When the time of an attempt is over. Pure: times in, a verdict out.

Progress is content. A server that sends interim heads (1xx), SSE comments, blanks or an error's endless body
is as silent as one that sends nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from lbrun.attempt import FailureKind
from lbrun.transport.patience import TIMES, Patience
from lbrun.transport.settings import Timeouts

END_GRACE_NS = 400_000_000
"""A stream that said its end mark is complete this long after its last byte, even where the server does not
end the HTTP message. With the longest interval between two sweeps it stays below a second."""
_LOOK_AFTER_NS = 1_000_000_000
END_NS = 3_000_000_000
"""The same as END_GRACE_NS for a stream whose end mark is followed by comments."""
ERROR_BODY_NS = 5_000_000_000
"""The body of an answer that is no success is read for so long. What has come by then says what is wrong."""


_NO_ERROR = (0, 200)


class Overdue(NamedTuple):
    """A deadline that has passed; kind None: what has come says all, only the HTTP message has not ended."""

    kind: FailureKind | None
    message: str


_COMPLETE = Overdue(None, "")


class Deadlines:
    """The timeouts of attempts that are on a connection.

    look_after_ns: content is to be looked for once none was seen for so long; a look takes time.
    """

    def __init__(self, timeouts: Timeouts, patience: Patience | None = None) -> None:
        """patience: the limit on a whole answer where the settings have none."""
        kinds, never = FailureKind, float("inf")
        self._patience = patience
        self._first_byte_ns = _ns(timeouts.first_byte_s)
        self._idle_ns = _ns(timeouts.idle_s)
        self._total_ns = _ns(timeouts.total_s)
        self.look_after_ns = min(_LOOK_AFTER_NS, self._idle_ns / 4)
        self._first_byte = Overdue(
            kinds.FIRST_BYTE_TIMEOUT, f"no byte of answer within {timeouts.first_byte_s or never:g} s"
        )
        idle_s = timeouts.idle_s or never
        self._idle = Overdue(kinds.IDLE_TIMEOUT, f"no further byte of the answer within {idle_s:g} s")
        self._empty = Overdue(
            kinds.IDLE_TIMEOUT,
            f"no content within {idle_s:g} s, only comments, blanks or interim answers",
        )
        self._total = Overdue(
            kinds.TOTAL_TIMEOUT, f"the answer was not complete within {timeouts.total_s or never:g} s"
        )

    def overdue(
        self,
        now_ns: int,
        sent_ns: int,
        first_byte_ns: int,
        last_byte_ns: int,
        content_ns: int,
        ended: bool,
        status: int,
    ) -> Overdue | None:
        """The deadline that an attempt has missed, None where it is in time.

        content_ns: when content last came, as far as that was looked for; its first byte's time until then.
        ended: its stream has had its end mark. status: 0 until the head of the answer is complete. The other
        times as in `lbrun.transport.connection.Connection`.
        """
        if not first_byte_ns:
            if now_ns - sent_ns > self._first_byte_ns:
                return self._first_byte
        elif ended:
            silent = now_ns - last_byte_ns > END_GRACE_NS or now_ns - content_ns > END_NS
            return _COMPLETE if silent else None
        elif status not in _NO_ERROR:
            if now_ns - content_ns > ERROR_BODY_NS:
                return _COMPLETE
        elif now_ns - content_ns > self._idle_ns:
            return self._idle if now_ns - last_byte_ns > self._idle_ns else self._empty
        if now_ns - sent_ns > self._total_ns:
            return self._total
        patience = self._patience
        if patience is not None and now_ns - sent_ns > patience.limit_ns:
            return Overdue(
                FailureKind.TOTAL_TIMEOUT,
                f"the answer was not complete within {patience.limit_ns * 1e-9:.0f} s, "
                f"{TIMES} times what a full one takes here",
            )
        return None


def _ns(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds * 1e9
