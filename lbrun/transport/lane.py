"""What the transport keeps of one server: connections at rest, attempts in line, connections being made."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from lbrun.transport.dial import Dialer
from lbrun.transport.endpoint import Endpoint
from lbrun.transport.pairing import Pairing

if TYPE_CHECKING:
    from lbrun.transport.connection import Connection


class Waiting(NamedTuple):
    """An attempt that waits for a connection."""

    sample: int
    since_ns: int


class Lane:
    """One server. Sending costs the same for any number of connections and attempts.

    idle: kept-alive connections, the last used last, which is taken first: few stay warm, the rest age.
    line: attempts that any connection will do for, oldest first. fresh_line: those that need a new one.
    dialing: connections in the making; which attempt one will carry is open until it is made, so that an
    attempt in line can also ride on a connection that gets free before. held: none is to be made for now.
    n_open: connections that are open, at rest or not. head: the form of a request's head. request_id: the
    form of a request's id, which takes the attempt's; b"" where the requests have one of the user's.
    pairing: whose answers they are. n_unasked: answers that nobody had asked for; after the first, the server
    is distrusted: each connection carries one request, so that no answer can be taken for that to another.
    """

    __slots__ = (
        "dialer",
        "dialing",
        "distrusted",
        "endpoint",
        "fresh_line",
        "head",
        "held",
        "idle",
        "in_dial_queue",
        "last_byte_ns",
        "line",
        "n_open",
        "n_unasked",
        "pairing",
        "request_id",
        "server",
    )

    def __init__(self, server: int, endpoint: Endpoint, dialer: Dialer, id_prefix: bytes = b"") -> None:
        self.server, self.endpoint, self.dialer = server, endpoint, dialer
        self.request_id = b"" if endpoint.has_request_id else id_prefix + b"%dz"
        self.pairing = Pairing(has_id=bool(self.request_id))
        self.distrusted, self.n_unasked = False, 0
        # as one form, which takes the length of the body and the attempt's id
        self.head = endpoint.head.replace(b"%", b"%%") + b"%d\r\n"
        if self.request_id:
            self.head += b"X-Request-Id: %b\r\n" % self.request_id
        self.head += b"\r\n"
        self.idle: dict[Connection, None] = {}
        self.line: OrderedDict[int, Waiting] = OrderedDict()
        self.fresh_line: OrderedDict[int, Waiting] = OrderedDict()
        self.dialing: set[asyncio.Task[Connection]] = set()
        self.in_dial_queue = self.held = False
        self.last_byte_ns = self.n_open = 0

    def wants_connection(self) -> bool:
        """More attempts are in line than connections are being made, and some may be made."""
        return not self.held and len(self.line) + len(self.fresh_line) > len(self.dialing)

    def take(self, *, new_connection: bool) -> tuple[int, Waiting] | None:
        """Take the attempt out of the line that a connection should carry next."""
        if new_connection and self.fresh_line:
            return self.fresh_line.popitem(last=False)
        return self.line.popitem(last=False) if self.line else None

    def first_in_line(self) -> list[int]:
        """The attempt that the next new connection is for, if any."""
        for line in (self.fresh_line, self.line):
            if line:
                return [next(iter(line))]
        return []

    def all_in_line(self, since_before_ns: int | None = None) -> list[int]:
        """The attempts in line; with a time, only those that have been there since before it."""
        return [
            attempt_id
            for line in (self.fresh_line, self.line)
            for attempt_id, waiting in line.items()
            if since_before_ns is None or waiting.since_ns <= since_before_ns
        ]

    def leave_line(self, attempt_id: int) -> None:
        """Take this attempt out of the line."""
        if self.line.pop(attempt_id, None) is None:
            self.fresh_line.pop(attempt_id, None)

    def close_idle(self) -> None:
        """Close the connections at rest."""
        while self.idle:
            self.idle.popitem()[0].close()
