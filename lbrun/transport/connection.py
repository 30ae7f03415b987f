"""One HTTP/1.1 connection, carrying one attempt at a time.

This is the hot path: it runs for every read of every answer. So there is no task, future or timer, and the
clock is read once a read. What an answer means is for the owner to say, after its end.

The ways an answer can go, once its request was written:

- the HTTP message is complete                                  -> owner.answered
- no length and no chunks, and the connection ends in order     -> owner.answered
- a stream said its end mark, and the connection breaks then    -> owner.answered
- no HTTP, beyond the limits, an error in the stream, cut short -> owner.broken
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol, cast

from lbrun.attempt import BadAnswer, FailureKind
from lbrun.formats.api import StreamDecoder
from lbrun.transport.answer_reader import AnswerReader
from lbrun.transport.lane import Lane
from lbrun.transport.pairing import is_unasked
from lbrun.transport.settings import Limits

STALE_WITHIN_NS = 500_000_000
"""A kept-alive connection that ends without a byte this soon after a request had been closed by the server
before; later, the server has had the request."""

_JOIN_UP_TO = 64 * 1024  # bytes; a copy this small is cheaper than a second buffer in the socket's queue
_SILENCE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000))
"""A machine, or a path to it, that vanished is noticed after 30 s, without any timeout of ours: by probes
while the server owes an answer, by what was not acknowledged (ms) where it never got the request. The kernel
would send that again for a quarter of an hour."""


class ConnectionOwner(Protocol):
    """Who is told what became of a connection's attempt. A connection leaves itself alone after a call."""

    def stream_began(self, connection: Connection, start: bytes) -> None:
        """The first bytes of a stream's body. Raises BadAnswer where they belong to another request."""

    def unasked(self, connection: Connection) -> None:
        """The server sent an answer that nobody had asked for; the connection is closed."""

    def first_token(self, connection: Connection) -> None:
        """The first token of a stream was in the last read. May cancel the attempt."""

    def answered(self, connection: Connection) -> None:
        """The attempt's HTTP message is complete, of whatever status."""

    def broken(self, connection: Connection, kind: FailureKind, message: str) -> None:
        """The attempt has ended without a complete message."""

    def crashed(self, connection: Connection, attempt_id: int, error: Exception) -> None:
        """Reading the attempt's answer, or a call to the owner itself, raised."""

    def lost(self, connection: Connection) -> None:
        """The socket is closed; comes last. Not for one that was closed while it was being made."""


