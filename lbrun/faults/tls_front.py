"""TLS in front of an embedded server: bytes are passed on both ways, under whatever certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

_T = TypeVar("_T")
_PIECE = 65_536
_TIMEOUT_S = 10.0


class TlsFront:
    """A TLS port on 127.0.0.1 that passes everything on to a server. It works on a thread of its own."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._to = urlsplit(url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-front", daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.present(context)

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"https://127.0.0.1:{self.port}"

    def present(self, context: ssl.SSLContext) -> None:
        """Show another certificate from now on; connections under the old one are cut."""
        self._do(self._listen(context))

    def close(self) -> None:
        """Cut everything, and end the thread."""
        self._do(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    async def _listen(self, context: ssl.SSLContext) -> None:
        await self._cut()
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=context, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:  # noqa: ASYNC110 - an event for each connection would be more to get wrong
            await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection(self._to.hostname, self._to.port)
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side ends, and then the other as well."""
    try:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            writer.close()
