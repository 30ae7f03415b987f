"""Making connections: name resolution, TCP, TLS, and what their failures mean."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Protocol, TypeVar

from lbrun.attempt import FailureKind
from lbrun.transport.endpoint import Endpoint

SLOW_S = 0.25
"""A connection that has been in the making for longer hangs: its packets are lost, or nobody accepts."""

LATE_S = 0.25
"""A timeout that is noticed so late says that this process was held up; the connection may well be there."""

_REFRESH_S = 1.0
"""After a failure the name is resolved again, but not more often than this."""

_LOCAL_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})

Address = tuple[int, str]  # family, IP address


class Closable(Protocol):
    """What a dialer makes, beyond being an asyncio protocol."""

    def close(self) -> None:
        """Close at once, also before there is a socket."""


P = TypeVar("P", bound=Closable)


class DialError(Exception):
    """No connection could be made."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind, self.message = kind, message
        super().__init__(message)


class Dialer:
    """Makes connections to one server. Its name is resolved once, and again after a failure."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        self._endpoint, self._timeout_s = endpoint, timeout_s
        self._tls = tls if endpoint.tls else None
        self._where = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._where += f":{endpoint.port}"
        self._addresses: list[Address] = _literal(endpoint.host)
        self._is_name = not self._addresses
        self._failed: set[Address] = set()  # the last time that they were tried
        self._resolved_at_s = 0.0
        self._resolving: asyncio.Task[list[Address]] | None = None

    async def dial(self, make: Callable[[], P]) -> P:
        """Open a connection with a protocol of the caller's making.

        Raises DialError. Where the call is cancelled, nothing stays open.
        """
        made: list[P] = []
        began_s = monotonic()

        def make_and_keep() -> P:
            made.append(make())
            return made[-1]

        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = self._addresses or await self._resolve()
                return await self._open(addresses, make_and_keep, began_s + self._timeout_s)
        except (OSError, UnicodeError) as error:  # TimeoutError and ssl.SSLError among them
            self._forget_addresses()
            if isinstance(error, TimeoutError) and monotonic() - began_s > self._timeout_s + LATE_S:
                message = "this process was too busy to connect in time"
                raise DialError(FailureKind.LOCAL, message) from None
            raise self._explain(error) from None
        except asyncio.CancelledError:
            for protocol in made:
                protocol.close()
            raise

    def close(self) -> None:
        """Stop a name resolution that nobody waits for any more."""
        if self._resolving is not None:
            self._resolving.cancel()

    async def _open(self, addresses: list[Address], make: Callable[[], P], end_s: float) -> P:
        """Try one address after the other until end_s; each has its share of the time, so that one that
        swallows packets does not use up that of the others. One that fails is the last to be tried next time.
        """
        loop = asyncio.get_running_loop()
        trouble: OSError = OSError(errno.EADDRNOTAVAIL, "no address to connect to")
        for n_left, address in zip(range(len(addresses), 0, -1), tuple(addresses), strict=True):
            connected = False
            try:
                async with asyncio.timeout((end_s - monotonic()) / n_left):
                    _, protocol = await loop.create_connection(
                        make,  # type: ignore[type-var]
                        address[1],
                        self._endpoint.port,
                        family=address[0],
                        ssl=self._tls,
                        server_hostname=self._endpoint.host if self._tls else None,
                    )
                connected = True
            except OSError as error:
                if isinstance(error, ssl.SSLError) or error.errno in _LOCAL_ERRNOS:
                    raise
                trouble = error
            finally:
                if connected:
                    self._failed.discard(address)
                else:
                    self._failed.add(address)
                    if len(addresses) > 1 and addresses[0] == address:
                        addresses.append(addresses.pop(0))
            if connected:
                return protocol
        raise trouble

    async def _resolve(self) -> list[Address]:
        """The server's addresses; all who ask at the same time share one look-up."""
        if self._resolving is None:
            self._resolving = asyncio.ensure_future(self._look_up())
            # where all who asked have given up, its failure is nobody's
            self._resolving.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._resolving)

    async def _look_up(self) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                self._endpoint.host, self._endpoint.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        finally:
            self._resolving = None
        self._resolved_at_s = monotonic()
        addresses = dict.fromkeys((int(info[0]), str(info[4][0])) for info in found)
        self._failed.intersection_update(addresses)
        self._addresses = sorted(addresses, key=self._failed.__contains__)
        return self._addresses

    def _forget_addresses(self) -> None:
        if self._is_name and monotonic() - self._resolved_at_s > _REFRESH_S:
            self._addresses = []

    def _explain(self, error: OSError | UnicodeError) -> DialError:
        where = self._where
        if isinstance(error, UnicodeError):  # a label too long or empty, refused before any look-up
            return DialError(FailureKind.DNS, f"{self._endpoint.host!r} is no host name")
        if isinstance(error, socket.gaierror):
            return DialError(
                FailureKind.DNS, f"the name {self._endpoint.host!r} has no address: {error.strerror}"
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return DialError(
                FailureKind.TLS, f"the certificate of {where} is not trusted: {error.verify_message}"
            )
        if isinstance(error, ssl.SSLError):
            reason = error.reason or error.strerror or str(error)
            return DialError(FailureKind.TLS, f"no TLS with {where}: {reason}")
        if isinstance(error, TimeoutError):  # ours, or the kernel's ETIMEDOUT
            if self._resolving is not None:
                return DialError(
                    FailureKind.DNS,
                    f"the name {self._endpoint.host!r} was not resolved within {self._timeout_s:g} s",
                )
            return DialError(
                FailureKind.CONNECT_TIMEOUT, f"no connection to {where} within {self._timeout_s:g} s"
            )
        if error.errno in _LOCAL_ERRNOS:
            return DialError(
                FailureKind.LOCAL, f"this machine cannot open a connection: {os.strerror(error.errno)}"
            )
        if isinstance(error, ConnectionRefusedError):
            return DialError(FailureKind.REFUSED, f"{where} refused the connection")
        if self._tls is not None and isinstance(error, ConnectionResetError | ConnectionAbortedError):
            return DialError(FailureKind.TLS, f"{where} ended the TLS handshake")
        reason = os.strerror(error.errno) if error.errno else str(error)
        return DialError(FailureKind.REFUSED, f"no connection to {where}: {reason}")


def _literal(host: str) -> list[Address]:
    """The address that the host is; none for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    return [(socket.AF_INET if address.version == 4 else socket.AF_INET6, str(address))]
