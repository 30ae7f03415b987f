"""How long a whole answer may take where no limit is set. Pure."""

from __future__ import annotations

from collections import deque
from statistics import median

TIMES = 20
"""An answer may take so many times what a full one takes in this pool: ten for a server that is ten times as
slow as the others, and two for its load."""

UNKNOWN_S, UNKNOWN_S_PER_TOKEN = 3600.0, 1.0
"""The limit while nothing has been answered yet: a first answer may wait until a model is compiled."""

UNBOUNDED_TOKENS = 65_536
"""Output tokens that a request without a limit of its own may take."""

_KEPT = 64


class Patience:
    """Limits the time from a request to the end of its answer.

    It is told of some of the pool's answers, one a sweep, so that an answer costs nothing. A full answer is
    taken to need the longest time seen, for the queue, and at the median pace all tokens asked for.
    """

    __slots__ = ("_least_ns", "_longest_ns", "_max_tokens", "_paces_ns", "limit_ns")

    def __init__(self, max_tokens: int, least_s: float) -> None:
        """max_tokens: that a request asks for at most. least_s: the limit is never below."""
        self._max_tokens = min(max_tokens, UNBOUNDED_TOKENS)
        self._least_ns = least_s * 1e9
        self._longest_ns = 0
        self._paces_ns: deque[float] = deque(maxlen=_KEPT)
        self.limit_ns = max(self._least_ns, (UNKNOWN_S + UNKNOWN_S_PER_TOKEN * self._max_tokens) * 1e9)

    def note(self, took_ns: int, n_tokens: int) -> None:
        """An answer of so many output tokens took so long, from the request to its end."""
        self._longest_ns = max(self._longest_ns, took_ns)
        self._paces_ns.append(took_ns / max(n_tokens, 1))
        full_ns = self._longest_ns + median(self._paces_ns) * self._max_tokens
        self.limit_ns = max(self._least_ns, TIMES * full_ns)
