"""The server's side of one connection: uvicorn's protocol, plus what a simulated failure needs.

ASGI hides the transport; faults such as a reset, or bytes that contradict their head, need it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SCOPE_KEY = "connection"

# l_onoff = 1, l_linger = 0: close() drops what is unsent and answers with RST instead of FIN
_LINGER_RESET = struct.pack("ii", 1, 0)


class Connection(HttpToolsProtocol):
    """Hands itself to the application in ``scope["state"]["connection"]``.

    on_lost: called once when the client has gone; it saves a task per request that would wait for it.
    """

    on_lost: Callable[[], None] | None = None

    def on_message_begin(self) -> None:
        """A request begins (called by httptools)."""
        super().on_message_begin()
        self.scope["state"][SCOPE_KEY] = self

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whichever side."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            callback, self.on_lost = self.on_lost, None
            callback()

    def write_raw(self, data: bytes) -> None:
        """Send bytes past all HTTP framing; the connection must be closed or reset afterwards."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        """End the connection (FIN) once everything is sent."""
        self.transport.close()

    def reset(self) -> None:
        """End the connection by RST. What was written before reaches the client only if it was sent."""
        connected = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # the client may have been faster
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self.transport.abort()
