"""Sockets for embedded servers: on loopback, whoever asks."""

from __future__ import annotations

import socket


def bind(port: int) -> socket.socket:
    """A socket bound to a port of 127.0.0.1 (0: any free one), not yet listening. Raises OSError."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound
