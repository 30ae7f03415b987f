"""One HTTP request and its answer, in the words that the application needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from lbrun.embedded.connection import SCOPE_KEY, Connection

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"

_VARY = (b"vary", b"Origin")  # both servers send it with every answer


class Reply(NamedTuple):
    """A whole answer. content_type None: no such header, as with an empty body."""

    status: int = 200
    body: bytes = b""
    content_type: bytes | None = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class RefusalError(Exception):
    """A request is answered with this instead of a generation."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status, reply.body)
        self.reply = reply


class Exchange:
    """One request. The connection stays usable for the next one unless a fault ends it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.connection: Connection = scope["state"][SCOPE_KEY]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive, self._send = receive, send
        self.stream_open = False

    def deliver_by(self, wrap: Callable[[Send], Send]) -> None:
        """Let another callable carry the answer. wrap: makes it around the present one."""
        self._send = wrap(self._send)

    def header(self, name: bytes) -> bytes | None:
        """A request header's value; names are lower case."""
        return next((value for key, value in self.headers if key == name), None)

    async def body(self) -> bytes:
        """The whole request body."""
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        parts = [body]
        while message.get("more_body"):
            message = await self._receive()
            parts.append(message.get("body", b""))
        return b"".join(parts)

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body)), _VARY]
        if reply.content_type is not None:
            headers.insert(-1, (b"content-type", reply.content_type))
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": reply.body})

    async def open_stream(self) -> None:
        """Send the head of an event stream."""
        self.stream_open = True
        headers = [(b"content-type", EVENT_STREAM), _VARY]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def event(self, data: bytes) -> None:
        """Send one chunk of the stream."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self) -> None:
        """End the stream as HTTP wants it."""
        await self._send({"type": "http.response.body", "body": b""})

    async def until_lost(self) -> None:
        """Wait until the connection is closed, by whichever side."""
        lost = asyncio.get_running_loop().create_future()
        self.connection.on_lost = lambda: None if lost.done() else lost.set_result(None)
        if self.connection.parser is not None:  # uvicorn drops it when the connection is lost
            await lost

    async def sent(self) -> None:
        """Wait until the kernel has what was written: a reset would drop what is still buffered here."""
        await asyncio.sleep(0)  # uvloop hands over at the end of a turn what was written in it
        transport = self.connection.transport
        while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
