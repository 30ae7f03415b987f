"""The line between the parent and the process of a test: one JSON object a line, over a socket pair.

The child tells its phase, notes, progress and outcome; the parent tells it to drain. When either end closes,
the other knows that its peer is gone, whatever killed it.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

_LIMIT = 1 << 20

Message = dict[str, Any]


class Channel:
    """One end. Sending never blocks for long: what the peer does not read is dropped, save `must` ones."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self._inbound = bytearray()
        self._encoder = msgspec.json.Encoder()
        self._queue: deque[bytes] = deque()
        self._unread: list[Message] = []
        self.closed = False

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._sock.fileno()

    def send(self, message: Message, *, must: bool = False) -> None:
        """Send a message. must: wait (at most 5 s) until the peer takes it; others are dropped when full."""
        data = self._encoder.encode(message) + b"\n"
        try:
            if must:
                self._sock.settimeout(5.0)
                try:
                    self._flush_partial()
                    self._sock.sendall(data)
                finally:
                    self._sock.setblocking(False)
            elif self._flush_partial():
                sent = self._sock.send(data)
                if sent < len(data):
                    self._queue.append(data[sent:])
        except (BlockingIOError, TimeoutError):
            return
        except OSError:
            self.closed = True

    def _flush_partial(self) -> bool:
        """Send the rest of a message that was cut; whether all of it is out."""
        while self._queue:
            rest = self._queue[0]
            sent = self._sock.send(rest)
            if sent < len(rest):
                self._queue[0] = rest[sent:]
                return False
            self._queue.popleft()
        return True

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
