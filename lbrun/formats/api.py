"""What every request format offers: a sample becomes bytes, and bytes become an answer."""

from __future__ import annotations

from typing import Protocol

from lbrun.attempt import Answer, BadAnswer
from lbrun.datasets.api import Sample


class StreamDecoder(Protocol):
    """Reads one SSE stream, fed in any split.

    It never raises from `feed`; trouble is kept in `error`, after which nothing more is read.
    """

    has_token: bool  # the first output token has been seen
    ended: bool  # the protocol's end mark has been seen
    error: BadAnswer | None
    n_content: int  # reads that brought data so far; comments and blanks are none

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body (transfer encoding already removed)."""

    def first_payload(self) -> bytes | None:
        """The first token's payload, as LoadGen wants it; None where payloads were not asked for."""

    def goes_on_too_long(self) -> str | None:
        """Why the stream is to be cut off: it brings more than was asked for; None where it does not."""

    def finish(self) -> Answer:
        """The answer, once the body has ended. Raises BadAnswer where there is none."""


class RequestFormat(Protocol):
    """How a sample is asked for and how the answer is read. Pure: knows nothing but bytes."""

    name: str
    path: str  # e.g. /v1/completions, below the server's base URL
    stream: bool
    max_tokens: int  # output tokens that a request asks for at most

    def encode(self, sample: Sample) -> bytes:
        """The request body, JSON. Raises ValueError for a sample it cannot express."""

    def decode(self, body: bytes) -> Answer:
        """Read a whole (not streamed) answer of status 200. Raises BadAnswer."""

    def stream_decoder(self) -> StreamDecoder:
        """A new decoder for one streamed answer."""
