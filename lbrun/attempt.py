"""The vocabulary of an attempt: one HTTP request for one sample at one server.

Everything that crosses between the transport (which carries attempts out), the request formats (which
read answers) and the dispatcher (which decides what follows) is here, so that none of them needs to know
the others. All times are ``time.monotonic_ns()``, which is one clock for all processes of a machine.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, Protocol


class FailureKind(IntEnum):
    """How an attempt can fail. What follows from each is decided in ``lbrun.dispatch.retry``."""

    # the connection was never there
    REFUSED = 1
    DNS = 2
    TLS = 3
    CONNECT_TIMEOUT = 4
    # it was there, and ended before a byte of the answer
    STALE_CONNECTION = 5  # a kept-alive connection that the server had closed meanwhile
    LOST_BEFORE_BYTE = 6  # reset or EOF on a fresh connection, or after the request was surely sent
    FIRST_BYTE_TIMEOUT = 7
    # it ended in the middle of the answer
    CUT = 8  # reset or EOF before the end of the HTTP message
    IDLE_TIMEOUT = 9  # no content for `idle_timeout_s` in the middle of the answer
    TOTAL_TIMEOUT = 10
    # it ended well, and says something that is no answer
    MALFORMED = 11  # no HTTP, wrong length, no JSON, not the protocol's fields
    NO_END_MARK = 12  # the stream ended without [DONE] or a finish reason
    ERROR_IN_ANSWER = 13  # status 200 with an error object or event in it
    EMPTY_ANSWER = 14  # a well-formed answer without a single token
    NO_TOKEN_COUNT = 15  # the answer does not say how many tokens it has
    TOO_LARGE = 16  # a head or body beyond the limits
    IMPLAUSIBLE = 17  # more tokens than were asked for, a negative count, a token id outside the vocabulary
    MISMATCH = 18  # the answer to another request
    # the server says no
    HTTP_429 = 20
    HTTP_503 = 21
    HTTP_5XX = 22
    HTTP_4XX = 23  # every other status that is not 200, redirects included
    HTTP_MOMENT = 24  # 408, 409, 423, 425: the same request may succeed later
    # not the server's doing
    LOCAL = 30  # no descriptor or port left on this machine
    EVICTED = 31  # taken back from an ejected server before anything of its answer
    WORKER_DIED = 32
    NOT_SENT = 33  # the run ended before it was the sample's turn


class Answer(NamedTuple):
    """What a request format read from a complete answer.

    n_tokens: output tokens as the server counted them; never 0, never guessed.
    n_input_tokens: prompt tokens as the server counted them, 0 where it does not say.
    payload: what LoadGen logs (int32 little-endian token ids, or UTF-8 text); None where not asked for.
    finish_reason: ``stop``, ``length`` or the server's own word; "" where it does not say.
    """

    n_tokens: int
    n_input_tokens: int
    payload: bytes | None
    finish_reason: str


class BadAnswer(Exception):
    """A request format's verdict that a complete HTTP answer is no answer to the sample."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind, self.message = kind, message
        super().__init__(message)


class AttemptResult(NamedTuple):
    """A successful attempt.

    sent_ns: request written to the socket. first_token_ns: 0 for whole answers. done_ns: last byte read.
    """

    sent_ns: int
    first_byte_ns: int
    first_token_ns: int
    done_ns: int
    answer: Answer


class AttemptFailure(NamedTuple):
    """A failed attempt.

    sent: the request had been written, so the server may have begun to work on it.
    any_byte: at least one byte of the answer had arrived.
    reused: the attempt rode on a kept-alive connection.
    retry_after_s: the server's wish (429, 503), None where it has none.
    first_token_ns: 0 where no token had arrived.
    """

    kind: FailureKind
    message: str
    at_ns: int
    sent_ns: int = 0
    sent: bool = False
    any_byte: bool = False
    reused: bool = False
    status: int = 0
    retry_after_s: float | None = None
    first_token_ns: int = 0


class AttemptSink(Protocol):
    """Who receives what became of attempts: the dispatcher. Called on the dispatcher's event loop.

    Every submitted attempt ends in exactly one call of `completed` or `failed`, unless it was cancelled.
    `first_token` comes at most once, and before either. No method may raise.
    """

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        """The first token of a stream has arrived; payload as in `Answer`."""

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        """The attempt has a full answer."""

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        """The attempt has no answer."""


class Worker(Protocol):
    """Who carries attempts out: it owns connections, and knows neither samples' fates nor policy.

    Submissions may be buffered until `flush`, so that one hand-over serves many of them.
    """

    def start(self, sink: AttemptSink) -> None:
        """Begin to work; called once, on the dispatcher's running event loop."""

    def submit(self, attempt_id: int, sample_index: int, server: int, fresh: bool = False) -> None:
        """Send the sample's prepared body to the server (index into the pool).

        fresh: do not use a kept-alive connection.
        """

    def flush(self) -> None:
        """Hand over what was submitted since the last flush."""

    def cancel(self, attempt_id: int) -> None:
        """Drop the attempt and close its connection; it is not reported any more."""

    def evict(self, server: int) -> None:
        """Fail (EVICTED) the server's attempts that have nothing of an answer; drop idle connections."""

    def last_byte_ns(self, server: int) -> int:
        """When the server last sent a byte of any answer, 0 if never."""

    async def close(self) -> None:
        """Close all connections; what is still open is not reported any more."""
