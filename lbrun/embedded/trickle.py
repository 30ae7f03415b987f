"""A good answer that comes slowly, or in pieces that know nothing of events and characters.

It stands in for the server's own ``send`` of ASGI: what is sent is written by hand, a piece at a time, with
``connection: close``, since the server knows nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from starlette.types import Message

from lbrun.embedded.exchange import Exchange
from lbrun.embedded.faults import Fault, FaultKind

_HEAD_PIECE = 16
_SLOW_PIECES = 8  # of a whole answer; events of a stream come in halves
_CUTS = 3


class Trickle:
    """Carries one answer to the client as the fault has it."""

    def __init__(self, exchange: Exchange, fault: Fault) -> None:
        self._exchange, self._connection = exchange, exchange.connection
        self._kind, self._gap_s = fault.kind, fault.gap_s
        self._chunked = False
        self._n_writes = 0

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message."""
        if message["type"] == "http.response.start":
            headers = [(b"connection", b"close"), *message["headers"]]
            self._chunked = not any(name == b"content-length" for name, _ in headers)
            if self._chunked:
                headers.append((b"transfer-encoding", b"chunked"))
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            await self._write(b"HTTP/1.1 %d \r\n%b\r\n" % (message["status"], lines), is_head=True)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        if self._chunked and not more:
            body += b"0\r\n\r\n"
        await self._write(body, is_head=False)
        if not more:
            self._connection.close()
            await self._exchange.until_lost()

    async def _write(self, data: bytes, *, is_head: bool) -> None:
        first = True
        for piece in self._pieces(data, is_head):
            if not first:
                await asyncio.sleep(self._gap_s)
            first = False
            if self._connection.transport.is_closing():
                return
            self._connection.write_raw(piece)

    def _pieces(self, data: bytes, is_head: bool) -> Iterator[bytes]:
        match self._kind:
            case FaultKind.SLOW_HEADERS if is_head:
                size = _HEAD_PIECE
            case FaultKind.SLOW_BODY if not is_head:
                size = max(1, -(-len(data) // (2 if self._chunked else _SLOW_PIECES)))
            case FaultKind.SPLIT_PACKETS:
                yield from self._odd_pieces(data)
                return
            case _:
                size = max(1, len(data))
        for at in range(0, len(data), size):
            yield data[at : at + size]

    def _odd_pieces(self, data: bytes) -> Iterator[bytes]:
        """Three pieces; the places of the cuts move on by a byte with every write, so each place is hit."""
        self._n_writes += 1
        length = len(data)
        cuts = sorted({(self._n_writes + k * (length // _CUTS + 1)) % max(1, length) for k in range(_CUTS)})
        for start, end in zip([0, *cuts], [*cuts, length], strict=True):
            if end > start:
                yield data[start:end]
