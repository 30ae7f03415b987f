"""Reads one HTTP/1.1 answer after the other from the bytes of a connection. Pure: bytes in, state out.

The parser is llhttp, by httptools. Its calls for headers and pieces of a body go straight to C
(`dict.setdefault`, `list.append`), so that a chunk of a stream costs no Python at all.
"""

from __future__ import annotations

from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from lbrun.attempt import FailureKind
from lbrun.transport.settings import Limits

_ERROR_BODY_KEPT = 4 * 1024
_HARMLESS = frozenset(
    name
    for spelling in (
        b"Cache-Control",
        b"Connection",
        b"Content-Length",
        b"Content-Type",
        b"Date",
        b"Keep-Alive",
        b"Server",
        b"Vary",
        b"X-Accel-Buffering",
        b"X-Request-Id",
    )
    for name in (spelling, spelling.lower())
)
"""Headers that need no look at here, as servers spell them; any other is looked at in lower case."""


class _HeadRefusedError(Exception):
    """Never leaves the parser: `feed` sees an HttpParserCallbackError, and what is wrong in `trouble`."""


class AnswerReader:
    """The answer that is being read.

    status: 0 until its head is complete; interim answers (1xx) are passed over. headers: as they were
    spelled; of repeated ones the first. parts: pieces of the body that nobody has taken yet. complete: the
    HTTP message has ended. trouble: why it cannot be read on; never with complete. excess: bytes came behind
    its end, so that the connection is of no more use. keep_alive: the server will take another request.
    """

    __slots__ = (
        "_feed",
        "_limits",
        "_max_received",
        "_n_parts",
        "_parser",
        "_received",
        "complete",
        "excess",
        "headers",
        "keep_alive",
        "on_body",
        "on_header",
        "parts",
        "status",
        "trouble",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._n_parts = 0  # of the answer, where others follow behind its end
        self._max_received = limits.max_head_bytes + limits.max_body_bytes
        self.parts: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        # the parser looks these up once, so the list and the dict stay the same for the connection's life
        self.on_body = self.parts.append
        self.on_header = self.headers.setdefault
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._feed: Callable[[bytes], None] = self._parser.feed_data
        self.begin()

    def begin(self) -> None:
        """The next answer is to come."""
        self.status = self._received = 0
        self.trouble: tuple[FailureKind, str] | None = None
        self.complete = self.excess = self.keep_alive = False
        self.parts.clear()
        self.headers.clear()

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the connection. Never raises: see `trouble`."""
        self._received += len(data)
        try:
            self._feed(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self.complete:
                self.excess = True
            elif isinstance(error, HttpParserUpgrade):
                self._refuse(FailureKind.MALFORMED, "the server switched protocols")
            else:
                self._refuse(FailureKind.MALFORMED, f"not HTTP: {error}")
        if self._received > self._limits.max_head_bytes:
            self._check_size()

    def body(self) -> bytes:
        """Take what there is of the body; of an answer that is no success, only the start is kept."""
        if self.excess and self.complete:
            del self.parts[self._n_parts :]
        body = b"".join(self.parts)
        self.parts.clear()
        self._n_parts = 0
        return body

    def n_content(self) -> int:
        """How many pieces of a body that nobody has taken yet are more than blanks."""
        return sum(not part.isspace() for part in self.parts)

    def ends_with_connection(self) -> bool:
        """The answer has neither length nor chunks, so its end is that of the connection (RFC 9112 6.3)."""
        return self.status > 0 and not any(
            name.lower() in (b"content-length", b"transfer-encoding") for name in self.headers
        )

    def close(self) -> None:
        """Undo the cycle with the parser: the garbage collector may be off for the whole run."""
        self._parser, self._feed = None, _discard

    # ---- what the parser calls

    def on_message_begin(self) -> None:
        """Another message begins; behind a complete one it is excess."""
        if self.complete:
            self.excess = True

    def on_headers_complete(self) -> None:
        """Judge the head."""
        if self.complete or self._parser is None:
            return
        self.status = self._parser.get_status_code()
        for name in self.headers:
            if name not in _HARMLESS:
                self._check_header(name.lower(), self.headers[name])
        if self._received > self._limits.max_head_bytes:
            size = sum(len(name) + len(value) + 4 for name, value in self.headers.items())
            if size > self._limits.max_head_bytes:
                self._refuse_head()
        if self.status == 101:
            self._refuse(FailureKind.MALFORMED, "the server switched protocols")
        elif self.status < 100:  # it would have a body, and be passed over as if it were interim
            self._refuse(FailureKind.MALFORMED, f"not HTTP: the status is {self.status:03d}")
        if self.trouble is not None:
            raise _HeadRefusedError  # stops the parser, so that nothing of the body is taken for an answer

    def on_message_complete(self) -> None:
        """The answer ends here, unless it was an interim one."""
        if self.complete or self._parser is None:
            return
        if self.status < 200:
            self.status = 0
            self.headers.clear()
            return
        self._n_parts = len(self.parts)
        self.keep_alive = self._parser.should_keep_alive()
        self.complete = True

    # ---- what is refused

    def _refuse(self, kind: FailureKind, message: str) -> None:
        self.complete = False
        if self.trouble is None:
            self.trouble = (kind, message)

    def _refuse_head(self) -> None:
        limit = self._limits.max_head_bytes
        self._refuse(FailureKind.TOO_LARGE, f"the head is larger than {limit} bytes")

    def _check_header(self, name: bytes, value: bytes) -> None:
        value = value.strip().lower()
        if name == b"content-encoding" and value not in (b"", b"identity"):
            self._refuse(FailureKind.MALFORMED, "the answer is compressed, though identity was asked for")
        elif name == b"transfer-encoding" and value != b"chunked":
            self._refuse(FailureKind.MALFORMED, "the answer has a transfer encoding other than chunked")

    def _check_size(self) -> None:
        if not self.status:
            self._refuse_head()
        elif self._received > self._max_received:
            limit = self._limits.max_body_bytes
            self._refuse(FailureKind.TOO_LARGE, f"the body is larger than {limit} bytes")
        elif self.status != 200 and not self.complete:
            self.parts[:] = [b"".join(self.parts)[:_ERROR_BODY_KEPT]]


def _discard(data: bytes) -> None:
    """Stand in for the parser of a closed connection."""