class Connection(asyncio.Protocol):
    """A socket to one server, and the attempt that it carries.

    answer: what the server says; its state is kept until `release`. decoder: reader of the stream, once it
    has begun. All ``*_ns`` are ``time.monotonic_ns()``, 0 for what has not happened; `last_byte_ns` outlives
    the attempt. said: the start of its last answer, and the sample that it was for; None while none is kept.
    content_ns: when content was last seen, its first byte's time until then.
    """

    __slots__ = (
        "_n_content",
        "_new_decoder",
        "_owner",
        "_transport",
        "answer",
        "attempt_id",
        "busy",
        "closed",
        "content_ns",
        "decoder",
        "first_byte_ns",
        "first_token_ns",
        "lane",
        "last_byte_ns",
        "reused",
        "said",
        "sample",
        "sent_ns",
    )

    def __init__(
        self,
        owner: ConnectionOwner,
        lane: Lane,
        limits: Limits,
        new_decoder: Callable[[], StreamDecoder] | None,
    ) -> None:
        """new_decoder: makes the reader of a stream; None where answers come whole."""
        self._owner, self.lane, self._new_decoder = owner, lane, new_decoder
        self._transport: asyncio.Transport | None = None
        self.answer = AnswerReader(limits)
        self.busy = self.closed = self.reused = False
        self.attempt_id = self.sample = -1
        self.said: tuple[bytes, int] | None = None
        self.sent_ns = self.first_byte_ns = self.first_token_ns = self.last_byte_ns = self.content_ns = 0
        self._n_content = 0
        self.decoder: StreamDecoder | None = None

    # ---- what the owner asks for

    def send(self, attempt_id: int, sample: int, body: bytes | memoryview, now_ns: int, reused: bool) -> None:
        """Write the request; the connection must be open and idle."""
        self.attempt_id, self.sample, self.reused, self.busy = attempt_id, sample, reused, True
        self.sent_ns, self.first_byte_ns, self.first_token_ns = now_ns, 0, 0
        size, lane = len(body), self.lane
        head = lane.head % ((size, attempt_id) if lane.request_id else size)
        transport = cast(asyncio.Transport, self._transport)
        if size <= _JOIN_UP_TO:
            transport.write(b"".join((head, body)))
        else:
            transport.writelines((head, body))

    def release(self) -> bool:
        """End the attempt. Returns whether the connection can carry another; otherwise it is closed."""
        answer = self.answer
        if answer.excess:
            answer.keep_alive = False
            self._owner.unasked(self)
        reusable = answer.keep_alive and not self.closed and not self.lane.distrusted
        reusable = reusable and not self._is_sending()
        self.busy = False
        self.decoder = None
        answer.begin()
        if not reusable:
            self.close()
        return reusable

    @property
    def is_empty(self) -> bool:
        """Nothing of an answer has come, or no more of a stream than its head."""
        if self.first_token_ns or self.answer.status not in (0, 200):
            return False
        return not self.first_byte_ns or not self.answer.status or self._new_decoder is not None

    def look_for_content(self) -> None:
        """Set `content_ns` if content came since the last look. Rare, so that a read costs nothing."""
        if self.decoder is not None:
            n_content = self.decoder.n_content
        elif self.answer.status == 200:
            n_content = self.answer.n_content()
        else:
            return
        if n_content != self._n_content:
            self._n_content, self.content_ns = n_content, self.last_byte_ns

    def conclude(self) -> None:
        """Take what has come for the whole answer: the server does not end the HTTP message."""
        self._guard(self._answered_and_over)

    def close(self) -> None:
        """Close the socket at once; nothing is reported of the attempt."""
        self.busy, self.closed = False, True
        self.answer.close()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # ---- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # a socket that was reset meanwhile; the next call tells
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _SILENCE:
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if self.closed:  # nobody wants it any more
            self.close()

    def data_received(self, data: bytes) -> None:
        """Read on in the answer."""
        if not self.busy:
            if self.sent_ns and not self.closed and is_unasked(data):
                self._owner.unasked(self)
            self._end(None)  # an answer to come could not be told apart from this one
            return
        now_ns = monotonic_ns()
        self.lane.last_byte_ns = self.last_byte_ns = now_ns
        if not self.first_byte_ns:
            self.first_byte_ns = self.content_ns = now_ns
        attempt_id = self.attempt_id
        try:
            self.answer.feed(data)
            self._advance()
        except Exception as error:
            self._owner.crashed(self, attempt_id, error)

    def eof_received(self) -> None:
        """The server has closed its side, and with that, for HTTP/1.1, the connection."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._end(exc)
        self._transport = None
        self.answer.close()
        self._owner.lost(self)

    # ---- how an answer goes

    def _advance(self) -> None:
        """Pass on what the last read has brought."""
        answer = self.answer
        if self._new_decoder is not None and answer.parts and answer.status == 200:
            self._read_stream(self._new_decoder)
            if not self.busy:
                return
        if answer.complete:
            self._owner.answered(self)
        elif answer.trouble is not None:
            self._break(*answer.trouble)

    def _read_stream(self, new_decoder: Callable[[], StreamDecoder]) -> None:
        decoder, data = self.decoder, self.answer.body()
        if decoder is None:
            decoder = self.decoder = new_decoder()
            try:
                self._owner.stream_began(self, data)
            except BadAnswer as bad:
                self.answer.keep_alive = False
                self._owner.broken(self, bad.kind, bad.message)
                return
        decoder.feed(data)
        if decoder.has_token and not self.first_token_ns:
            self.first_token_ns = self.last_byte_ns
            self._owner.first_token(self)
            if not self.busy:
                return
        if decoder.error is not None:
            self.answer.keep_alive = False
            self._owner.broken(self, decoder.error.kind, decoder.error.message)

    def _break(self, kind: FailureKind, message: str) -> None:
        """End an answer that cannot go on; a stream that had its end mark had ended before."""
        decoder = self.decoder
        if decoder is not None and decoder.ended and decoder.error is None:
            self._answered_and_over()
        else:
            self.answer.keep_alive = False
            self._owner.broken(self, kind, message)

    def _answered_and_over(self) -> None:
        self.answer.keep_alive = False
        self._owner.answered(self)

    def _end(self, error: Exception | None) -> None:
        """The connection is over, whoever notices first."""
        if self.closed:
            return
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        if not self.busy:
            self.lane.idle.pop(self, None)
        elif error is None and self.answer.ends_with_connection():
            self._guard(self._answered_and_over)
        else:
            self._guard(lambda: self._break(*self._loss(error)))

    def _loss(self, error: Exception | None) -> tuple[FailureKind, str]:
        how = "closed the connection" if error is None else f"dropped the connection ({error})"
        if self.first_byte_ns:
            where = "in the middle of its answer" if self.answer.status else "in the head of its answer"
            return FailureKind.CUT, f"the server {how} {where}"
        if self.reused and monotonic_ns() - self.sent_ns < STALE_WITHIN_NS:
            return FailureKind.STALE_CONNECTION, "the server had closed the kept-alive connection"
        return FailureKind.LOST_BEFORE_BYTE, f"the server {how} without a byte of answer"

    def _guard(self, report: Callable[[], None]) -> None:
        attempt_id = self.attempt_id
        try:
            report()
        except Exception as error:
            self._owner.crashed(self, attempt_id, error)

    def _is_sending(self) -> bool:
        """The answer came before the request was out; the rest of it would still follow."""
        return cast(asyncio.Transport, self._transport).get_write_buffer_size() > 0
