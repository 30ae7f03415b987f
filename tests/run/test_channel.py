"""The line between parent and test: what must arrive does, whole, however late the peer reads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lbrun.run.channel import Channel


@pytest.fixture
def line() -> Iterator[tuple[Channel, Channel, socket.socket]]:
    """Two ends, and the first one's socket."""
    ours, theirs = socket.socketpair()
    one, other = Channel(ours), Channel(theirs)
    yield one, other, ours
    one.close()
    other.close()


def read_until(channel: Channel, kind: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    while not any(message["type"] == kind for message in messages):
        assert not channel.closed
        messages += channel.receive()
    return messages


def send_in_thread(channel: Channel, message: dict[str, Any]) -> threading.Thread:
    thread = threading.Thread(target=channel.send, args=(message,), kwargs={"must": True}, daemon=True)
    thread.start()
    return thread


def test_an_outcome_waits_for_a_peer_that_was_stopped_for_long(
    line: tuple[Channel, Channel, socket.socket],
) -> None:
    one, other, sock = line
    for number in range(20_000):  # far more than a socket holds: the peer reads nothing
        one.send({"type": "progress", "n": number, "text": "x" * 50})
    sender = send_in_thread(one, {"type": "outcome", "verdict": "VALID"})
    # nothing but the peer ends its wait: there is no timeout
    while sock.gettimeout() is not None:
        assert sender.is_alive()
    messages = read_until(other, "outcome")
    sender.join()
    numbers = [message["n"] for message in messages[:-1]]
    assert numbers == list(range(len(numbers)))  # whole, in order; the rest was dropped
    assert messages[-1] == {"type": "outcome", "verdict": "VALID"}


def test_a_message_of_several_mebibytes_arrives(line: tuple[Channel, Channel, socket.socket]) -> None:
    one, other, _ = line
    message = {"type": "outcome", "servers": [{"last_error": "x" * 4096}] * 1000}
    sender = send_in_thread(one, message)
    assert read_until(other, "outcome") == [message]
    sender.join()


def test_a_peer_that_is_gone_ends_the_wait(line: tuple[Channel, Channel, socket.socket]) -> None:
    one, other, _ = line
    sender = send_in_thread(one, {"type": "outcome", "text": "x" * (8 << 20)})
    other.close()
    sender.join()
    assert one.closed
