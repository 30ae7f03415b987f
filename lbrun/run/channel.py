"""The line between the parent and the process of a test: one JSON object a line, over a socket pair.

The child tells its phase, notes, progress and outcome; the parent tells it to drain. When either end closes,
the other knows that its peer is gone, whatever killed it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

_LIMIT = 64 << 20
"""Bytes of one message: a thousand servers, each with a long last error, are a few MiB."""

Message = dict[str, Any]


class Channel:
    """One end. What the peer does not read in time is dropped, save `must` messages.

    redact: takes secrets out of what is sent; progress, which comes often, is figures and states.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self._inbound = bytearray()
        self._encoder = msgspec.json.Encoder()
        self._rest = b""  # of a message that went out in part
        self._unread: list[Message] = []
        self.redact: Callable[[Message], Message] = dict
        self.closed = False

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._sock.fileno()

    def send(self, message: Message, *, must: bool = False) -> None:
        """Send a message.

        must: wait until the peer takes it, or is gone, however long that takes. A parent that is stopped, or
        whose terminal is, reads on when it continues, and a run's outcome is worth waiting for. Any other
        message is dropped when the peer is behind.
        """
        if message.get("type") != "progress":
            message = self.redact(message)
        data = self._encoder.encode(message) + b"\n"
        try:
            if must:
                self._sock.setblocking(True)
                try:
                    self._sock.sendall(b"".join((self._rest, data)))
                    self._rest = b""
                finally:
                    self._sock.setblocking(False)
            elif self._flush_partial():
                self._rest = data[self._sock.send(data) :]
        except BlockingIOError:
            return
        except OSError:
            self.closed = True

    def _flush_partial(self) -> bool:
        """Send the rest of a message that was cut; whether all of it is out."""
        if self._rest:
            self._rest = self._rest[self._sock.send(self._rest) :]
        return not self._rest

    def receive(self) -> list[Message]:
        """Every whole message that has arrived; `closed` is set at the peer's end."""
        while True:
            try:
                data = self._sock.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                self.closed = True
                break
            if not data:
                self.closed = True
                break
            self._inbound += data
        if len(self._inbound) > _LIMIT and b"\n" not in self._inbound:
            self.closed = True
            return []
        *lines, rest = bytes(self._inbound).split(b"\n")
        self._inbound = bytearray(rest)
        messages, self._unread = self._unread, []
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):
                messages.append(msgspec.json.decode(line))
        return messages

    def put_back(self, messages: Sequence[Message]) -> None:
        """Leave messages that came together with another for the next `receive`."""
        self._unread = [*messages, *self._unread]

    def close(self) -> None:
        """Close this end."""
        self.closed = True
        self._sock.close()
