"""A sample between issue and completion, and the samples that wait to be sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from lbrun.dispatch.retry import History


class OpenSample:
    """A sample that has been sent at least once and is not completed.

    tokens: its cost for the balancer. acquired_s: when the present attempt was begun. first_token_ns: when
    its first token was reported to LoadGen; it stays through restarts. history: None until something fails.
    """

    __slots__ = (
        "acquired_s",
        "first_token_ns",
        "history",
        "issued_ns",
        "query_id",
        "sample_index",
        "server",
        "tokens",
    )

    def __init__(self, query_id: int, sample_index: int, issued_ns: int, tokens: int) -> None:
        self.query_id = query_id
        self.sample_index = sample_index
        self.issued_ns = issued_ns
        self.tokens = tokens
        self.server = -1
        self.acquired_s = 0.0
        self.first_token_ns = 0
        self.history: History | None = None


class Unsent:
    """The samples that LoadGen issued and nobody has sent, first in first out.

    Kept as LoadGen's batches with a cursor: Offline issues every sample of the run in one batch, and
    nothing is made for a sample before its turn.
    """

    __slots__ = ("_batches", "_cursor", "_len")

    def __init__(self) -> None:
        self._batches: deque[tuple[Sequence[int], Sequence[int], int]] = deque()
        self._cursor = 0
        self._len = 0

    def __len__(self) -> int:
        return self._len

    def add(self, query_ids: Sequence[int], sample_indices: Sequence[int], issued_ns: int) -> None:
        """Append a batch; both sequences have the same length."""
        if query_ids:
            self._batches.append((query_ids, sample_indices, issued_ns))
            self._len += len(query_ids)

    def peek_index(self) -> int:
        """The next sample's index into the dataset."""
        return self._batches[0][1][self._cursor]

    def pop(self) -> tuple[int, int, int]:
        """The next (query id, sample index, issued_ns). Raises IndexError when there is none."""
        query_ids, indices, issued_ns = self._batches[0]
        at = self._cursor
        taken = query_ids[at], indices[at], issued_ns
        self._len -= 1
        if at + 1 == len(query_ids):
            self._batches.popleft()
            self._cursor = 0
        else:
            self._cursor = at + 1
        return taken
