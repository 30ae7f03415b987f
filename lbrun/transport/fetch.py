"""GET requests of the control plane: health, model lists, versions.

They use the data plane's name resolution, TLS and HTTP reader, on connections of their own, so that a probe
meets what an attempt would meet. A request costs a tenth of what the common clients take: a pool may have a
thousand servers, of which hundreds are probed every second.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, cast

from lbrun.attempt import FailureKind
from lbrun.transport.answer_reader import AnswerReader
from lbrun.transport.dial import Dialer
from lbrun.transport.endpoint import Endpoint
from lbrun.transport.settings import Limits

MAX_BODY_BYTES = 1 << 20
_LIMITS = Limits(max_body_bytes=MAX_BODY_BYTES)
_NOT_IN_A_GET = (b"content-type:", b"content-length:")


class Fetched(NamedTuple):
    """A complete answer. body: of one that is no success only the first 4 KiB."""

    status: int
    body: bytes


class FetchError(Exception):
    """There is no complete answer; message: in words, with secrets where the server quoted some."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind, self.message = kind, message
        super().__init__(message)


class Fetcher:
    """Opens connections to one server.

    endpoint: its address and the headers to send. tls: needed for https. connect_timeout_s: for name
    resolution, TCP and TLS together.
    """

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None, connect_timeout_s: float) -> None:
        self._dialer = Dialer(endpoint, tls, connect_timeout_s)
        self._prefix = endpoint.url.partition("://")[2].partition("/")[2].encode()
        lines = endpoint.head.split(b"\r\n")[1:]
        kept = [line for line in lines if line and not line.lower().startswith(_NOT_IN_A_GET)]
        self._headers = b"\r\n".join([*kept, b"", b""])

    def session(self) -> FetchSession:
        """Requests that follow each other, on one connection where the server keeps it open."""
        return FetchSession(self._dialer, self._head)

    def _head(self, path: str) -> bytes:
        prefix = b"/" + self._prefix if self._prefix else b""
        return b"GET %b%b HTTP/1.1\r\n%b" % (prefix, path.encode("ascii"), self._headers)

    def close(self) -> None:
        """Stop a name resolution that nobody waits for any more."""
        self._dialer.close()


class FetchSession:
    """An async context manager: its connection is opened by the first `get` and closed at the end."""

    def __init__(self, dialer: Dialer, head: Callable[[str], bytes]) -> None:
        self._dialer, self._head = dialer, head
        self._connection: _Connection | None = None

    async def __aenter__(self) -> FetchSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    async def get(self, path: str) -> Fetched:
        """Ask for the path, below the prefix of the server's URL. Has no timeout for the answer.

        Raises DialError or FetchError.
        """
        request = self._head(path)
        connection = self._connection
        if connection is not None and connection.is_reusable():
            try:
                return await connection.get(request)
            except FetchError as error:
                if error.kind is not FailureKind.LOST_BEFORE_BYTE:
                    raise
                # the server had closed it after the answer before
        if connection is not None:
            connection.close()
        self._connection = await self._dialer.dial(_Connection)
        return await self._connection.get(request)


class _Connection(asyncio.Protocol):
    """A connection that carries one GET at a time."""

    def __init__(self) -> None:
        self._reader = AnswerReader(_LIMITS)
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Fetched] | None = None
        self._closed = self._any_byte = False

    def is_reusable(self) -> bool:
        return not self._closed and self._reader.keep_alive and not self._reader.excess

    async def get(self, request: bytes) -> Fetched:
        self._reader.begin()
        self._any_byte = False
        if self._closed or self._transport is None:
            raise FetchError(FailureKind.LOST_BEFORE_BYTE, "the server closed the connection")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._closed, self._waiting = True, None
        self._reader.close()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # ---- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._closed:  # nobody wants it any more
            self.close()

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # nobody asked; an answer to come could not be told apart from this one
            self.close()
            return
        reader = self._reader
        self._any_byte = True
        reader.feed(data)
        if reader.complete:
            self._resolve(Fetched(reader.status, reader.body()))
        elif reader.trouble is not None:
            self._fail(*reader.trouble)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._transport = None
        self._reader.close()

    def _end(self, error: Exception | None) -> None:
        self._closed = True
        reader = self._reader
        how = "closed the connection" if error is None else f"dropped the connection ({error})"
        if error is None and reader.ends_with_connection():
            self._resolve(Fetched(reader.status, reader.body()))
        elif self._any_byte:
            self._fail(FailureKind.CUT, f"the server {how} in the middle of its answer")
        else:
            self._fail(FailureKind.LOST_BEFORE_BYTE, f"the server {how} without an answer")

    def _resolve(self, answer: Fetched) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _fail(self, kind: FailureKind, message: str) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(FetchError(kind, message))
