"""GET requests of the control plane: health, model lists, versions; over httpx.

One httpx transport a session, without the client around it: a pool may have a thousand servers, of which
hundreds are probed every second. The TLS context is shared, since making one takes longer than the probe.
"""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import NamedTuple

import httpx

from lbrun.attempt import FailureKind
from lbrun.transport.endpoint import Endpoint

MAX_BODY_BYTES = 1 << 20
_NOT_IN_A_GET = ("content-type", "content-length", "host")
_ONE_CONNECTION = httpx.Limits(max_connections=1, max_keepalive_connections=1)


class Fetched(NamedTuple):
    """A complete answer. body: up to `MAX_BODY_BYTES`, undecoded."""

    status: int
    body: bytes


class FetchError(Exception):
    """There is no complete answer; message: in words, with secrets where the server quoted some."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind, self.message = kind, message
        super().__init__(message)


class Fetcher:
    """Asks one server.

    endpoint: its address and the headers to send. tls: shared by all sessions. connect_timeout_s: for each
    step of connecting.
    """

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext, connect_timeout_s: float) -> None:
        self._url, self._tls = endpoint.url, tls
        self._timeouts = {"connect": connect_timeout_s, "read": None, "write": None, "pool": None}
        lines = endpoint.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.split(": ", 1) for line in lines if ": " in line)
        self._headers = [(name, value) for name, value in pairs if name.lower() not in _NOT_IN_A_GET]

    def session(self) -> FetchSession:
        """Requests that follow each other, on one connection where the server keeps it open."""
        return FetchSession(self)

    def request(self, path: str) -> httpx.Request:
        """A GET for the path, below the prefix of the server's URL."""
        extensions = {"timeout": self._timeouts}
        return httpx.Request("GET", self._url + path, headers=self._headers, extensions=extensions)

    def transport(self) -> httpx.AsyncHTTPTransport:
        """A transport of its own connection."""
        return httpx.AsyncHTTPTransport(verify=self._tls, limits=_ONE_CONNECTION, trust_env=False)


class FetchSession:
    """An async context manager: its connection is opened by the first `get` and closed at the end."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._transport = fetcher.transport()

    async def __aenter__(self) -> FetchSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def get(self, path: str) -> Fetched:
        """Ask for the path. Has no timeout for the answer. Raises FetchError."""
        try:
            response = await self._transport.handle_async_request(self._fetcher.request(path))
            try:
                body = bytearray()
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > MAX_BODY_BYTES:
                        break
            finally:
                await response.aclose()
        except httpx.ConnectTimeout as error:
            raise FetchError(FailureKind.CONNECT_TIMEOUT, "no connection in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # closed or reset without an answer, unlike an answer that is no HTTP
            lost = isinstance(error, httpx.ReadError | httpx.WriteError) or "disconnected" in str(error)
            kind = FailureKind.LOST_BEFORE_BYTE if lost else FailureKind.MALFORMED
            raise FetchError(kind, str(error) or type(error).__name__) from error
        return Fetched(response.status_code, bytes(body))
