"""What a protocol offers to the application: how requests are read, and how answers are written.

The application owns time, connections and faults; a backend knows nothing but bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from lbrun.embedded.answers import Answer
from lbrun.embedded.engine import Engine, Ticket
from lbrun.embedded.exchange import Reply

DONE = b"data: [DONE]\n\n"

encode = msgspec.json.Encoder().encode


def sse(event: object) -> bytes:
    """One event of a stream."""
    return b"data: " + encode(event) + b"\n\n"


class Asked(NamedTuple):
    """A request for a generation. request_id: what the client wants it to be called, if anything."""

    body: bytes
    content_type: bytes | None = None
    request_id: str | None = None


class Generation(Protocol):
    """One request that is being answered, and how its answer is written.

    head_at_once: a stream's head is sent when the request is taken, not with the first token.
    """

    stream: bool
    head_at_once: bool
    n_prompt: int
    answer: Answer
    luck: float

    def whole(self, ticket: Ticket, engine: Engine) -> bytes:
        """The body of a whole answer."""

    def opening(self) -> bytes:
        """The event before the first token's, b"" where there is none."""

    def tokens(self, first: int, end: int, ticket: Ticket, engine: Engine) -> bytes:
        """The event for tokens `first` up to, without, `end`."""

    def closing(self) -> list[bytes]:
        """The events after the last token's."""


class Backend(Protocol):
    """One server's protocol.

    control: answers that need no engine, by path and method. generations: readers of requests, by path;
    a reader raises RefusalError. Errors and health are in the backend's own words.
    """

    model: str  # as it is listed and served; a fault may change it
    control: Mapping[str, Mapping[str, Callable[[bytes], Reply]]]
    generations: Mapping[str, Callable[[Asked], Generation]]
    health_paths: frozenset[str]
    dies_politely: bool  # a server that is ended tells its clients

    def error(self, status: int, message: str, kind: str = "BadRequestError") -> Reply:
        """An error as a whole answer."""

    def error_event(self, message: str) -> bytes:
        """An error in the middle of a stream."""
